"""Clusters of the Dask operator on Kubernetes: a DaskCluster whose pods cut, a worker group that predicts."""

from __future__ import annotations

import asyncio
import logging
import os
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from gzscale.clusters.presets import KubernetesPreset
from gzscale.clusters.workers import CUT, GRACE, PREDICT, Limits, Workers, missing_extra
from gzscale.errors import ClusterError

__all__ = ["KubernetesWorkers", "make_kubernetes", "read_manifest"]

#: Name of the worker group that the operator makes with every cluster.
_OWN_GROUP = "default"
#: Seconds within which Kubernetes says what its pods are doing.
ANSWER_TIMEOUT = 10.0
#: Seconds that the end of a cluster is waited for; without an operator that ends it, it has none.
CLOSE_TIMEOUT = 60.0
#: Seconds without work after which the operator deletes a cluster, on top of those that its workers may take
#: to come up: the night that made it was killed.
IDLE_TIMEOUT = 1800
#: Under this the scheduler's process takes no end by itself: it would be started again, as idle as before.
_SCHEDULER_IDLE = {"name": "DASK_DISTRIBUTED__SCHEDULER__IDLE_TIMEOUT", "value": "30 days"}

_log = logging.getLogger(__name__)


def make_kubernetes(preset: KubernetesPreset) -> KubernetesWorkers:
    """Create the cluster that a manifest describes, under a name of its own, with its worker groups.

    Raises
    ------
    ClusterError
        If dask-kubernetes is not installed, the manifest is not as it should be, the
        operator does not answer, or the scheduler is not up in time; with what its pods wait for.
    """
    cluster_spec, group_spec = read_manifest(Path(preset.manifest))
    if (group_spec is None) != (preset.predict is None):
        raise ClusterError(
            f"{preset.manifest}: a DaskWorkerGroup and the preset's `predict` belong together; "
            "give both or none"
        )
    try:
        from dask_kubernetes.operator import KubeCluster
    except ImportError as error:
        raise missing_extra("kubernetes", "kubernetes", error) from error
    # Two nights at a time have a cluster each.
    name = f"{cluster_spec['metadata']['name']}-{uuid.uuid4().hex[:8]}"
    cluster_spec["metadata"] = {**cluster_spec["metadata"], "name": name}
    cluster_spec["spec"]["worker"]["replicas"] = preset.cut.minimum
    _let_end(cluster_spec, preset)
    selector = cluster_spec["spec"]["scheduler"]["service"].setdefault("selector", {})
    selector |= {"dask.org/cluster-name": name, "dask.org/component": "scheduler"}
    made: list[KubernetesWorkers] = []

    class Bounded(KubeCluster):
        """Waits no longer than the preset says; dask-kubernetes waits for pods and services without end."""

        async def _start(self) -> None:
            made.append(KubernetesWorkers(self, preset))
            await asyncio.wait_for(super()._start(), preset.start_timeout)

    try:
        cluster = Bounded(
            custom_cluster_spec=cluster_spec,
            namespace=preset.namespace,
            resource_timeout=preset.start_timeout,
            quiet=True,
        )
        if group_spec is not None and preset.predict is not None:
            cluster.add_worker_group(
                PREDICT.lower(), custom_spec={**group_spec, "replicas": preset.predict.minimum}
            )
    except BaseException as error:  # What was made is unmade, also where the user waits no longer.
        problem = _problem(error, preset, made)
        for workers in made:
            workers.close()
        if isinstance(error, Exception):
            raise ClusterError(f"cluster kubernetes: {problem}") from error
        raise
    return made[0]


