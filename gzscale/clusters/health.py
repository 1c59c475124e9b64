"""What is asked of every worker before a night begins: its code, clock, scratch space and device."""

from __future__ import annotations

import importlib.metadata
import platform
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import gzscale
from gzscale.clusters.asking import ask_all
from gzscale.clusters.workers import PREDICT
from gzscale.errors import ClusterError
from gzscale.night.compute import compute_kind
from gzscale.night.fingerprint import code_digest

__all__ = ["Demands", "Problem", "WorkerReport", "check_workers", "own_versions", "report"]

#: Seconds that a worker's clock may be apart from this process's. S3 refuses requests that are
#: 15 minutes off, and the report draws the workers' spans on one axis.
CLOCK_TOLERANCE = 5.0
#: Packages whose version shapes results: in their last bits, or the bytes in which they are stored.
_PACKAGES = (
    "numpy",
    "scipy",
    "numba",
    "llvmlite",
    "torch",
    "zarr",
    "numcodecs",
    "pyarrow",
    "astropy",
    "cdshealpix",
    "distributed",
)
_CODE = ("catalog", "cutouts", "models", "night", "surveys", "tasks", "errors.py")


@dataclass(frozen=True)
class WorkerReport:
    """What one worker says of itself.

    Attributes
    ----------
    versions
        Of Python, gzscale and the packages that shape results, and the hash of gzscale's sources.
    clock
        Its time, seconds since 1970.
    scratch, free
        Its folder for temporary files, and bytes free there.
    compute
        See `gzscale.night.compute.compute_kind`; empty for workers that only cut.
    """

    versions: Mapping[str, str]
    clock: float
    scratch: str
    free: int
    compute: str


def own_versions() -> dict[str, str]:
    """Return the versions of what this process runs, PyTorch's without its build's name.

    Its wheels for cores and for CUDA are ``2.13.0+cpu`` and ``2.13.0``, or ``2.13.0+cu130``: the same code.
    On what it computes, `WorkerReport.compute` says. Any other package's local version is other code.
    """
    versions = {name: importlib.metadata.version(name) for name in _PACKAGES}
    return {
        "python": ".".join(platform.python_version_tuple()[:2]),
        "gzscale": gzscale.__version__,
        **versions,
        "torch": versions["torch"].partition("+")[0],
        "code": code_digest(*_CODE)[:12],
    }


def report(dask_worker: Any) -> WorkerReport:
    """Say what a worker is; runs on the worker.

    Parameters
    ----------
    dask_worker
        `distributed.Worker`, which Dask fills in.
    """
    scratch = dask_worker.local_directory
    predicts = PREDICT in dask_worker.state.total_resources
    return WorkerReport(
        versions=own_versions(),
        compute=compute_kind() if predicts else "",
        scratch=scratch,
        free=shutil.disk_usage(scratch).free,
        clock=time.time(),
    )


@dataclass(frozen=True)
class Problem:
    """What may be wrong with a worker, and what to do about it."""

    what: str
    remedy: str


OTHER_CODE = Problem("runs other code than this process", "install the same gzscale there and start it anew")
OTHER_TIME = Problem("has another time than this process", "synchronise the clocks (chronyc makestep)")
NO_SPACE = Problem(
    "has too little scratch space", "free some, or name another folder as the preset's `scratch`"
)
NO_GPU = Problem(
    "is to predict on a GPU and has none that works",
    "look at nvidia-smi there; --cluster local predicts on cores",
)
SILENT = Problem("cannot say what it runs", "install the same gzscale there and start it anew")


@dataclass(frozen=True)
class Demands:
    """What is asked of every worker.

    Attributes
    ----------
    versions
        See `own_versions`.
    scratch_free
        Bytes that must be free in its scratch folder.
    wants_gpu
        Whether predictions are meant for GPUs.
    """

    versions: Mapping[str, str]
    scratch_free: int
    wants_gpu: bool

    def unmet(self, item: WorkerReport, seconds_off: float) -> Iterator[tuple[Problem, str]]:
        """Yield what is wrong with a worker whose clock is so many seconds off, with the numbers."""
        differences = _differences(item.versions, self.versions)
        if differences:
            yield OTHER_CODE, differences
        if seconds_off > CLOCK_TOLERANCE:
            yield OTHER_TIME, f"{seconds_off:.1f} s off, {CLOCK_TOLERANCE:.0f} s allowed"
        if item.free < self.scratch_free:
            needed = f"{self.scratch_free / 1e9:.2f} GB needed"
            yield NO_SPACE, f"{item.free / 1e9:.2f} GB free in {item.scratch}, {needed}"
        if self.wants_gpu and item.compute and not item.compute.startswith("cuda"):
            yield NO_GPU, item.compute


def check_workers(client: Any, demands: Demands) -> str:
    """Ask every worker that is up, and refuse what would spoil the night.

    Parameters
    ----------
    client
        `distributed.Client`.
    demands
        What is asked of them.

    Returns
    -------
    str
        The kind of device and the precision that predictions are made with.

    Raises
    ------
    ClusterError
        If workers do not answer, run other code, have other clocks or no space, no GPU
        where one is wanted, or devices of several kinds.
    """
    before = time.time()
    reports = _ask(client)
    after = time.time()
    found = {
        name: dict(demands.unmet(item, max(before - item.clock, item.clock - after, 0.0)))
        for name, item in reports.items()
    }
    for problem in (OTHER_CODE, OTHER_TIME, NO_SPACE, NO_GPU):
        _refuse(problem, {name: unmet.get(problem, "") for name, unmet in found.items()})
    kinds = sorted({item.compute for item in reports.values() if item.compute})
    if len(kinds) != 1:
        raise ClusterError(
            f"the workers that predict compute in {len(kinds)} ways ({', '.join(kinds) or 'none'}), and "
            "a release has to be of one; start those of one kind, or give PREDICT to them alone"
        )
    return kinds[0]


def _ask(client: Any) -> dict[str, WorkerReport]:
    workers = client.scheduler_info(n_workers=-1)["workers"]
    names = {address: f"{worker['name']} at {address}" for address, worker in workers.items()}
    answers = ask_all(client, workers, "what they run", report)
    wrong = {names[at]: item for at, item in answers.items() if not isinstance(item, WorkerReport)}
    _refuse(SILENT, {name: f"{type(item).__name__}: {item}" for name, item in wrong.items()})
    return {names[at]: item for at, item in answers.items()}


def _refuse(problem: Problem, details: Mapping[str, str]) -> None:
    """Raise for workers that have a problem, naming the first three."""
    found = [f"{name} ({detail})" for name, detail in details.items() if detail]
    if found:
        more = f" and {len(found) - 3} more" if len(found) > 3 else ""
        raise ClusterError(f"worker {'; worker '.join(found[:3])}{more}: {problem.what}; {problem.remedy}")


def _differences(there: Mapping[str, str], here: Mapping[str, str]) -> str:
    return ", ".join(
        f"{key} {there.get(key, 'none')}, here {here[key]}" for key in here if there.get(key) != here[key]
    )
