"""Kubernetes: a cluster that does not come up ends with what its pods wait for, and leaves nothing behind.

dask-kubernetes and kr8s are real; the API that they ask is a stand-in.
"""

import json
import time
from pathlib import Path

import pytest
from kubeapi import KubeApi

from gzscale.cluster import open_cluster
from gzscale.clusters.kubernetes import make_kubernetes
from gzscale.clusters.presets import load_preset
from gzscale.errors import ClusterError

pytest.importorskip("dask_kubernetes")

MANIFEST = Path(__file__).parents[2] / "deploy" / "kubernetes" / "cluster.yaml"
WAITING = {"reason": "ImagePullBackOff", "message": 'Back-off pulling image "gzscale:cpu"'}
UNSCHEDULED = {
    "type": "PodScheduled",
    "status": "False",
    "reason": "Unschedulable",
    "message": "0/3 nodes are available: insufficient nvidia.com/gpu",
}
PULLING = {"phase": "Pending", "containerStatuses": [{"name": "scheduler", "state": {"waiting": WAITING}}]}
PENDING = {"phase": "Pending", "conditions": [UNSCHEDULED, {"type": "Initialized", "status": "True"}]}
CRASHING = {
    "phase": "Running",
    "containerStatuses": [
        {
            "name": "scheduler",
            "state": {"waiting": {"reason": "CrashLoopBackOff"}},
            "lastState": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}},
        }
    ],
    "conditions": [{"type": "Ready", "status": "False", "reason": "ContainersNotReady", "message": ""}],
}
READY = {
    "phase": "Running",
    "conditions": [{"type": kind, "status": "True"} for kind in ("Ready", "ContainersReady")],
    "containerStatuses": [{"name": "scheduler", "state": {"running": {}}}],
}


@pytest.fixture
def start(tmp_path, monkeypatch):
    """Start the API, with the statuses of pods by component; it is the one that kr8s asks."""
    running = []

    def begin(**pods):
        api = KubeApi(pods)
        running.append(api)
        config = tmp_path / "kubeconfig"
        config.write_text(json.dumps(api.config))
        monkeypatch.setenv("KUBECONFIG", str(config))
        return api

    yield begin
    for api in running:
        api.shutdown()


@pytest.fixture
def preset(tmp_path):
    path = tmp_path / "site.yaml"
    path.write_text(
        f"kind: kubernetes\nmanifest: {MANIFEST}\nnamespace: night\nstart_timeout: 2\n"
        "predict: {minimum: 1}\n"
    )
    return str(path)


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (PULLING, r"Pending \(ImagePullBackOff: Back-off pulling image \"gzscale:cpu\"\)"),
        (
            PENDING,
            r"Pending \(Unschedulable: 0/3 nodes are available: insufficient nvidia.com/gpu\)",
        ),
        (
            CRASHING,
            r"Running \(CrashLoopBackOff; scheduler ended with 137, OOMKilled; ContainersNotReady\)",
        ),
    ],
)
def test_a_scheduler_that_does_not_come_up_ends_in_time_with_what_its_pod_waits_for(
    start, preset, status, said
):
    api = start(scheduler=status)
    began = time.monotonic()
    with pytest.raises(
        ClusterError, match=rf"after 2 s its scheduler is not up; pod gzscale-\w+-scheduler {said}"
    ):
        make_kubernetes(load_preset(preset))
    assert time.monotonic() - began < 20
    assert [name.startswith("gzscale-") for name in api.deleted] == [True]


def test_an_operator_that_makes_no_pods_is_told_so(start, preset):
    api = start()
    with pytest.raises(ClusterError, match=r"the operator has made no pods of gzscale-\w+; look at its log"):
        make_kubernetes(load_preset(preset))
    assert len(api.deleted) == 1


def test_kubernetes_that_does_not_answer_is_told_so(preset, tmp_path, monkeypatch):
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    with pytest.raises(ClusterError, match=r"kubectl get daskclusters -n night"):
        make_kubernetes(load_preset(preset))


@pytest.fixture
def scheduler(monkeypatch):
    """A real scheduler with a worker that cuts, which the service of the cluster leads to."""
    from dask_kubernetes.operator.kubecluster import kubecluster
    from distributed import LocalCluster

    class Nameless(LocalCluster):
        # Else it tells the scheduler its name, which others that connect go by.
        async def _sync_cluster_info(self):
            pass

    with Nameless(
        n_workers=1,
        threads_per_worker=1,
        resources={"CUT": 1},
        processes=False,
        protocol="tcp://",
        dashboard_address=None,
    ) as cluster:

        async def address(*arguments, **options):
            return cluster.scheduler_address

        monkeypatch.setattr(kubecluster, "get_scheduler_address", address)
        yield


def test_a_worker_group_that_is_refused_takes_the_cluster_with_it(start, preset, scheduler):
    api = start(scheduler=READY)
    api.refused.add("daskworkergroups")
    with pytest.raises(ClusterError, match="daskworkergroups is forbidden: exceeded quota"):
        make_kubernetes(load_preset(preset))
    assert len(api.deleted) == 1
    assert ("daskclusters", api.deleted[0]) not in api.objects


def test_workers_that_do_not_come_up_are_told_by_their_pods(start, preset, scheduler):
    api = start(scheduler=READY, worker=PENDING)
    said = r"workers for 1 of CUT, 0 of PREDICT.*pod \S+-worker Pending \(Unschedulable: 0/3 nodes"
    with pytest.raises(ClusterError, match=said), open_cluster(preset):
        pass
    assert len(api.deleted) == 1