def _let_end(cluster_spec: dict[str, Any], preset: KubernetesPreset) -> None:
    """Have a cluster end without the night that made it, which may be killed: idle, or with its pod."""
    spec = cluster_spec["spec"]
    spec["idleTimeout"] = max(spec.get("idleTimeout", 0), preset.start_timeout + IDLE_TIMEOUT)
    # The operator, when it asks for it, sets a scheduler that has none to five minutes: a night may wait
    # longer than that for a node with a GPU.
    container = spec["scheduler"]["spec"]["containers"][0]
    container["env"] = [*container.get("env", []), _SCHEDULER_IDLE]
    pod = {key: os.environ.get(f"GZSCALE_POD_{key.upper()}", "") for key in ("name", "uid", "namespace")}
    # Kubernetes deletes at once what has an owner in another namespace.
    if all(pod.values()) and pod["namespace"] == preset.namespace:
        owner = {"apiVersion": "v1", "kind": "Pod", "name": pod["name"], "uid": pod["uid"]}
        cluster_spec["metadata"]["ownerReferences"] = [owner]


def _problem(error: BaseException, preset: KubernetesPreset, made: list[KubernetesWorkers]) -> str:
    """Say why a cluster was not made."""
    if isinstance(error, TimeoutError) and made:
        return f"after {preset.start_timeout} s its scheduler is not up; {made[0].waits_for()}"
    return (
        f"{type(error).__name__}: {error}; does `kubectl get daskclusters -n {preset.namespace}` answer, "
        "and is the Dask operator installed?"
    )


class KubernetesWorkers(Workers):
    """Pods that the operator starts, one a Deployment, and that Kubernetes starts again where they end.

    They become more, never fewer: what the operator takes away it chooses among the workers of all groups, so
    that those of the other kind would go. All are gone with the cluster.

    Parameters
    ----------
    cluster
        `dask_kubernetes.operator.KubeCluster`.
    preset
        How many pods of each kind.
    """

    def __init__(self, cluster: Any, preset: KubernetesPreset) -> None:
        super().__init__(cluster)
        self._namespace = preset.namespace
        self._groups = {CUT: _OWN_GROUP, PREDICT: PREDICT.lower()}
        pools = {CUT: preset.cut} | ({PREDICT: preset.predict} if preset.predict else {})
        self.limits = {kind: Limits(pool.minimum, pool.most) for kind, pool in pools.items()}
        self._sizes = {kind: limit.minimum for kind, limit in self.limits.items()}
        # Of groups that lack Deployments: how many there were, and since when.
        self._short: dict[str, tuple[int, float]] = {}
        self._lowered: set[str] = set()
        self._blind = False

    def scale(self, kind: str, number: int) -> None:
        """Raise the number of pods of one kind, up to its limit; there are no fewer than before."""
        size = min(number, self.limits[kind].maximum)
        if size > self._sizes[kind]:
            self._set(kind, size)
            self._sizes[kind] = size
            self._short.pop(kind, None)

    def renew(self) -> int:
        """Have the operator make pods again whose Deployments are gone; return how many are missing.

        It counts a group's Deployments when the group's number changes, and only then: where some have been
        missing for `GRACE` seconds, in which there were neither more nor fewer, the number is set to what
        there is, and at the next look to what is wanted.
        """
        there = self._count()
        if there is None:
            return 0
        missing = 0
        for kind, size in self._sizes.items():
            have = there[f"{self.target.name}-{self._groups[kind]}"]
            if kind in self._lowered:
                self._set(kind, size)
                self._lowered.discard(kind)
            elif have >= size:
                self._short.pop(kind, None)
            elif self._stands_still(kind, have):
                self._lowered.add(kind)
                self._set(kind, have)
                del self._short[kind]
                missing += size - have
        return missing

    def _stands_still(self, kind: str, have: int) -> bool:
        """Tell whether a group that is short has had as many Deployments for `GRACE` seconds.

        One that moves may be at its growing yet: set to what it had a moment ago, it would lose workers.
        """
        now = time.monotonic()
        before, since = self._short.get(kind, (have, now))
        if have != before:
            since = now
        self._short[kind] = have, since
        return now - since >= GRACE

    def _set(self, kind: str, number: int) -> None:
        self.target.scale(number, worker_group=self._groups[kind])

    def _count(self) -> Counter[str] | None:
        """Return worker group -> Deployments of it; None, and why once, where Kubernetes does not tell."""
        try:
            counts: Counter[str] = self.target.sync(
                _count_deployments, self.target.name, self._namespace, callback_timeout=ANSWER_TIMEOUT
            )
        except Exception as error:
            if not self._blind:
                _log.warning("pods that are lost are not made again: %s: %s", type(error).__name__, error)
            self._blind = True
            return None
        self._blind = False
        return counts

    def waits_for(self) -> str:
        """Say for each pod its phase, and what keeps it from running."""
        try:
            told: str = self.target.sync(
                _tell_pods, self.target.name, self._namespace, callback_timeout=ANSWER_TIMEOUT
            )
        except Exception as error:
            return f"Kubernetes does not say what pods wait for ({type(error).__name__}: {error})"
        return told

    def _end(self) -> None:
        patience = CLOSE_TIMEOUT + ANSWER_TIMEOUT
        self.target.sync(self.target._close, timeout=CLOSE_TIMEOUT, callback_timeout=patience)


