"""Which of the package's bundles fits some cutouts: by what each declares, never by a guess."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from gzscale.errors import BundleError
from gzscale.models.bundle import Bundle, load_bundle
from gzscale.models.field import Geometry
from gzscale.models.shipped import shelf

__all__ = ["fitting"]


def fitting(task: str, bands: str, geometry: Geometry, filters: str | None) -> Path:
    """Return the path of the package's bundle that can be fed with some cutouts.

    Parameters
    ----------
    task
        Name of the task.
    bands, geometry, filters
        What the cutouts are: see `gzscale.models.bundle.Bundle.require`.

    Raises
    ------
    BundleError
        If none can, with what each needs; or if several can, since none is guessed.
    """
    found, refusals = [], []
    for path in shelf(task):
        try:
            _declared(path).require(bands, geometry, filters)
            found.append(path)
        except BundleError as error:
            refusals.append(str(error))
    if not found:
        raise BundleError(f"no bundle of the package fits the task {task!r}: {'; '.join(refusals)}")
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise BundleError(f"{names} of the package fit the task {task!r}: name one with tasks.{task}.bundle")
    return found[0]


@cache
def _declared(path: Path) -> Bundle:
    return load_bundle(path)
