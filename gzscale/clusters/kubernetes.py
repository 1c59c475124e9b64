"""Clusters of the Dask operator on Kubernetes: a DaskCluster whose pods cut, a worker group that predicts."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import yaml

from gzscale.clusters.presets import KubernetesPreset
from gzscale.clusters.workers import CUT, PREDICT, Limits, Workers, missing_extra
from gzscale.errors import ClusterError

__all__ = ["KubernetesWorkers", "make_kubernetes", "read_manifest"]

#: Name of the worker group that the operator makes with every cluster.
_OWN_GROUP = "default"


def make_kubernetes(preset: KubernetesPreset) -> KubernetesWorkers:
    """Create the cluster that a manifest describes, under a name of its own, with its worker groups.

    Raises
    ------
    ClusterError
        If dask-kubernetes is not installed, the manifest is not as it should be, or the
        operator does not answer.
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
    selector = cluster_spec["spec"]["scheduler"]["service"].setdefault("selector", {})
    selector |= {"dask.org/cluster-name": name, "dask.org/component": "scheduler"}
    try:
        cluster = KubeCluster(
            custom_cluster_spec=cluster_spec,
            namespace=preset.namespace,
            resource_timeout=preset.start_timeout,
            quiet=True,
        )
        if group_spec is not None and preset.predict is not None:
            cluster.add_worker_group(
                PREDICT.lower(), custom_spec={**group_spec, "replicas": preset.predict.minimum}
            )
    except Exception as error:
        raise ClusterError(
            f"cluster kubernetes: {type(error).__name__}: {error}; does `kubectl get daskclusters -n "
            f"{preset.namespace}` answer, and is the Dask operator installed?"
        ) from error
    return KubernetesWorkers(cluster, preset)


class KubernetesWorkers(Workers):
    """Pods that the operator starts, and starts again where they end.

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

    def scale(self, kind: str, number: int) -> None:
        """Set the number of pods of one kind."""
        limit = self.limits[kind]
        self.target.scale(max(limit.minimum, min(number, limit.maximum)), worker_group=self._groups[kind])

    def waits_for(self) -> str:
        """Say for each pod its phase, and what keeps it from running."""
        import kr8s

        labels = {"dask.org/cluster-name": self.target.name}
        said = []
        for pod in kr8s.get("pods", namespace=self._namespace, label_selector=labels):
            status = pod.status
            reasons = [
                f"{item['reason']}: {item.get('message', '')}".rstrip(": ")
                for item in status.get("conditions", [])
                if item["status"] == "False" and item.get("reason")
            ]
            said.append(f"pod {pod.name} {status['phase']} ({', '.join(reasons) or 'no reason given'})")
        return "; ".join(said) or f"the operator has made no pods of {self.target.name}; look at its log"


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
