"""Draw one block of training galaxies: fields of their own conditions, cut as a night's are.

What differs from a night's cutouts: a galaxy comes from one frame, never from two; frames have no bad
columns, cosmic rays, satellites or ghosts, and their sky is subtracted without error; the PSF is a
Moffat profile, round and constant over a field; positions are exact; bands with many sky electrons
get normal, not Poisson, noise.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from gzscale.config import GeometryConfig
from gzscale.cutouts.stack import Stack
from gzscale.cutouts.write import GroupContent
from gzscale.errors import ConfigError
from gzscale.sky import patches, photometry, population
from gzscale.sky.conditions import CAMERAS, Conditions, draw_conditions
from gzscale.sky.spectra import FILTERS
from gzscale.surveys.base import Image

__all__ = ["BLOCK", "FIELD", "Block", "Request", "draw_block"]

#: Galaxies of a block; its stamps take 42 MB.
BLOCK = 1024
#: Galaxies of a field: they share its conditions.
FIELD = patches.PATCHES**2
#: Side of a cutout in pixels; its scale is the camera's.
SIZE = 64
#: Kinds of neighbours: at these magnitudes arms are not seen.
_NEIGHBOUR_KINDS = {"elliptical": 0.3, "lenticular": 0.3, "edge_on": 0.4}
#: Relative scatter of E(B-V) within a field.
_REDDENING_GRAIN = 0.05


class _Counts(NamedTuple):
    """Objects a square arcminute, range of their r, and slope of log10 N(r)."""

    density: float
    limits: tuple[float, float]
    slope: float


class _Sky(NamedTuple):
    """What a survey's sample is drawn from: range of its galaxies' r, and counts of their neighbours."""

    magnitudes: tuple[float, float]
    galaxies: _Counts
    stars: _Counts


#: Survey -> its sky: neighbours to the survey's depth, of counts at high Galactic latitude (Yasuda et al.
#: 2001, AJ 122, 1104; Juric et al. 2008, ApJ 673, 864). Rubin's galaxies, to r < 24, are 0.6 a square
#: arcminute at r < 20 and 8 at r < 23, about as deep counts have them.
_SKIES = {
    "sdss": _Sky(population.MAGNITUDES, _Counts(4.0, (17.0, 21.5), 0.45), _Counts(1.2, (14.0, 21.5), 0.15)),
    "rubin": _Sky(
        population.RUBIN_MAGNITUDES, _Counts(18.0, (17.0, 24.0), 0.36), _Counts(2.2, (16.0, 24.0), 0.15)
    ),
}


@dataclass(frozen=True, slots=True)
class Request:
    """What a sample is.

    Attributes
    ----------
    survey
        A key of `gzscale.sky.conditions.CAMERAS`.
    objects
        Number of galaxies.
    seed
        Zero or more.
    magnitudes, slope
        Range of r before extinction, the survey's own by default, and slope of log10 N(r).
    seeing
        Factor of the seeing: 1 is the camera's median, what surveys call the effective width of their
        point-spread functions; the cores of real SDSS frames are about 0.85 of that.
    seeing_scatter
        Scatter of its natural logarithm from field to field; the camera's own by default.
    block
        Galaxies of a block, a multiple of `FIELD`. The galaxies are the same whatever it is.
    """

    survey: str
    objects: int
    seed: int
    magnitudes: tuple[float, float] | None = None
    slope: float = population.SLOPE
    seeing: float = 1.0
    seeing_scatter: float | None = None
    block: int = BLOCK

    def __post_init__(self) -> None:
        if self.survey not in CAMERAS:
            raise ConfigError(f"survey {self.survey!r}: samples are made of {', '.join(CAMERAS)}")
        if not 1 <= self.objects < 1 << 32 or not 0 <= self.seed < 1 << 31:
            raise ConfigError(
                f"{self.objects} objects, seed {self.seed}: from 1 and 0, below 2**32 and 2**31, are needed"
            )
        low, high = self.limits
        if not 12 <= low < high <= 25 or not 0 < self.slope <= 1:
            raise ConfigError(
                f"magnitudes {low} to {high}, slope {self.slope}: a range within 12 to 25 and a slope "
                "above 0, at most 1, are needed"
            )
        if not 0.3 <= self.seeing <= 3 or not 0 <= (self.seeing_scatter or 0) <= 0.5:
            raise ConfigError(
                f"seeing {self.seeing}, scatter {self.seeing_scatter}: a factor of 0.3 to 3 and a scatter of "
                "0 to 0.5 are needed"
            )
        if self.block < 1 or self.block % FIELD:
            raise ConfigError(f"blocks of {self.block}: a multiple of {FIELD} is needed")

    @property
    def limits(self) -> tuple[float, float]:
        """Range of r before extinction."""
        return self.magnitudes or _SKIES[self.survey].magnitudes

    @property
    def bands(self) -> str:
        """One letter a band."""
        return FILTERS[self.survey].bands

    @property
    def blocks(self) -> int:
        """Number of blocks."""
        return -(-self.objects // self.block)


@dataclass(frozen=True, slots=True)
class Block:
    """One block: its cutouts, and the truth about them with what photometry says, in the same order."""

    content: GroupContent
    truth: pa.Table


def draw_block(request: Request, number: int) -> Block:
    """Draw one block; it depends on the request and its number alone.

    Parameters
    ----------
    request
        The sample.
    number
        Of the block, from 0.
    """
    start = number * request.block
    count = min(request.block, request.objects - start)
    fields = [
        _draw_field(request, first // FIELD, min(FIELD, start + count - first))
        for first in range(start, start + count, FIELD)
    ]
    truth = {name: np.concatenate([drawn[name] for drawn, _ in fields]) for name in fields[0][0]}
    stacks = [stack for _, stack in fields]
    coverage = np.concatenate([stack.coverage for stack in stacks])
    content = GroupContent(
        geometry=stacks[0].config,
        bands=request.bands,
        images=np.concatenate([stack.keep(range(len(stack.scales))) for stack in stacks]),
        # Those of different seeds never coincide: what one bundle has learnt is held against them.
        object_id=np.arange(start, start + count, dtype=np.int64) + (request.seed << 32) + 1,
        ra=truth["ra"],
        dec=truth["dec"],
        scale=np.concatenate([stack.scales for stack in stacks]),
        coverage=coverage,
        noise=np.concatenate([stack.noise for stack in stacks]),
        band_status=np.zeros(coverage.shape, np.uint8),
        image_index=np.full((*coverage.shape, 1), -1, np.int32),
        sources=(),
    )
    truth = {"object_id": content.object_id, **truth, **_measured(content)}
    return Block(content, population.truth_table(truth, request.bands))


def _draw_field(request: Request, number: int, count: int) -> tuple[dict[str, NDArray[Any]], Stack]:
    """Draw one field and cut its galaxies; return what was drawn, and the cutouts."""
    rng = np.random.Generator(np.random.PCG64([request.seed, number]))
    bands = request.bands
    conditions = draw_conditions(request.survey, bands, rng, request.seeing, request.seeing_scatter)
    positions, ra, dec = patches.places(count, conditions, rng)
    kind = population.draw_kinds(count, rng)
    magnitude = population.draw_magnitudes(count, rng, request.limits, request.slope)
    galaxies = population.draw_objects(kind, magnitude, request.survey, rng)
    reddening = np.maximum(conditions.reddening * (1 + _REDDENING_GRAIN * rng.standard_normal(count)), 0.0)
    drawn, owner, offsets = _neighbours(request, conditions, count, rng)
    members: list[list[tuple[dict[str, Any], patches.Place]]] = [[] for _ in range(count)]
    for patch, row in enumerate(_rows(galaxies, reddening, request, conditions)):
        members[patch].append((row, (0.0, 0.0)))
    neighbours = _rows(drawn, reddening[owner], request, conditions)
    for patch, offset, row in zip(owner.tolist(), offsets, neighbours, strict=True):
        members[patch].append((row, (float(offset[0]), float(offset[1]))))
    source = patches.draw_field(conditions, bands, positions, members)
    images = patches.field_images(source, conditions, bands, count, f"field-{number}", rng)
    shared = {
        "ra": ra,
        "dec": dec,
        "ebv": reddening,
        "neighbours": np.bincount(owner, minlength=count).astype(np.int32),
        **{f"seeing_{band}": np.full(count, conditions.seeing[i]) for i, band in enumerate(bands)},
    }
    return galaxies | shared, _cut(images, ra, dec, conditions.pixel_scale)


def _cut(images: list[Image], ra: NDArray[np.float64], dec: NDArray[np.float64], scale: float) -> Stack:
    """Cut all galaxies out of a field's images, one image a band."""
    everybody = np.arange(len(ra))
    stack = Stack(GeometryConfig(size=SIZE, scale=scale), np.full(len(ra), scale), len(images))
    for band, image in enumerate(images):
        stack.start_band(band, np.ones(len(ra), np.int64), np.zeros((len(ra), 2), np.int64))
        stack.add(image, 0, band, everybody, ra, dec)
        stack.finish_band(band)
    return stack


