"""Partitions in flight: what becomes of them when the scheduler, or workers' GPUs, do not live."""

from __future__ import annotations

import itertools
import time

import pytest
from distributed import Client, LocalCluster, get_worker
from toy import toy_config

from gzscale.catalog.pixels import Partition
from gzscale.cluster import Cluster
from gzscale.clusters.workers import KINDS
from gzscale.errors import ClusterError
from gzscale.night import flight as module
from gzscale.night.flight import Flight
from gzscale.night.origins import Origins
from gzscale.night.planned import PlannedPartition
from gzscale.night.tally import Failure

ILLEGAL = "CUDA error: an illegal memory access was encountered"


def test_a_lost_scheduler_is_an_error_of_the_night_and_not_of_its_partitions(tmp_path):
    items = [PlannedPartition(Partition(0, pixel), 5, "d") for pixel in range(3)]
    with (
        LocalCluster(n_workers=0, dashboard_address=None) as local,
        Client(local.scheduler_address, set_as_default=False) as client,
    ):

        def lose():
            client.loop.add_callback(client.scheduler_comm.comm.abort)

        cluster = Cluster(client, "", 3600.0, 3600.0, lambda: "")
        flight = Flight(cluster, toy_config(tmp_path), Origins({}, {}), "n1", lose)
        start = time.monotonic()
        with pytest.raises(ClusterError, match=r"scheduler is gone.*run the night again"):
            list(flight.fly(items, 3, 2))
        assert time.monotonic() - start < 20


class Devices:
    """Which workers have a GPU that fails; workers of the tests are threads of this process."""

    broken: set[str]
    asked: list[str]


def cut(*arguments, room):
    return "cut"


def predict(*arguments):
    address = get_worker().address
    Devices.asked.append(address)
    if address in Devices.broken:
        raise RuntimeError(ILLEGAL)
    return "done"


@pytest.fixture
def stages(monkeypatch):
    """Stages that do nothing, and fail where a device is broken."""
    monkeypatch.setattr(module, "run_cut", cut)
    monkeypatch.setattr(module, "predict", predict)
    Devices.broken, Devices.asked = set(), []


def fly(tmp_path, workers, broken, partitions=1, patience=3600.0):
    """Fly over workers of which some are broken; return the outcomes and the addresses of those left."""
    items = [PlannedPartition(Partition(1, pixel), 5, "d") for pixel in range(partitions)]
    with (
        LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            resources=dict.fromkeys(KINDS, 1),
            processes=False,
            dashboard_address=None,
        ) as local,
        Client(local, set_as_default=False) as client,
    ):
        there = list(client.scheduler_info(n_workers=-1)["workers"])
        Devices.broken |= set(there[:broken])
        cluster = Cluster(client, "", 3600.0, patience, lambda: "nothing is waited for")
        flight = Flight(cluster, toy_config(tmp_path), Origins({}, {}), "n1", lambda: None)
        outcomes = list(flight.fly(items, 1, 2))
        return outcomes, set(there), set(client.scheduler_info(n_workers=-1)["workers"])


def test_a_worker_whose_gpu_fails_is_let_go_and_others_do_its_partitions(tmp_path, stages):
    outcomes, there, left = fly(tmp_path, workers=2, broken=1, partitions=6)
    assert [outcome for _, outcome in outcomes] == ["done"] * 6
    assert len({item.partition for item, _ in outcomes}) == 6
    assert Devices.broken & set(Devices.asked)
    assert left == there - Devices.broken


def test_a_partition_is_given_to_three_other_workers_and_then_up(tmp_path, stages):
    outcomes, there, left = fly(tmp_path, workers=6, broken=6)
    ((item, failure),) = outcomes
    assert failure == Failure(item.partition.path, 5, failure.error)
    (last,) = [address for address in there if address in failure.error]
    said = f"its GPU fails (RuntimeError: {ILLEGAL}); look at nvidia-smi there"
    assert failure.error == f"WorkerError: worker {last}: {said}"
    assert len(left) == 6 - 1 - module.OTHER_WORKERS
    assert last not in left


def test_a_night_whose_workers_were_all_let_go_ends_with_the_reason(tmp_path, stages, monkeypatch):
    monkeypatch.setattr(module, "TICK", 0.1)
    said = r"0 of CUT, 0 of PREDICT; worker \S+: its GPU fails .*illegal memory access.*run the night again"
    with pytest.raises(ClusterError, match=said):
        fly(tmp_path, workers=1, broken=1, patience=1.0)


def test_workers_that_come_and_go_do_not_keep_a_night_waiting_for_ever(tmp_path, stages, monkeypatch):
    # As those that are sent away: there at one look in five.
    seen = itertools.cycle([1, 0, 0, 0, 0])
    monkeypatch.setattr(module, "count_slots", lambda client: dict.fromkeys(KINDS, next(seen)))
    monkeypatch.setattr(module, "TICK", 0.05)
    began = time.monotonic()

    def not_for_ever():
        assert time.monotonic() - began < 20

    with (
        LocalCluster(n_workers=0, dashboard_address=None) as local,
        Client(local, set_as_default=False) as client,
    ):
        cluster = Cluster(client, "", 3600.0, 1.0, lambda: "worker late is not let in")
        flight = Flight(cluster, toy_config(tmp_path), Origins({}, {}), "n1", not_for_ever)
        said = "workers for 0 of CUT, 0 of PREDICT; worker late is not let in; run the night again"
        with pytest.raises(ClusterError, match=said):
            list(flight.fly([PlannedPartition(Partition(0, 1), 5, "d")], 1, 2))
