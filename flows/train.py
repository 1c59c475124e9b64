"""The training flow: images and what is known of them in, a bundle out, its scores as an artifact.

It does what ``gzscale train`` does for each task of a night, as a Prefect flow that can be deployed and
scheduled.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from flows.settings import apply_quiet_defaults

apply_quiet_defaults()

from prefect import flow, task  # noqa: E402
from prefect.artifacts import create_table_artifact  # noqa: E402
from prefect.cache_policies import NO_CACHE  # noqa: E402

from flows.nightly import Setting  # noqa: E402
from gzscale.models.bundle import load_bundle  # noqa: E402
from gzscale.training.command import train_bundle  # noqa: E402
from gzscale.training.lens_command import train_lens_bundle  # noqa: E402
from gzscale.training.redshift_command import train_redshift_bundle  # noqa: E402

__all__ = ["LensLessons", "Lessons", "MorphologyLessons", "RedshiftLessons", "train"]


class _Lessons(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class MorphologyLessons(_Lessons):
    """Volunteers' votes and pictures; see `gzscale.training.command.train_bundle`."""

    task: Literal["morphology"]
    labels: str
    images: str
    kind: Literal["weighted_fraction", "fraction", "debiased", "count", "weight"] = "weighted_fraction"
    mapping: str | None = None
    geometry: str | None = None
    search: Annotated[int, Field(ge=0, description="Trials of a search for better settings")] = 0
    cluster: Annotated[str, Field(description="That the trials run on")] = "local"

    def learn(self, output: str, name: str, settings: list[str]) -> Iterator[str]:
        """Train and write the bundle; yield lines for the user."""
        return train_bundle(
            self.labels,
            self.images,
            self.kind,
            self.mapping,
            output,
            name,
            settings,
            self.search,
            self.cluster,
            self.geometry,
        )


class LensLessons(_Lessons):
    """Cutouts into which lenses are put, or such with labels; see `gzscale.training.lens_command`."""

    task: Literal["lenses"]
    images: Annotated[list[str], Field(min_length=1)]
    labels: str | None = None
    geometry: str = "sky"
    survey: Annotated[Literal["sdss", "rubin"], Field(description="Whose recipe is taken")] = "sdss"

    def learn(self, output: str, name: str, settings: list[str]) -> Iterator[str]:
        """Train and write the bundle; yield lines for the user."""
        return train_lens_bundle(self.images, self.labels, output, name, settings, self.geometry, self.survey)


class RedshiftLessons(_Lessons):
    """Spectroscopic redshifts and cutouts; see `gzscale.training.redshift_command.train_redshift_bundle`."""

    task: Literal["redshifts"]
    labels: str
    images: str
    geometry: str = "sky"
    survey: Annotated[Literal["sdss", "rubin"], Field(description="Whose recipe is taken")] = "sdss"

    def learn(self, output: str, name: str, settings: list[str]) -> Iterator[str]:
        """Train and write the bundle; yield lines for the user."""
        return train_redshift_bundle(
            self.labels, self.images, self.geometry, output, name, settings, self.survey
        )


#: A plain union, which the form in the browser offers as a choice.
Lessons = MorphologyLessons | LensLessons | RedshiftLessons


@task(cache_policy=NO_CACHE, retries=1)
def fit_bundle(lessons: Lessons, output: str, name: str, settings: list[str]) -> list[str]:
    """Train a bundle; tried again, it goes on from its checkpoints."""
    return list(lessons.learn(output, name, settings))


@flow(name="train", log_prints=False)
def train(
    lessons: Lessons, output: str, name: str = "own-1", settings: list[Setting] | None = None
) -> dict[str, float]:
    """Train a bundle of any task.

    Parameters
    ----------
    lessons
        The task, and what it is learnt from.
    output
        Path of the bundle.
    name
        Name of the model.
    settings
        ``key=value`` for keys of the task's recipe.

    Returns
    -------
    dict[str, float]
        The bundle's scores; none for a lens finder without images that were kept apart.
    """
    fit_bundle(lessons, output, name, settings or [])
    scores = dict(load_bundle(output).scores)
    rows = [{"score": key, "value": value} for key, value in scores.items()]
    create_table_artifact(key="training-scores", table=rows, description=f"{name}: {output}")
    return scores
