"""Lenses that can be seen in cutouts: drawn until enough of them show.

What is learnt, and what a finder is scored on, are lenses that somebody could see; how many cannot be, the
completeness of a night tells (`gzscale.night.completeness`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gzscale.errors import CatalogError
from gzscale.sky.inject import VISIBLE_CONTRAST, Arcs, arc_noise, draw_arcs, electrons_of
from gzscale.sky.lens import Lenses
from gzscale.sky.lens_population import RadiusPrior, Truth, draw_lenses
from gzscale.sky.stamps import Stamps

__all__ = ["Injected", "draw_visible"]

#: Lenses that are drawn at a time; their pixels are in memory together.
_BLOCK = 256
#: Lenses that are drawn for each visible one before it is given up.
_TRIES = 500


@dataclass(frozen=True)
class Injected:
    """Visible lenses in stamps.

    Attributes
    ----------
    row
        Rows of the stamps, int64, shape (n,).
    lenses, truth, arcs
        What was drawn.
    """

    row: NDArray[np.int64]
    lenses: Lenses
    truth: Truth
    arcs: Arcs


def draw_visible(
    stamps: Stamps,
    rows: NDArray[np.int64],
    count: int,
    bands: str,
    rng: np.random.Generator,
    radii: tuple[float, float],
    prior: RadiusPrior,
    survey: str = "sdss",
) -> Injected:
    """Draw lenses into some stamps until enough of them can be seen.

    Parameters
    ----------
    stamps
        Where.
    rows
        Which of them may be deflectors; those of an image together as often as those of another.
    count
        Visible lenses to draw.
    bands, rng, radii, prior, survey
        See `gzscale.sky.lens_population.draw_lenses`.

    Raises
    ------
    CatalogError
        If next to none can be seen.
    """
    electrons, share = electrons_of(bands, survey=survey), stamps.even_shares(rows)
    parts: list[Injected] = []
    found = tried = 0
    while found < count:
        if tried > _TRIES * (count + 200):
            raise CatalogError(
                f"{found} of {count} lenses can be seen among {len(rows)} deflectors: give brighter ones"
            )
        chosen = rng.choice(rows, _BLOCK, p=share)
        depth = arc_noise(stamps.noise[chosen], stamps.scale[chosen])
        seeing = np.median(stamps.seeing[chosen], axis=1)
        lenses, truth = draw_lenses(
            stamps.deflectors, chosen, bands, rng, depth, seeing, radii, prior, survey
        )
        likely = np.flatnonzero(_stands_out(lenses, stamps.take(truth.deflector), bands))
        lenses, truth = lenses.take(likely), truth.take(likely)
        row = truth.deflector
        base = stamps.take(row)
        arcs = draw_arcs(lenses, base.images, base.seeing, base.scale, base.noise, electrons)
        seen = np.flatnonzero(arcs.visible(bands))[: count - found]
        parts.append(Injected(row[seen], lenses.take(seen), truth.take(seen), arcs.take(seen)))
        found, tried = found + len(seen), tried + _BLOCK
    return Injected(
        np.concatenate([part.row for part in parts]),
        Lenses.joined([part.lenses for part in parts]),
        Truth.joined([part.truth for part in parts]),
        Arcs.joined([part.arcs for part in parts]),
    )


def _stands_out(lenses: Lenses, base: Stamps, bands: str) -> NDArray[np.bool_]:
    """Tell where images may be brighter than the deflector in g, before they are drawn.

    Half of what would be visible passes: a source's light, magnified and spread over 6 square arcsec, against
    the deflector's mean brightness at the Einstein radius.
    """
    blue = bands.index("g") if "g" in bands else 0
    size = base.images.shape[-1]
    axis = np.arange(size) - (size - 1) / 2
    distance = np.hypot(axis[:, None], axis[None, :])[None] * base.scale[:, None, None]
    ring = np.abs(distance - lenses.einstein_radius[:, None, None]) < 0.5
    light = np.where(ring, np.nan_to_num(base.images[:, blue].astype(np.float32)), 0).sum(axis=(1, 2))
    behind = np.maximum(light, 0) / ring.sum(axis=(1, 2)) / base.scale**2
    impact = np.maximum(np.hypot(lenses.x[:, 0], lenses.y[:, 0]), lenses.radius[:, 0] / 2)
    images = lenses.flux[:, :, blue].sum(axis=1) * np.minimum(2 * lenses.einstein_radius / impact, 20.0)
    passes: NDArray[np.bool_] = images / 6 > VISIBLE_CONTRAST / 2 * behind
    return passes
