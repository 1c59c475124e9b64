"""The training flow: labels and images in, a bundle out, its scores as an artifact.

It does what ``gzscale train`` does, as a Prefect flow that can be deployed and scheduled.
"""

from __future__ import annotations

from flows.settings import apply_quiet_defaults

apply_quiet_defaults()

from prefect import flow, task  # noqa: E402
from prefect.artifacts import create_table_artifact  # noqa: E402
from prefect.cache_policies import NO_CACHE  # noqa: E402

from gzscale.models.bundle import load_bundle  # noqa: E402
from gzscale.training.command import train_bundle  # noqa: E402

__all__ = ["train"]


@task(cache_policy=NO_CACHE, retries=1)
def fit_bundle(
    labels: str,
    images: str,
    kind: str,
    mapping: str | None,
    output: str,
    name: str,
    settings: list[str],
    search: int,
    cluster: str,
) -> list[str]:
    """Train a bundle; tried again, it goes on from its checkpoints."""
    return list(train_bundle(labels, images, kind, mapping, output, name, settings, search, cluster))


@flow(name="train", log_prints=False)
def train(
    labels: str,
    images: str,
    output: str,
    name: str = "own-1",
    kind: str = "weighted_fraction",
    mapping: str | None = None,
    settings: list[str] | None = None,
    search: int = 0,
    cluster: str = "local",
) -> dict[str, float]:
    """Train a morphology bundle.

    Parameters
    ----------
    labels, kind, mapping, images
        See `gzscale.training.command.train_bundle`.
    output
        Path of the bundle.
    name
        Name of the model.
    settings
        ``key=value`` for keys of the recipe.
    search
        Trials of a search for better settings, 0 for none.
    cluster
        That the trials run on.

    Returns
    -------
    dict[str, float]
        The bundle's scores.
    """
    fit_bundle(labels, images, kind, mapping, output, name, settings or [], search, cluster)
    scores = dict(load_bundle(output).scores)
    rows = [{"score": key, "value": value} for key, value in scores.items()]
    create_table_artifact(key="training-scores", table=rows, description=f"{name}: {output}")
    return scores