async def _count_deployments(name: str, namespace: str) -> Counter[str]:
    """Count the Deployments of each worker group of a cluster.

    As the operator does, also those that are being deleted: a group's number set lower than its count of them
    has it delete others.
    """
    from kr8s.asyncio.objects import Deployment

    counts: Counter[str] = Counter()
    selector = {"dask.org/cluster-name": name, "dask.org/component": "worker"}
    async for item in Deployment.list(namespace=namespace, label_selector=selector):
        counts[item["metadata"]["labels"]["dask.org/workergroup-name"]] += 1
    return counts


async def _tell_pods(name: str, namespace: str) -> str:
    """Say of each pod of a cluster its phase, and what keeps it from running."""
    import kr8s

    said = []
    selector = {"dask.org/cluster-name": name}
    async for pod in kr8s.asyncio.get("pods", namespace=namespace, label_selector=selector):
        reasons = "; ".join(dict.fromkeys(_reasons(pod.raw.get("status", {})))) or "no reason given"
        said.append(f"pod {pod.name} {pod.raw.get('status', {}).get('phase', 'Pending')} ({reasons})")
    return "; ".join(said) or f"the operator has made no pods of {name}; look at its log"


def _reasons(status: Mapping[str, Any]) -> Iterator[str]:
    """Find in a pod's status what its containers wait for, how they ended before, and what the pod lacks."""
    containers = [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]
    for container in containers:
        waiting = container.get("state", {}).get("waiting")
        if waiting:
            yield _reason(waiting)
        ended = container.get("lastState", {}).get("terminated")
        if ended:
            yield f"{container.get('name')} ended with {ended.get('exitCode')}, {_reason(ended)}"
    for condition in status.get("conditions", []):
        if condition.get("status") == "False" and condition.get("reason"):
            yield _reason(condition)


def _reason(item: Mapping[str, Any]) -> str:
    return f"{item.get('reason', 'no reason given')}: {item.get('message', '')}".rstrip(": ")


def read_manifest(path: Path) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Read a DaskCluster and the worker specification of its DaskWorkerGroup, if there is one.

    Raises
    ------
    ClusterError
        If the file holds something else.
    """
    try:
        documents = [item for item in yaml.safe_load_all(path.read_text()) if item]
        clusters = [item for item in documents if item["kind"] == "DaskCluster"]
        groups = [item["spec"]["worker"] for item in documents if item["kind"] == "DaskWorkerGroup"]
        if len(clusters) != 1 or len(groups) > 1 or len(documents) > 2:
            raise ValueError("one DaskCluster and at most one DaskWorkerGroup")
        for key in ("worker", "scheduler"):
            clusters[0]["spec"][key]["spec"]["containers"][0]["image"]
    except (OSError, ValueError, KeyError, TypeError, IndexError, yaml.YAMLError) as error:
        raise ClusterError(f"{path}: not a manifest of a Dask cluster: {error}") from error
    return clusters[0], groups[0] if groups else None
