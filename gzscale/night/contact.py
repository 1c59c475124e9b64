"""The contact sheet: galaxies chosen from all over the night, in colour, with what was found of them."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from PIL import Image as Picture

from gzscale.catalog.schema import Column
from gzscale.cutouts.store import Cutouts, read_chosen_cutouts
from gzscale.errors import GzscaleError
from gzscale.models.inputs import SDSS_STRETCH, Stretch, from_flux
from gzscale.night.answers import coverage_column, done_column
from gzscale.night.choice import Pool, choose, spread
from gzscale.night.ledger import Ledger
from gzscale.night.origins import cutouts_prefix
from gzscale.night.overview import PartitionState, predictions_key
from gzscale.night.panels import caption
from gzscale.night.planned import PlannedPartition
from gzscale.night.tables import read_parquet
from gzscale.storage import Storage

__all__ = ["ContactSheet", "Galaxy", "make_contact_sheet", "picture_of"]

#: Longest side of a picture; larger cutouts are averaged down.
MAX_SIDE = 128


@dataclass(frozen=True, slots=True)
class Galaxy:
    """One picture of the sheet.

    Attributes
    ----------
    object_id
        Identifier.
    ra, dec
        Degrees.
    scale, side
        Pixel scale and side of the cutout in arcsec.
    coverage
        Covered part of the cutout, the least of the bands that the network saw.
    picture
        PNG as a data URI; what was not covered is transparent.
    caption
        What the tasks found.
    """

    object_id: int
    ra: float
    dec: float
    scale: float
    side: float
    coverage: float
    picture: str
    caption: tuple[str, ...]


@dataclass
class ContactSheet:
    """Galaxies by kind.

    Attributes
    ----------
    task, geometry
        By whose answers galaxies are chosen, and whose cutouts are shown.
    bands
        The bands that are shown as red, green and blue.
    groups
        Heading -> galaxies.
    partitions
        Partitions that they were chosen from.
    damage
        Messages about what could not be read.
    """

    task: str
    geometry: str
    bands: str = ""
    groups: dict[str, list[Galaxy]] = field(default_factory=dict)
    partitions: int = 0
    damage: list[str] = field(default_factory=list)


def make_contact_sheet(
    storage: Storage,
    states: Sequence[PartitionState],
    task: str,
    geometry: str,
    columns: Mapping[str, tuple[Column, ...]],
) -> ContactSheet:
    """Choose galaxies and render them.

    The choice depends on the predictions alone: partitions are spread evenly over the
    objects in the order of the sky, each kind takes the best of each partition first, and
    the random ones are those with the smallest hash of their identifier.

    Parameters
    ----------
    storage
        The night's output.
    states
        How far each partition is.
    task
        By whose answers they are chosen.
    geometry
        The geometry that it was fed with.
    columns
        Task -> its columns, for every task of the night.

    Returns
    -------
    ContactSheet
        One partition's cutouts are in memory at a time. What cannot be read is named in
        ``damage``.
    """
    sheet = ContactSheet(task, geometry)
    chosen = spread([state for state in states if state.answered.get(task)], task)
    tables = []
    for item in chosen:
        try:
            table = read_parquet(storage, predictions_key(item))
            tables.append(table.filter(table[done_column(task)]))
        except GzscaleError as error:
            sheet.damage.append(str(error))
            tables.append(None)
    read = [(number, table) for number, table in enumerate(tables) if table is not None]
    if not read:
        return sheet
    pool = Pool(
        pa.concat_tables([table for _, table in read]),
        np.concatenate([np.full(table.num_rows, number) for number, table in read]),
    )
    groups = choose(pool, task, columns[task])
    shown: dict[int, Galaxy] = {}
    for number, _ in read:
        rows = [row for group in groups.values() for row in group if pool.partition[row] == number]
        if rows:
            try:
                shown |= _render(storage, chosen[number], pool.table, rows, sheet, columns)
                sheet.partitions += 1
            except GzscaleError as error:
                sheet.damage.append(str(error))
    sheet.groups = {
        heading: [shown[row] for row in group if row in shown]
        for heading, group in groups.items()
        if any(row in shown for row in group)
    }
    return sheet


def _render(
    storage: Storage,
    item: PlannedPartition,
    table: pa.Table,
    rows: list[int],
    sheet: ContactSheet,
    columns: Mapping[str, tuple[Column, ...]],
) -> dict[int, Galaxy]:
    """Render some objects of one partition."""
    record = Ledger(storage).read("cut", item.partition)
    if record is None:
        return {}
    inventory = {key: (str(value[0]), int(value[1])) for key, value in record.files.items()}
    ids = table["object_id"].take(rows).to_numpy()
    cutouts = read_chosen_cutouts(storage, cutouts_prefix(item.partition), sheet.geometry, ids, inventory)
    place = {int(object_id): index for index, object_id in enumerate(cutouts.object_id)}
    galaxies = {}
    for row in rows:
        values = table.slice(row, 1).to_pylist()[0]
        index = place.get(values["object_id"])
        if index is not None:
            galaxies[row] = _galaxy(cutouts, index, values, sheet.task, columns)
    sheet.bands = _stretch(cutouts.bands).bands
    return galaxies


def _galaxy(
    cutouts: Cutouts,
    index: int,
    values: Mapping[str, object],
    task: str,
    columns: Mapping[str, tuple[Column, ...]],
) -> Galaxy:
    scale = float(cutouts.scale[index])
    said = caption(columns[task], values)
    for other, shown in columns.items():
        if other != task and values[done_column(other)]:
            said += caption(shown, values)
    return Galaxy(
        object_id=int(cutouts.object_id[index]),
        ra=float(cutouts.ra[index]),
        dec=float(cutouts.dec[index]),
        scale=scale,
        side=scale * cutouts.images.shape[-1],
        coverage=float(values[coverage_column(task)]),  # type: ignore[arg-type]
        picture=_data_uri(picture_of(cutouts.images[index], scale, cutouts.bands)),
        caption=tuple(said),
    )


def _stretch(bands: str) -> Stretch:
    """Return SDSS's rendering, or for other bands the same one of the last, middle and first."""
    if set(SDSS_STRETCH.bands) <= set(bands):
        return SDSS_STRETCH
    shown = bands[-1] + bands[len(bands) // 2] + bands[0]
    return Stretch(shown, SDSS_STRETCH.scales, SDSS_STRETCH.nonlinearity, SDSS_STRETCH.pixel_scale)


def picture_of(flux: NDArray[np.floating], scale: float, bands: str) -> Picture.Image:
    """Render one cutout in SDSS's colours, north up and east left.

    Parameters
    ----------
    flux
        Nanomaggies a pixel, shape (bands, y, x), rows growing to the north, NaN where not
        measured.
    scale
        Arcsec a pixel.
    bands
        One letter each. Without i, r and g, the last, middle and first band are shown.

    Returns
    -------
    PIL.Image.Image
        RGBA; a pixel that is not measured in one of the bands shown is transparent.
    """
    stretch = _stretch(bands)
    images = torch.from_numpy(np.ascontiguousarray(flux[None]))
    colours = from_flux(images, torch.tensor([scale]), bands, stretch)[0].numpy()
    known = ~np.isnan(flux[[bands.index(band) for band in stretch.bands]]).any(axis=0)
    channels = np.concatenate([colours, known[None].astype(np.float32)])
    pixels = np.rint(channels * 255).astype(np.uint8).transpose(1, 2, 0)[::-1]
    picture = Picture.fromarray(np.ascontiguousarray(pixels), "RGBA")
    if max(picture.size) > MAX_SIDE:
        picture.thumbnail((MAX_SIDE, MAX_SIDE), Picture.Resampling.BOX)
    return picture


def _data_uri(picture: Picture.Image) -> str:
    sink = io.BytesIO()
    picture.save(sink, "PNG")
    return f"data:image/png;base64,{base64.b64encode(sink.getvalue()).decode()}"
