"""Makes a cutout store of lenses from any cutout store: real galaxies, or simulated ones, with arcs in them.

The new store has one cutout a lens or mimic, numbered from 1; ``truth.parquet`` beside it says what was drawn
into which object.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from gzscale.config import GeometryConfig
from gzscale.cutouts.write import GroupContent, PartitionWriter
from gzscale.errors import CatalogError
from gzscale.sky.inject import Arcs, add_light, arc_noise, draw_arcs, electrons_of
from gzscale.sky.lens import Lenses
from gzscale.sky.lens_population import RadiusPrior, Truth, draw_lenses
from gzscale.sky.mimics import draw_kinds, draw_mimics
from gzscale.sky.stamps import Stamps, stamps_at, stored_cutouts
from gzscale.storage import open_storage

__all__ = ["Injection", "inject_store"]

#: Cutouts of a partition of the new store.
_PARTITION = 512
#: Share of the mimics that are companions in the galaxy's own colours.
COMPANIONS = 0.25
#: How often as many partitions are drawn as would be enough if every lens could be observed.
_ATTEMPTS = 50
_UNITS = {
    "einstein_radius": "arcsec",
    "source_x": "arcsec",
    "source_y": "arcsec",
    "velocity_dispersion": "km/s",
    "source_magnitude": "mag",
    "deflector_magnitude": "mag",
}


@dataclass(frozen=True)
class Injection:
    """What to put into a store.

    Attributes
    ----------
    lenses, mimics
        How many cutouts of each to make.
    geometry
        Name of the geometry.
    radii
        Least and largest Einstein radius in arcsec.
    prior
        See `gzscale.sky.lens_population.draw_lenses`.
    visible
        Keep lenses alone whose arcs can be seen.
    electrons
        Electrons a nanomaggy by band, where they are not those of the survey's camera.
    seed
        The same seed and store give the same result.
    survey
        A key of `gzscale.sky.conditions.CAMERAS`: whose cutouts they are.
    """

    lenses: int
    mimics: int = 0
    geometry: str = "sky"
    radii: tuple[float, float] = (0.5, 4.0)
    prior: RadiusPrior = "luminosity"
    visible: bool = False
    electrons: Mapping[str, float] | None = None
    seed: int = 1
    survey: str = "sdss"


def inject_store(location: str, output: str, injection: Injection) -> int:
    """Write a store of cutouts with lensed arcs and with mimics, and the truth about them.

    Parameters
    ----------
    location
        Folder or URL of a night's output or of a cutout store.
    output
        Folder or URL of the new store.
    injection
        What to put into it.

    Returns
    -------
    int
        Number of lenses; fewer than asked where deflectors gave none that can be observed.

    Raises
    ------
    MissingError
        If there are no cutouts of that geometry.
    CatalogError
        If none of them shows a galaxy that can be a lens.
    """
    rng = np.random.default_rng(injection.seed)
    bands = next(stored_cutouts(location, injection.geometry)).bands
    stamps = Stamps.joined(list(stamps_at(location, bands, injection.geometry, injection.survey)))
    rows = np.flatnonzero(stamps.deflector)
    if not len(rows):
        raise CatalogError(
            f"{location}: none of {len(stamps)} cutouts shows a bright red galaxy, as lenses are"
        )
    electrons = electrons_of(bands, injection.electrons, injection.survey)
    storage = open_storage(output)
    tables: list[pa.Table] = []
    number = lenses = 0
    for kind, wanted in (("lens", injection.lenses), ("mimic", injection.mimics)):
        made = 0
        for _ in range(-(-wanted // _PARTITION) * _ATTEMPTS):
            count = min(_PARTITION, wanted - made)
            if count <= 0:
                break
            content, table = _partition(stamps, rows, count, kind, bands, electrons, injection, rng, number)
            if not len(table):
                continue
            prefix = f"cutouts/Norder=0/Dir=0/Npix={len(tables)}.zarr"
            writer = PartitionWriter(storage, prefix)
            writer.write_group(injection.geometry, content)
            writer.close()
            tables.append(table)
            made, number = made + len(table), number + len(table)
        lenses += made if kind == "lens" else 0
    sink = io.BytesIO()
    pq.write_table(pa.concat_tables(tables), sink, compression="zstd")
    storage.put("truth.parquet", sink.getvalue())
    return lenses


def _partition(
    stamps: Stamps,
    rows: NDArray[np.int64],
    count: int,
    kind: str,
    bands: str,
    electrons: NDArray[np.float64],
    injection: Injection,
    rng: np.random.Generator,
    first: int,
) -> tuple[GroupContent, pa.Table]:
    """Make one partition of the new store."""
    chosen = rng.choice(rows, count)
    lenses, truth = draw_lenses(
        stamps.deflectors,
        chosen,
        bands,
        rng,
        arc_noise(stamps.noise[chosen], stamps.scale[chosen]),
        np.median(stamps.seeing[chosen], axis=1),
        injection.radii,
        injection.prior,
        injection.survey,
    )
    base = stamps.take(truth.deflector)
    kinds = np.full(len(base), kind, object)
    arcs = draw_arcs(lenses, base.images, base.seeing, base.scale, base.noise, electrons)
    light = arcs.images
    if kind == "mimic":
        kinds = draw_kinds(len(base), rng, COMPANIONS)
        light = draw_mimics(lenses, kinds, base, rng)
    sought = injection.visible and kind == "lens"
    kept = np.flatnonzero(arcs.visible(bands)) if sought else np.arange(len(base))
    images = add_light(base.images[kept], light[kept], electrons, rng)
    base, lenses, truth, arcs = base.take(kept), lenses.take(kept), truth.take(kept), arcs.take(kept)
    ids = first + 1 + np.arange(len(kept))
    table = _truth(ids, kinds[kept].astype(str), stamps, lenses, truth, arcs, bands)
    return _content(ids, base, images, bands, injection.geometry), table


def _truth(
    ids: NDArray[np.int64],
    kinds: NDArray[np.str_],
    stamps: Stamps,
    lenses: Lenses,
    truth: Truth,
    arcs: Arcs,
    bands: str,
) -> pa.Table:
    is_lens = kinds == "lens"
    columns: dict[str, NDArray[Any]] = {
        "object_id": ids,
        "kind": kinds,
        "lens": is_lens,
        "deflector_id": stamps.object_id[truth.deflector],
        "deflector_redshift": truth.deflector_redshift,
        "deflector_magnitude": stamps.magnitude[truth.deflector],
        "velocity_dispersion": truth.velocity_dispersion,
        "einstein_radius": np.where(is_lens, lenses.einstein_radius, np.nan),
        "axis_ratio": lenses.axis_ratio,
        "shear": lenses.shear,
        "source_redshift": truth.source_redshift,
        "source_magnitude": truth.source_magnitude,
        "source_x": lenses.x[:, 0],
        "source_y": lenses.y[:, 0],
        "magnification": np.where(is_lens, arcs.magnification, np.nan),
    }
    for place, band in enumerate(bands):
        columns[f"arc_magnitude_{band}"] = np.where(is_lens, arcs.magnitude[:, place], np.nan)
        columns[f"arc_signal_{band}"] = np.where(is_lens, arcs.signal[:, place], np.nan)
    arrays = {name: pa.array(values, from_pandas=True) for name, values in columns.items()}
    schema = [
        pa.field(name, array.type, metadata={"unit": "mag" if "magnitude" in name else _UNITS.get(name, "")})
        for name, array in arrays.items()
    ]
    return pa.table(list(arrays.values()), schema=pa.schema(schema))


def _content(
    ids: NDArray[np.int64], base: Stamps, images: NDArray[np.float32], bands: str, geometry: str
) -> GroupContent:
    # Each band of an image is a source of its own, and each seeing that cutouts of one name have.
    told = [(str(name), *row) for name, row in zip(base.source, base.told_seeing.round(3), strict=True)]
    each = {str(one): one for one in told}
    place = np.array([list(each).index(str(one)) for one in told], np.int32)
    slots = place[:, None, None] * np.int32(len(bands)) + np.arange(len(bands), dtype=np.int32)[:, None]
    sources = [
        {"name": name, "band": band, "sha256": "", "size": 0}
        | ({"seeing": float(width)} if np.isfinite(width) else {})
        for name, *widths in each.values()
        for band, width in zip(bands, widths, strict=True)
    ]
    return GroupContent(
        geometry=GeometryConfig(size=images.shape[-1], scale=_scale(base)),
        bands=bands,
        images=np.clip(images, -65504, 65504).astype(np.float16),
        object_id=ids,
        ra=base.ra,
        dec=base.dec,
        scale=base.scale,
        coverage=np.isfinite(images).mean(axis=(2, 3)).astype(np.float32),
        noise=base.noise,
        band_status=np.zeros((len(ids), len(bands)), np.uint8),
        image_index=slots.astype(np.int32),
        sources=tuple(sources),
    )


def _scale(base: Stamps) -> float | str:
    """Return the scale of a fixed geometry; of one tied to sizes, the median: each cutout states its own."""
    return float(np.median(base.scale)) if len(base) else 1.0
