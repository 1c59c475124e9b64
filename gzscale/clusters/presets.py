"""Cluster presets: what a YAML file says of a site's workers, with types and bounds; found by name."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

import gzscale
from gzscale._settings import explain
from gzscale._yaml import parse_yaml
from gzscale.clusters.walltimes import walltime_seconds, walltime_text
from gzscale.config import parse_bytes
from gzscale.errors import ClusterError

__all__ = [
    "AddressPreset",
    "CudaPreset",
    "JobPool",
    "KubernetesPreset",
    "LocalPreset",
    "PodPool",
    "Preset",
    "SlurmPreset",
    "find_presets",
    "load_preset",
]

#: Folders of presets, as in PATH.
PATH_VARIABLE = "GZSCALE_CLUSTER_PRESETS"
#: A preset is a few hundred bytes; anything larger is a mistake.
MAX_PRESET_BYTES = 100_000
_ADDRESS = re.compile(r"(tcp|tls|ucx|ws|wss)://\S+")
#: Share of the walltime, and seconds at most, before whose end a job's workers leave.
DRAIN_SHARE, DRAIN_MOST = 0.1, 600


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class _Preset(_Section):
    start_timeout: int = Field(default=180, ge=1, description="Seconds until workers of each kind are up.")
    partition_limit: int = Field(
        default=3600,
        ge=1,
        description="Seconds that a worker may be at one partition; all together thrice that.",
    )
    scratch: str | None = Field(default=None, description="Folder for the workers' temporary files.")
    scratch_free: str | int = Field(
        default="1GB", description="Bytes that must be free there, and remain so."
    )
    scratch_cap: str | int = Field(
        default="50GB",
        description="Bytes of decoded images that the workers of a host share there at most; 0 for none.",
    )

    @field_validator("scratch_free", "scratch_cap")
    @classmethod
    def _bytes(cls, value: str | int) -> str | int:
        parse_bytes(value)
        return value

    @property
    def wants_gpu(self) -> bool:
        """Whether predictions are meant for GPUs, so that a worker without one is an error."""
        return False


class LocalPreset(_Preset):
    """Processes of this machine, each of both kinds."""

    kind: Literal["local"] = "local"
    workers: int | None = Field(default=None, ge=1, description="One a core by default.")
    memory: str = Field(default="auto", description="Of one worker; its share of the machine by default.")

    @field_validator("memory")
    @classmethod
    def _memory(cls, value: str) -> str:
        if value != "auto":
            parse_bytes(value)
        return value


class CudaPreset(_Preset):
    """GPUs of this machine for predictions, and processes on its cores for cutting."""

    kind: Literal["cuda"] = "cuda"
    gpus: list[int] | None = Field(default=None, min_length=1, description="Their numbers; all by default.")
    cut_workers: int | None = Field(
        default=None, ge=1, description="By default one a core that no GPU's worker takes."
    )

    @property
    def wants_gpu(self) -> bool:
        """Whether predictions are meant for GPUs."""
        return True


class _Scaled(_Section):
    """A number of jobs or pods: at least `minimum` all the time, up to `maximum` while there is work."""

    minimum: int = Field(default=1, ge=1)
    maximum: int | None = Field(default=None, ge=1, description="As `minimum` by default: a fixed number.")

    @model_validator(mode="after")
    def _order(self) -> _Scaled:
        if self.maximum is not None and self.maximum < self.minimum:
            raise ValueError(f"maximum {self.maximum} is less than minimum {self.minimum}")
        return self

    @property
    def most(self) -> int:
        """The largest number that may run."""
        return self.maximum or self.minimum


class JobPool(_Scaled):
    """One kind of SLURM job: how many, where, and of what size."""

    partition: str | None = None
    account: str | None = None
    nodes: str | None = Field(default=None, description="As sbatch takes them; a job runs on one of them.")
    constraint: str | None = None
    gpus: int = Field(default=0, ge=0, description="GPUs of a job; one worker each.")
    cores: int = Field(default=1, ge=1, description="Cores of a job; without GPUs one worker each.")
    memory: str = Field(description="Memory of a job, shared by its workers.")
    walltime: str = Field(description="HH:MM:SS, or as sbatch takes it; workers drain before it.")
    directives: list[str] = Field(
        default_factory=list, description="Further lines for sbatch: --qos=night ..."
    )

    @field_validator("memory")
    @classmethod
    def _memory(cls, value: str) -> str:
        parse_bytes(value)
        return value

    @field_validator("walltime")
    @classmethod
    def _time(cls, value: str) -> str:
        seconds = walltime_seconds(value)
        if seconds < 60:
            raise ValueError(f"walltime {value!r} is less than a minute; a worker needs that to start")
        return walltime_text(seconds)

    @property
    def workers(self) -> int:
        """Workers of one job."""
        return self.gpus or self.cores

    @property
    def lives(self) -> tuple[int, int]:
        """Seconds after which its workers leave, before the walltime: as they are told, and at most."""
        seconds = walltime_seconds(self.walltime)
        drain = min(DRAIN_MOST, math.ceil(DRAIN_SHARE * seconds))
        return seconds - drain - drain // 4, seconds - drain


class SlurmPreset(_Preset):
    """Jobs of SLURM: for cutting, and others, with GPUs, for predicting; one cluster."""

    kind: Literal["slurm"]
    cut: JobPool = Field(description="Without `predict`, these workers do both.")
    predict: JobPool | None = None
    interface: str | None = Field(default=None, description="Network interface of scheduler and workers.")
    logs: str | None = Field(default=None, description="Folder of the jobs' logs, seen by all nodes.")
    tls: bool = Field(
        default=True,
        description="Whether all that talk need a key, made for the night in `logs`, or your home.",
    )
    python: str | None = Field(default=None, description="Interpreter on the nodes; this one by default.")
    prologue: list[str] = Field(default_factory=list, description="Shell lines before a worker starts.")

    @property
    def wants_gpu(self) -> bool:
        """Whether predictions are meant for GPUs."""
        return (self.predict or self.cut).gpus > 0


class PodPool(_Scaled):
    """How many pods of a worker group."""


class KubernetesPreset(_Preset):
    """A DaskCluster of the Dask operator, from a manifest with its worker groups."""

    kind: Literal["kubernetes"]
    manifest: str = Field(description="File with one DaskCluster and at most one DaskWorkerGroup (PREDICT).")
    namespace: str = "default"
    cut: PodPool = Field(default=PodPool(), description="Pods of the cluster's own worker group.")
    predict: PodPool | None = Field(default=None, description="Pods of the DaskWorkerGroup.")
    gpu: bool = Field(default=False, description="Whether those are meant to have GPUs.")

    @property
    def wants_gpu(self) -> bool:
        """Whether predictions are meant for GPUs."""
        return self.gpu


class AddressPreset(_Preset):
    """A scheduler that runs already, with its workers."""

    kind: Literal["address"]
    address: str
    ca_file: str | None = Field(default=None, description="PEM files for tls:// addresses.")
    certificate: str | None = None
    key: str | None = None

    @field_validator("address")
    @classmethod
    def _address(cls, value: str) -> str:
        if not _ADDRESS.fullmatch(value):
            raise ValueError(f"address {value!r}: expected tcp://host:port or tls://host:port")
        return value

    @model_validator(mode="after")
    def _tls(self) -> AddressPreset:
        given = [self.ca_file, self.certificate, self.key]
        if self.address.startswith("tls://") and not all(given):
            raise ValueError("a tls:// address needs ca_file, certificate and key")
        if any(given) and not self.address.startswith("tls://"):
            raise ValueError("ca_file, certificate and key are for a tls:// address")
        return self


Preset = LocalPreset | CudaPreset | SlurmPreset | KubernetesPreset | AddressPreset

_KINDS: dict[str, type[Preset]] = {
    "local": LocalPreset,
    "cuda": CudaPreset,
    "slurm": SlurmPreset,
    "kubernetes": KubernetesPreset,
    "address": AddressPreset,
}
#: Settings that name files: relative ones are relative to the preset's folder.
_FILES = ("manifest", "ca_file", "certificate", "key")


def find_presets(environment: Mapping[str, str] = os.environ) -> dict[str, Path]:
    """Return the presets that can be chosen by name.

    They are the ``*.yaml`` files of the folders that ``GZSCALE_CLUSTER_PRESETS`` lists, of
    ``deploy/clusters`` here, and of gzscale's own; the first file of a name counts.
    """
    given = [Path(folder) for folder in environment.get(PATH_VARIABLE, "").split(os.pathsep) if folder]
    own = Path(gzscale.__file__).parents[1] / "deploy" / "clusters"
    found: dict[str, Path] = {}
    for folder in [*given, Path("deploy/clusters"), own]:
        for path in sorted(folder.glob("*.yaml")) if folder.is_dir() else ():
            found.setdefault(path.stem, path)
    return found


def load_preset(name: str) -> Preset:
    """Return a preset.

    Parameters
    ----------
    name
        The name of a preset; ``local`` or ``cuda``, which need no file; a scheduler's
        address; or the path of a preset.

    Raises
    ------
    ClusterError
        If there is none of that name, or a key is unknown or a value does not fit.
    """
    if _ADDRESS.fullmatch(name):
        given = _dask_tls() if name.startswith("tls://") else {}
        return _validated({"kind": "address", "address": name, **given}, f"cluster {name}")
    path = Path(name) if name.endswith((".yaml", ".yml")) else find_presets().get(name)
    if path is None:
        if name in {"local", "cuda"}:
            return LocalPreset() if name == "local" else CudaPreset()
        known = ", ".join(sorted({*find_presets(), "local", "cuda"}))
        raise ClusterError(
            f"cluster {name!r}: there is no such preset; known are {known}, and a scheduler's address "
            "or a preset's path will do"
        )
    tree = _read(path)
    for key in _FILES:
        if isinstance(tree.get(key), str):
            tree[key] = str(path.resolve().parent / tree[key])
    return _validated(tree, str(path))


def _dask_tls() -> dict[str, Any]:
    """Return the TLS files that Dask's own configuration names, for an address given without a preset."""
    import dask

    places = {"ca_file": "ca-file", "certificate": "client.cert", "key": "client.key"}
    return {key: dask.config.get(f"distributed.comm.tls.{place}", None) for key, place in places.items()}


def _read(path: Path) -> dict[str, Any]:
    try:
        size = path.stat().st_size
        if size > MAX_PRESET_BYTES:
            raise ClusterError(f"{path}: {size} bytes; a preset has a few hundred")
        tree = parse_yaml(path.read_text())
    except (OSError, ValueError) as error:
        raise ClusterError(f"{path}: cannot be read as a preset: {error}") from error
    if not isinstance(tree, dict) or tree.get("kind") not in _KINDS:
        raise ClusterError(f"{path}: expected `kind`, one of {', '.join(_KINDS)}, and its settings")
    return tree


def _validated(tree: dict[str, Any], origin: str) -> Preset:
    model = _KINDS[tree["kind"]]
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        raise ClusterError(explain(error, model, origin, {})) from error
