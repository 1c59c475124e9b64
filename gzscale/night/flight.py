"""Partitions on their way through the workers: submitted, awaited, watched, one outcome each."""

from __future__ import annotations

import functools
import itertools
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass
from typing import Any

from gzscale.cluster import Cluster, count_hosts, count_slots
from gzscale.config import NightConfig
from gzscale.errors import ClusterError, CredentialsError, Reason, WorkerError
from gzscale.night.airborne import Airborne
from gzscale.night.origins import Origins
from gzscale.night.planned import PlannedPartition
from gzscale.night.scratch import Room
from gzscale.night.shares import Shares
from gzscale.night.station import clear_scratch, executing, let_go, run_cut, run_stage, set_allowed_deaths
from gzscale.night.tally import Failure
from gzscale.night.work import Summary, predict
from gzscale.storage import sha256_hex

__all__ = ["Flight", "Lost"]

#: How often a partition's work is tried again after an error, and on another worker after its own failed.
RETRIES = 1
OTHER_WORKERS = 3
#: Seconds between two looks at what is not an outcome: the lock, the workers' number, the time.
TICK = 1.0
#: Seconds after which a host is given up that has no worker; one that died is started anew before.
HOST_GONE = 60.0
#: Seconds that the night waits for workers that are told to do something: one that hangs never answers.
ANSWER_TIMEOUT = 30.0
#: Seconds that an outcome has to be fetched. One whose worker left after it was told of has to be made again,
#: perhaps by a host that is no more: it is in the air again, and what else there is to do goes on.
FETCH_TIMEOUT = 5.0
#: Seconds that workers of both kinds have to be there before it is forgotten that some were missing: one that
#: is sent away, or dies as it starts, comes and goes, and a night that does nothing would go on for ever.
SETTLED = 60.0
#: Why the client has given a future up that it cannot hear of any more.
CUT_OFF = "scheduler-connection-lost"
#: In the place of a host's name: any.
ANYWHERE = ""


@dataclass(frozen=True)
class Lost:
    """A partition that its workers did not live through, or did not finish in time."""

    reason: Reason
    detail: str


