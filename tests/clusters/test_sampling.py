"""What workers keep of their stacks does not grow with the night: none where made here, else a minute."""

import pytest
from distributed import LocalCluster

from gzscale.cluster import open_cluster
from gzscale.clusters.sampling import KEPT


def kept(dask_worker):
    return dask_worker.profile_history.maxlen, "profile" in dask_worker.periodic_callbacks


def pauses(dask_worker):
    return {name: each.callback_time for name, each in dask_worker.periodic_callbacks.items()}


@pytest.mark.slow
def test_workers_keep_little_of_what_is_sampled(tmp_path):
    preset = tmp_path / "one.yaml"
    preset.write_text("kind: local\nworkers: 1\n")
    with open_cluster(str(preset)) as cluster:
        assert [*cluster.client.run(kept).values()] == [(KEPT, False)]
        (milliseconds,) = cluster.client.run(pauses).values()
        wanted = {"tick": 500, "monitor": 10_000, "memory_monitor": 200}
        assert {name: milliseconds[name] for name in wanted} == wanted


@pytest.mark.slow
def test_of_workers_that_run_already_later_ones_keep_little_too():
    resources = {"CUT": 1, "PREDICT": 1}
    with (
        LocalCluster(n_workers=1, resources=resources, dashboard_address=None) as site,
        open_cluster(site.scheduler_address) as cluster,
    ):
        site.scale(2)
        cluster.client.wait_for_workers(2, timeout=120)
        lengths, samples = zip(*cluster.client.run(kept).values(), strict=True)
        assert lengths == (KEPT, KEPT)
        # The site's own worker goes on; what Dask starts from here is told not to.
        assert sorted(samples) == [False, True]
