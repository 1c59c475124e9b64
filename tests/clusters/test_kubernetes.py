"""Kubernetes: a cluster that does not come up ends with what its pods wait for, and leaves nothing behind.

dask-kubernetes and kr8s are real; the API that they ask is a stand-in.
"""

import asyncio
import json
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
from kubeapi import KubeApi

from gzscale.cluster import open_cluster
from gzscale.clusters.kubernetes import (
    IDLE_TIMEOUT,
    KubernetesWorkers,
    _count_deployments,
    _let_end,
    make_kubernetes,
    read_manifest,
)
from gzscale.clusters.presets import load_preset
from gzscale.clusters.workers import GRACE
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
    (made,) = api.made
    assert made["spec"]["idleTimeout"] > load_preset(preset).start_timeout


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


def test_a_cluster_ends_without_the_night_that_made_it(preset):
    cluster, _ = read_manifest(MANIFEST)
    _let_end(cluster, load_preset(preset))
    # Not while its workers may yet come up, and by the operator alone.
    assert cluster["spec"]["idleTimeout"] == 2 + IDLE_TIMEOUT
    environment = cluster["spec"]["scheduler"]["spec"]["containers"][0]["env"]
    assert environment == [{"name": "DASK_DISTRIBUTED__SCHEDULER__IDLE_TIMEOUT", "value": "30 days"}]


@pytest.mark.parametrize("namespace", ["night", "", "prefect"])
def test_a_pod_of_its_namespace_owns_it(preset, monkeypatch, namespace):
    pod = {"NAME": "night-x2kq9", "UID": "4f0c", "NAMESPACE": namespace}
    for key, value in pod.items():
        monkeypatch.setenv(f"GZSCALE_POD_{key}", value)
    cluster, _ = read_manifest(MANIFEST)
    _let_end(cluster, load_preset(preset))
    owner = {"apiVersion": "v1", "kind": "Pod", "name": "night-x2kq9", "uid": "4f0c"}
    assert cluster["metadata"].get("ownerReferences") == ([owner] if namespace == "night" else None)


class Groups:
    """As much of a KubeCluster as is scaled and counted: an operator that does what it is told at once."""

    name = "gz"

    def __init__(self, **deployments):
        self.deployments, self.wanted, self.told = deployments, {}, []

    def scale(self, number, worker_group):
        self.told.append((worker_group, number))
        if self.wanted.get(worker_group) != number:  # As the operator: nothing has changed.
            assert number >= self.deployments[worker_group], "workers of any kind would go"
            self.wanted[worker_group] = self.deployments[worker_group] = number

    def sync(self, function, *arguments, **options):
        assert function is _count_deployments
        return Counter({f"gz-{group}": number for group, number in self.deployments.items()})


@pytest.fixture
def groups(preset):
    groups = Groups(default=1, predict=2)
    pools = {"cut": {"minimum": 1, "maximum": 4}, "predict": {"minimum": 2, "maximum": 3}}
    chosen = load_preset(preset)
    chosen = type(chosen).model_validate(chosen.model_dump() | pools)
    return groups, KubernetesWorkers(groups, chosen)


def test_pods_become_more_and_never_fewer(groups):
    groups, workers = groups
    for number in (3, 1, 2, 9, 1):
        workers.scale("CUT", number)
    assert groups.told == [("default", 3), ("default", 4)]


def test_pods_that_are_missing_for_a_while_are_made_again(groups, monkeypatch):
    groups, workers = groups
    workers.scale("PREDICT", 3)
    assert workers.renew() == 0
    groups.deployments["predict"] = 1
    assert workers.renew() == 0  # The operator may be about to make them.
    monkeypatch.setattr("gzscale.clusters.kubernetes.GRACE", 0.0)
    assert workers.renew() == 2
    assert workers.renew() == 0
    assert groups.deployments == {"default": 1, "predict": 3}
    assert groups.told == [("predict", 3), ("predict", 1), ("predict", 3)]


@pytest.fixture
def clock(monkeypatch):
    """A clock that is set."""
    now = [1000.0]
    monkeypatch.setattr("gzscale.clusters.kubernetes.time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


def test_a_group_that_is_growing_lacks_nothing(groups, clock):
    groups, workers = groups
    workers.scale("CUT", 4)
    for have in (1, 2, 3, 2):
        groups.deployments["default"] = have
        for _ in range(4):
            assert workers.renew() == 0
            clock[0] += GRACE / 4 - 1
    assert groups.told == [("default", 4)]
    clock[0] += GRACE / 4
    assert workers.renew() == 2
    assert groups.told[1:] == [("default", 2)]


def test_a_group_that_was_whole_or_is_to_be_larger_has_its_time_anew(groups, clock):
    groups, workers = groups
    workers.scale("CUT", 2)
    for size, have in ((2, 2), (3, 1)):
        groups.deployments["default"] = 1
        assert workers.renew() == 0
        clock[0] += GRACE - 1
        workers.scale("CUT", size)
        groups.deployments["default"] = have
        assert workers.renew() == 0
        groups.deployments["default"] = 1
        clock[0] += 2
        assert workers.renew() == 0
    assert groups.told == [("default", 2), ("default", 3)]


def test_kubernetes_that_does_not_tell_of_deployments_is_told_of_once(groups, caplog):
    groups, workers = groups

    def sync(*arguments, **options):
        raise PermissionError("deployments.apps is forbidden")

    groups.sync = sync
    assert workers.renew() == workers.renew() == 0
    assert caplog.text.count("lost are not made again: PermissionError: deployments.apps is forbidden") == 1


def test_deployments_are_counted_by_group(start):
    api = start()
    for number, (cluster, group) in enumerate([("gz", "default"), ("gz", "predict"), ("gz", "predict")]):
        labels = {"dask.org/cluster-name": cluster, "dask.org/component": "worker"}
        metadata = {
            "name": f"d-{number}",
            "labels": labels | {"dask.org/workergroup-name": f"{cluster}-{group}"},
        }
        api.create("deployments", {"metadata": metadata})
    api.objects["deployments", "d-2"]["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    labels = {"dask.org/cluster-name": "other", "dask.org/component": "worker"}
    api.create("deployments", {"metadata": {"name": "d-3", "labels": labels}})
    # One that is being deleted as well: the operator takes it for one that is there.
    assert asyncio.run(_count_deployments("gz", "night")) == {"gz-default": 1, "gz-predict": 2}