class Flight:
    """Submits partitions to a cluster and returns what became of them.

    Partitions that follow each other go to the same host, whose workers share the images that they have in
    common: see `gzscale.night.sharing`.

    Parameters
    ----------
    cluster
        The cluster.
    config
        The night's configuration.
    origin
        What its results come from.
    night
        Name of the run.
    check
        Called every second or so; what it raises ends the flight.
    """

    def __init__(
        self,
        cluster: Cluster,
        config: NightConfig,
        origin: Origins,
        night: str,
        check: Callable[[], None],
    ) -> None:
        self._cluster, self._config, self._origin = cluster, config, origin
        self._night, self._check = night, check
        self._air: dict[str, Airborne] = {}
        self._landed: queue.Queue[str] = queue.Queue()
        self._attempt = itertools.count()
        self._ticked = time.monotonic()
        self._looked = time.monotonic()
        self._lonely = self._complete = 0.0
        self._why = ""
        self._hosts = self._ask(count_hosts, cluster.client)
        self._seen = dict.fromkeys(self._hosts, time.monotonic())
        name = f"{night}-{sha256_hex(config.output.encode())[:12]}"
        self._room = Room(name, cluster.scratch_cap, cluster.scratch_free)
        self.slots = sum(self._hosts.values())

    def fly(
        self, items: Sequence[PlannedPartition], per_slot: int, deaths: int
    ) -> Iterator[tuple[PlannedPartition, Summary | Failure | Lost]]:
        """Work on partitions, a bounded number in flight, and yield each outcome as it arrives.

        Parameters
        ----------
        items
            Partitions.
        per_slot
            How many are in flight for each that can be cut at a time; 0 for one in all.
        deaths
            How many workers may die with a partition in hand before it is lost.

        Raises
        ------
        ClusterError
            If the scheduler is gone, or no worker of a kind is left for longer than the cluster's patience.
        CredentialsError
            If storage refuses those of a worker.
        """
        self._ask(self._cluster.client.run_on_scheduler, set_allowed_deaths, deaths=deaths - 1)
        shares = Shares(len(items), self._wanted(per_slot))
        self._fill(items, shares, per_slot)
        while self._air:
            landed = self._next()
            if landed is None:
                continue
            # Workers come and go: batch systems start them one after the other.
            self._fill(items, shares, per_slot)
            yield landed

    def close(self) -> None:
        """Remove what the workers shared on their hosts."""
        if not self._room.cap:
            return
        # What is left the next night removes.
        _tell(self._cluster.client.run, clear_scratch, self._room.name, on_error="ignore")

    def _ask(self, call: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """Ask the scheduler something; that it does not answer is an error of the cluster, not of storage."""
        try:
            return call(*arguments, **options)
        except OSError as error:
            raise self._gone(f"{type(error).__name__}: {error}") from error

    def _gone(self, why: str) -> ClusterError:
        return ClusterError(
            f"the cluster's scheduler is gone ({why}); start it and its workers again, unless gzscale made "
            "them, and run the night again, which goes on from here"
        )

    def _wanted(self, per_slot: int) -> dict[str, int]:
        """Return how many partitions each host shall have in flight; any host, where there is one."""
        if per_slot and len(self._hosts) > 1 and not any(":" in host for host in self._hosts):
            return {host: per_slot * slots for host, slots in self._hosts.items()}
        return {ANYWHERE: max(1, per_slot * self.slots)}

    def _fill(self, items: Sequence[PlannedPartition], shares: Shares, per_slot: int) -> None:
        for host, wanted in self._wanted(per_slot).items():
            there = sum(host in (flown.host, ANYWHERE) for flown in self._air.values())
            for _ in range(wanted - there):
                number = shares.take(host)
                if number is None:
                    return
                self._submit(items[number], host)

    def _submit(self, item: PlannedPartition, host: str, before: Airborne | None = None) -> None:
        """Submit a partition, for the first time or with what is known of it ``before``."""
        client = self._cluster.client
        name = f"{self._night}-{item.partition.path}-{next(self._attempt)}"
        common = (self._config, self._origin, item.partition, item.digest)
        options = {"retries": RETRIES, "pure": False}
        made = client.submit(
            run_cut,
            *common,
            room=self._room,
            key=f"cut-{name}",
            resources={"CUT": 1},
            workers=[host] if host else None,
            **options,
        )
        predicted = client.submit(
            run_stage,
            predict,
            *common,
            made,
            key=f"predict-{name}",
            resources={"PREDICT": 1},
            priority=1,
            **options,
        )
        flown = Airborne(item, [predicted, made], host)
        if before is not None:
            flown.moved, flown.spent = before.moved + 1, before.spent
        self._air[predicted.key] = flown
        self._await(predicted)

    def _await(self, predicted: Any) -> None:
        landed = self._landed
        predicted.add_done_callback(lambda future: landed.put(future.key))

    def _next(self) -> tuple[PlannedPartition, Summary | Failure | Lost] | None:
        """Return the next outcome, or None if the time for a look came first."""
        if time.monotonic() - self._ticked > TICK:
            self._ticked = time.monotonic()
            late = self._look()
            if late is not None:
                return late
        try:
            key = self._landed.get(timeout=TICK)
        except queue.Empty:
            return None
        flown = self._air.pop(key, None)
        if flown is None:  # Cancelled here.
            return None
        try:
            outcome = _outcome(flown)
        except CancelledError as error:
            raise self._gone("its connection was closed") from error
        except TimeoutError:
            self._air[key] = flown
            self._await(flown.futures[0])
            return None
        except WorkerError as error:
            _release(flown)
            return self._move(flown, error)
        _release(flown)
        self._lonely = 0.0
        return flown.item, outcome

    def _move(self, flown: Airborne, error: WorkerError) -> tuple[PlannedPartition, Failure] | None:
        """Let a worker go that cannot do the work, and give its partition to another."""
        self._why = str(error)
        if error.worker:
            self._ask(self._cluster.client.run_on_scheduler, let_go, worker=error.worker)
        if flown.moved >= OTHER_WORKERS:
            return flown.item, Failure(flown.item.partition.path, flown.item.rows, f"WorkerError: {error}")
        self._submit(flown.item, ANYWHERE, flown)
        return None

    def _look(self) -> tuple[PlannedPartition, Lost] | None:
        self._check()
        slots = self._ask(count_slots, self._cluster.client)
        now = time.monotonic()
        self._hosts = self._ask(count_hosts, self._cluster.client)
        self.slots = max(1, slots["CUT"])
        if self._is_lonely(now, all(slots.values())):
            told = ", ".join(f"{number} of {kind}" for kind, number in slots.items())
            raise ClusterError(
                f"for {self._cluster.patience:.0f} s there have been workers for {told}; "
                f"{self._why or self._cluster.waits_for()}; run the night again, which goes on from here"
            )
        lost = self._without_host(now)
        if lost is not None:
            return lost
        limit = self._cluster.partition_limit
        if now - self._looked < min(30.0, limit / 4):
            return None
        self._looked = now
        return self._late(limit)

    def _is_lonely(self, now: float, complete: bool) -> bool:
        """Tell whether workers of a kind have been missing for longer than the cluster's patience."""
        if complete:
            self._complete = self._complete or now
            if now - self._complete >= SETTLED:
                self._lonely = 0.0
            return False
        self._complete = 0.0
        self._lonely = self._lonely or now
        return now - self._lonely > self._cluster.patience

    def _without_host(self, now: float) -> tuple[PlannedPartition, Lost] | None:
        """Give partitions whose host has gone to any other."""
        self._seen |= dict.fromkeys(self._hosts, now)
        for key, flown in list(self._air.items()):
            if flown.host == ANYWHERE or now - self._seen[flown.host] < HOST_GONE:
                continue
            del self._air[key]
            self._cluster.client.cancel(flown.futures, force=True)
            if flown.moved >= OTHER_WORKERS:
                return flown.item, Lost(Reason.WORKER_LOST, f"{flown.moved + 1} hosts were lost with it")
            self._submit(flown.item, ANYWHERE, flown)
        return None

    def _late(self, limit: float) -> tuple[PlannedPartition, Lost] | None:
        """Take a partition from a worker that has been at it for too long, and start that worker anew."""
        at_work = self._ask(self._cluster.client.run_on_scheduler, executing)
        for key, flown in self._air.items():
            late = flown.overdue(at_work, limit)
            if late is not None:
                worker, detail = late
                del self._air[key]
                self._cluster.client.cancel(flown.futures, force=True)
                _tell(self._cluster.client.restart_workers, [worker], raise_for_error=False)
                return flown.item, Lost(Reason.TIME_LIMIT, detail)
        return None


def _tell(tell: Callable[..., Any], *arguments: Any, **options: Any) -> None:
    """Tell workers to do something, and wait for their answer no longer than `ANSWER_TIMEOUT`."""
    asking = threading.Thread(target=functools.partial(tell, *arguments, **options), daemon=True)
    asking.start()
    asking.join(ANSWER_TIMEOUT)


def _release(flown: Airborne) -> None:
    """Let go at once, which keeps the scheduler's memory independent of the night's length."""
    for future in flown.futures:
        future.release()


def _outcome(flown: Airborne) -> Summary | Failure | Lost:
    from distributed import KilledWorker

    future, item = flown.futures[0], flown.item
    try:
        summary: Summary = future.result(timeout=FETCH_TIMEOUT)
        return summary
    except CancelledError as cancelled:
        if getattr(cancelled, "reason", "") == CUT_OFF:
            raise
        return Failure(item.partition.path, item.rows, "cancelled by the scheduler")
    except Exception as raised:
        if future.status != "error":
            raise
        # Also where the time was up just before: what the work has raised.
        error = future.exception() if isinstance(raised, TimeoutError) else raised
    if isinstance(error, WorkerError | CredentialsError):
        raise error
    if isinstance(error, KilledWorker):
        stage = str(error.task).partition("-")[0]
        return Lost(Reason.WORKER_LOST, f"{error.allowed_failures + 1} workers died at {stage}")
    return Failure(item.partition.path, item.rows, f"{type(error).__name__}: {error}")
