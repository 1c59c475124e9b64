"""Opens a Dask cluster by the name of a preset: checked before it is used, watched while it is."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from gzscale.clusters.asking import register
from gzscale.clusters.health import Demands, check_workers, own_versions
from gzscale.clusters.keeper import Keeper
from gzscale.clusters.kubernetes import make_kubernetes
from gzscale.clusters.local import make_cuda, make_local, reach_address
from gzscale.clusters.presets import AddressPreset, Preset, load_preset
from gzscale.clusters.slurm import make_slurm
from gzscale.clusters.workers import CUT, ENVIRONMENT, KINDS, Workers
from gzscale.config import parse_bytes
from gzscale.errors import ClusterError

__all__ = ["Cluster", "count_hosts", "count_slots", "open_cluster"]

#: Seconds within which a scheduler that runs already answers.
CONNECT_TIMEOUT = 30
_MAKERS: dict[str, Callable[[Any], Workers]] = {
    "local": make_local,
    "cuda": make_cuda,
    "slurm": make_slurm,
    "kubernetes": make_kubernetes,
    "address": reach_address,
}


@dataclass(frozen=True)
class Cluster:
    """A cluster whose workers are up and were checked.

    Attributes
    ----------
    client
        `distributed.Client`.
    compute
        Device and precision of its predictions: see `gzscale.night.compute.compute_kind`.
    partition_limit
        Seconds that one worker may be at a partition; see `gzscale.night.airborne`.
    patience
        Seconds that the night waits where no worker of a kind is left.
    waits_for
        Says what absent workers wait for.
    scratch_cap, scratch_free
        Bytes that the workers of a host may share in their scratch folder, and that remain free there.
    """

    client: Any
    compute: str
    partition_limit: float
    patience: float
    waits_for: Callable[[], str]
    scratch_cap: int = 0
    scratch_free: int = 0


@contextmanager
def open_cluster(name: str) -> Iterator[Cluster]:
    """Make or reach a cluster, check its workers, and close what was made.

    Parameters
    ----------
    name
        The name of a preset (``deploy/clusters/*.yaml``), ``local`` or ``cuda``, the
        address of a scheduler (``tcp://...``, ``tls://...``), or the path of a preset.

    Yields
    ------
    Cluster

    Raises
    ------
    ClusterError
        If the name means nothing, the preset cannot work, workers of either kind did not
        come up in time, or one that did would spoil the night.
    """
    import dask

    from gzscale.clusters.sampling import QUIET

    preset = load_preset(name)
    _quieten()
    # For as long as it is open: workers that take the place of lost ones are started alike.
    started_with = {f"distributed.nanny.pre-spawn-environ.{key}": value for key, value in ENVIRONMENT.items()}
    with dask.config.set(QUIET | started_with):
        yield from _open(preset, name)


def _open(preset: Preset, name: str) -> Iterator[Cluster]:
    from gzscale.clusters.newcomers import watch_newcomers
    from gzscale.clusters.sampling import ShortProfile

    workers = _MAKERS[preset.kind](preset)
    try:
        with _connect(workers, preset, name) as client:
            _wait(client, workers, preset, name)
            demands = Demands(own_versions(), parse_bytes(preset.scratch_free), preset.wants_gpu)
            compute = check_workers(client, demands)
            refused = watch_newcomers(client, demands, compute)
            register(client, ShortProfile(), "that they keep short profiles")
            keeper = Keeper(client, workers)
            keeper.start()
            try:
                yield Cluster(
                    client,
                    compute,
                    preset.partition_limit,
                    preset.start_timeout,
                    lambda: "; ".join([*refused, workers.waits_for()]),
                    parse_bytes(preset.scratch_cap),
                    demands.scratch_free,
                )
            finally:
                keeper.stop()
    finally:
        workers.close()


def count_slots(client: Any) -> dict[str, int]:
    """Return how many tasks of each kind the cluster's workers can do at a time."""
    workers = client.scheduler_info(n_workers=-1)["workers"].values()
    return {kind: sum(int(worker["resources"].get(kind, 0)) for worker in workers) for kind in KINDS}


def count_hosts(client: Any) -> dict[str, int]:
    """Return how many partitions can be cut at a time on each host, those that cut none left out."""
    slots: dict[str, int] = {}
    for worker in client.scheduler_info(n_workers=-1)["workers"].values():
        number = int(worker["resources"].get(CUT, 0))
        if number:
            slots[worker["host"]] = slots.get(worker["host"], 0) + number
    return slots


def _quieten() -> None:
    """Keep the scheduler's and the nannies' chatter out of the night's progress."""
    # They set their loggers' levels themselves when they are imported.
    import distributed.nanny
    import distributed.scheduler
    import distributed.worker  # noqa: F401

    for logger in [name for name in logging.root.manager.loggerDict if name.startswith("distributed")]:
        logging.getLogger(logger).setLevel(logging.CRITICAL)


@contextmanager
def _connect(workers: Workers, preset: Preset, name: str) -> Iterator[Any]:
    from distributed import Client

    try:
        client = Client(
            workers.target,
            security=workers.security,
            set_as_default=False,
            timeout=CONNECT_TIMEOUT if isinstance(preset, AddressPreset) else preset.start_timeout,
        )
    except (OSError, ValueError) as error:
        raise ClusterError(
            f"cluster {name!r}: no scheduler answers at {workers.target} within {CONNECT_TIMEOUT} s "
            f"({type(error).__name__}: {error}); check the address, that the scheduler runs, and for tls:// "
            "the certificates"
        ) from error
    try:
        yield client
    finally:
        client.close()


def _wait(client: Any, workers: Workers, preset: Preset, name: str) -> None:
    """Wait until both kinds of work have a worker, and all that were asked for at least are there."""
    least = {kind: limits.minimum * limits.workers for kind, limits in workers.limits.items()}
    start = time.monotonic()
    slots = count_slots(client)
    while any(slots[kind] < least.get(kind, 1) for kind in KINDS):
        if time.monotonic() - start > preset.start_timeout:
            if all(slots.values()):
                return
            told = ", ".join(f"{number} of {kind}" for kind, number in slots.items())
            raise ClusterError(
                f"cluster {name!r}: after {preset.start_timeout} s there are workers for {told}, and a night "
                f'needs both (`dask worker ... --resources "CUT=1 PREDICT=1"`); {workers.waits_for()}'
            )
        time.sleep(0.2)
        slots = count_slots(client)