def _neighbours(
    request: Request, conditions: Conditions, count: int, rng: np.random.Generator
) -> tuple[dict[str, NDArray[Any]], NDArray[np.int64], NDArray[np.float64]]:
    """Draw the neighbours of a field's galaxies, whose they are, and their offsets in pixels."""
    area = (patches.PATCH * conditions.pixel_scale / 60) ** 2
    sky = _SKIES[request.survey]
    galaxies = rng.poisson(sky.galaxies.density * area, count)
    stars = rng.poisson(sky.stars.density * area, count)
    owner = np.concatenate([np.repeat(np.arange(count), number) for number in (galaxies, stars)])
    names, odds = list(_NEIGHBOUR_KINDS), list(_NEIGHBOUR_KINDS.values())
    kind = np.concatenate([rng.choice(names, galaxies.sum(), p=odds), np.full(stars.sum(), "star")])
    magnitude = np.concatenate(
        [
            population.draw_magnitudes(int(galaxies.sum()), rng, *sky.galaxies[1:]),
            population.draw_magnitudes(int(stars.sum()), rng, *sky.stars[1:]),
        ]
    )
    offsets = rng.uniform(-patches.PATCH / 2, patches.PATCH / 2, (owner.size, 2))
    return population.draw_objects(kind, magnitude, request.survey, rng), owner, offsets


