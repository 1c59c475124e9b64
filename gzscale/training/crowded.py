"""Images that appear a second time under a crowd of stars, as if a globular cluster lay before them.

Whatever an image shows, it shows it there as well: arcs, mimics, and galaxies as they are. Crowds over those
alone that are no lenses would teach a finder that there are none behind stars.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from gzscale.sky.crowds import draw_crowds
from gzscale.sky.deflectors import measure
from gzscale.sky.inject import add_light, electrons_of
from gzscale.sky.stamps import Stamps

__all__ = ["with_crowded_images"]

#: What is added to the name of an image that appears under a crowd.
_SUFFIX = "+crowd"


def with_crowded_images(
    stamps: Stamps, share: float, bands: str, rng: np.random.Generator, survey: str = "sdss"
) -> Stamps:
    """Return cutouts, and again those of some images under crowds of stars.

    Parameters
    ----------
    stamps
        Cutouts.
    share
        Share of each store's images that appear again, rounded to whole ones.
    bands
        Their bands, g, r and i among them.
    rng
        The source of chance.
    survey
        Whose bands and camera they are.

    Returns
    -------
    Stamps
        First those given. The others are images of their own, ``<name>+crowd``; which of their objects are
        bright red galaxies is measured anew, as on images of a cluster.
    """
    rows = _of_some_images(stamps, share, rng)
    if not len(rows):
        return stamps
    base = stamps.take(rows)
    images = np.empty_like(base.images)
    for name in np.unique(base.source):
        one = base.source == name
        light = draw_crowds(base.take(one), bands, rng)
        images[one] = add_light(base.images[one], light, electrons_of(bands, survey=survey), rng)
    found = measure(images, bands, base.scale, base.seeing, base.noise, base.redshift, survey)
    crowded = replace(
        base,
        source=np.char.add(base.source, _SUFFIX),
        images=images,
        redshift=found.deflectors.redshift,
        magnitude=found.deflectors.magnitude,
        axis_ratio=found.deflectors.axis_ratio,
        angle=found.deflectors.angle,
        colours=found.magnitudes,
        deflector=found.chosen,
    )
    return Stamps.joined([stamps, crowded])


def _of_some_images(stamps: Stamps, share: float, rng: np.random.Generator) -> NDArray[np.int64]:
    chosen = np.zeros(len(stamps), bool)
    for store in np.unique(stamps.location) if share else ():
        here = stamps.location == store
        images = np.unique(stamps.source[here])
        drawn = rng.choice(images, round(share * len(images)), replace=False)
        chosen |= here & np.isin(stamps.source, drawn)
    return np.flatnonzero(chosen)
