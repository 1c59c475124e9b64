"""Partitions in flight: what becomes of them when the scheduler does not live."""

from __future__ import annotations

import time

import pytest
from distributed import Client, LocalCluster
from toy import toy_config

from gzscale.catalog.pixels import Partition
from gzscale.cluster import Cluster
from gzscale.errors import ClusterError
from gzscale.night.flight import Flight
from gzscale.night.origins import Origins
from gzscale.night.planned import PlannedPartition


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