def _rows(
    drawn: dict[str, NDArray[Any]], reddening: NDArray[np.float64], request: Request, conditions: Conditions
) -> Iterator[dict[str, Any]]:
    """Yield what is drawn of each object: its row with the fluxes behind the Galaxy's dust."""
    screen = 10 ** (-0.4 * reddening[:, None] * np.array(FILTERS[request.survey].extinction))
    seen = drawn | {f"flux_{body}": drawn[f"flux_{body}"] * screen for body in population.BODIES}
    plain = {name: values.tolist() if values.ndim == 1 else values for name, values in seen.items()}
    for i in range(len(reddening)):
        row = {name: values[i] for name, values in plain.items()}
        yield row | {"column_angle": conditions.column_angle, "mag_r": row["total_r"]}


def _measured(content: GroupContent) -> dict[str, NDArray[Any]]:
    """Return what photometry of the cutouts says, as columns."""
    scale = float(content.scale[0])
    found = photometry.measure(content.images, content.noise, scale, content.bands)
    magnitude = photometry.asinh_magnitude(found.flux, content.bands)
    columns = {"measured_radius": found.radius}
    for i, band in enumerate(content.bands):
        columns[f"measured_mag_{band}"] = magnitude[:, i]
        columns[f"measured_flux_{band}"] = found.flux[:, i]
        columns[f"measured_flux_error_{band}"] = found.error[:, i]
    return columns
