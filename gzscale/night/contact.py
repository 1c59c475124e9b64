"""The contact sheet: galaxies chosen from all over the night, in colour, with what was found of them."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray
from PIL import Image as Picture

from gzscale.catalog.schema import Column
from gzscale.cutouts.store import Cutouts, read_cutouts
from gzscale.errors import GzscaleError
from gzscale.models.inputs import SDSS_STRETCH, Stretch, from_flux
from gzscale.night.answers import coverage_column, done_column
from gzscale.night.ledger import Ledger
from gzscale.night.overview import PartitionState, predictions_key
from gzscale.night.panels import Panel, caption, has_tree, panels
from gzscale.night.plan import PlannedPartition
from gzscale.night.tables import read_parquet
from gzscale.night.work import cutouts_prefix
from gzscale.storage import Storage

__all__ = ["ContactSheet", "Galaxy", "make_contact_sheet", "picture_of"]

#: Partitions that galaxies are chosen from, galaxies of each kind, and drawn at random.
PARTITIONS = 12
OF_EACH_KIND = 7
AT_RANDOM = 11
#: Longest side of a picture; larger cutouts are averaged down.
MAX_SIDE = 128

#: Kinds of galaxies that are looked for by the tree: heading, question and answer that are last on the path.
_KINDS = (
    ("Clearest smooth", 0, 0),
    ("Clearest featured, not edge-on", 1, 1),
    ("Clearest edge-on", 1, 0),
    ("Clearest spiral", 3, 0),
    ("Clearest bar", 2, 0),
    ("Clearest odd", 5, 0),
)
_PARTLY = "Least covered by images"
_RANDOM = "Drawn at random"


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
        What the task found.
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
        Whose answers and whose cutouts are shown.
    groups
        Heading -> galaxies.
    partitions
        Partitions that they were chosen from.
    damage
        Messages about what could not be read.
    """

    task: str
    geometry: str
    groups: dict[str, list[Galaxy]] = field(default_factory=dict)
    partitions: int = 0
    damage: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Pool:
    """The objects that galaxies are chosen from, over all chosen partitions.

    Attributes
    ----------
    table
        Their predictions.
    partition
        Row -> number of the partition, int64.
    """

    table: pa.Table
    partition: NDArray[np.int64]


def make_contact_sheet(
    storage: Storage, states: Sequence[PartitionState], task: str, geometry: str, columns: tuple[Column, ...]
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
        Whose answers are shown.
    geometry
        The geometry that it was fed with.
    columns
        The task's columns.

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
            tables.append(table.filter(pc.field(done_column(task))))
        except GzscaleError as error:
            sheet.damage.append(str(error))
            tables.append(None)
    read = [(number, table) for number, table in enumerate(tables) if table is not None]
    if not read:
        return sheet
    pool = _Pool(
        pa.concat_tables([table for _, table in read]),
        np.concatenate([np.full(table.num_rows, number) for number, table in read]),
    )
    groups = _choose(pool, task, columns)
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


def spread(states: Sequence[PartitionState], task: str) -> list[PlannedPartition]:
    """Choose at most `PARTITIONS` partitions, evenly over the objects in the order of the sky."""
    if len(states) <= PARTITIONS:
        return [state.item for state in states]
    reached = np.cumsum([state.answered[task] for state in states])
    aims = (np.arange(PARTITIONS) + 0.5) / PARTITIONS * reached[-1]
    places = np.unique(np.searchsorted(reached, aims))
    return [states[place].item for place in places]


def _choose(pool: _Pool, task: str, columns: tuple[Column, ...]) -> dict[str, list[int]]:
    """Return heading -> rows of the pool; no row twice."""
    ids = pool.table["object_id"].to_numpy()
    left = np.ones(len(ids), bool)
    groups: dict[str, list[int]] = {}

    def take(heading: str, score: NDArray[np.floating], allowed: NDArray[np.bool_], number: int) -> None:
        rows = _best(score, allowed & left, pool.partition, ids)[:number]
        left[rows] = False
        if len(rows):
            groups[heading] = rows.tolist()

    everybody = np.ones(len(ids), bool)
    for heading, score in _scores(pool.table, columns).items():
        take(heading, score, score >= (0.5 if has_tree(columns) else -np.inf), OF_EACH_KIND)
    coverage = pool.table[coverage_column(task)].to_numpy()
    take(_PARTLY, -coverage, coverage < 1, OF_EACH_KIND)
    take(_RANDOM, _hash(ids), everybody, AT_RANDOM)
    return groups


def _scores(table: pa.Table, columns: tuple[Column, ...]) -> dict[str, NDArray[np.floating]]:
    """Return heading -> how clearly each object is of that kind."""
    if has_tree(columns):
        tree = panels(columns)
        return {heading: _joint(table, tree[question], answer) for heading, question, answer in _KINDS}
    for column in columns:
        if column.dtype.startswith("float"):
            values = table[column.name].to_numpy()
            return {f"Highest {column.name}": values, f"Lowest {column.name}": -values}
    return {}


def _joint(table: pa.Table, panel: Panel, answer: int) -> NDArray[np.floating]:
    """Multiply vote fractions down the tree to an answer (Willett et al. 2013, Section 3)."""
    product = table[panel.columns[answer]].to_numpy().astype(np.float64)
    for name in panel.asked_by:
        product *= table[name].to_numpy()
    return product


def _best(
    score: NDArray[np.floating],
    allowed: NDArray[np.bool_],
    partition: NDArray[np.int64],
    ids: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Return the allowed rows: each partition's best first, then each one's second, and so on."""
    rows = np.flatnonzero(allowed)
    rows = rows[np.lexsort((ids[rows], -score[rows], partition[rows]))]
    starts = np.searchsorted(partition[rows], partition[rows], side="left")
    rank = np.arange(len(rows)) - starts
    return rows[np.lexsort((ids[rows], -score[rows], rank))]


def _hash(ids: NDArray[np.int64]) -> NDArray[np.float64]:
    """Hash identifiers to [0, 1) (the finaliser of SplitMix64: Steele et al. 2014, OOPSLA)."""
    word = ids.astype(np.uint64)
    word = (word ^ (word >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    word = (word ^ (word >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (word ^ (word >> np.uint64(31))) / 2.0**64


def _render(
    storage: Storage,
    item: PlannedPartition,
    table: pa.Table,
    rows: list[int],
    sheet: ContactSheet,
    columns: tuple[Column, ...],
) -> dict[int, Galaxy]:
    """Render some objects of one partition."""
    record = Ledger(storage).read("cut", item.partition)
    if record is None:
        return {}
    inventory = {key: (str(value[0]), int(value[1])) for key, value in record.files.items()}
    cutouts = read_cutouts(storage, cutouts_prefix(item.partition), sheet.geometry, inventory)
    place = {int(object_id): index for index, object_id in enumerate(cutouts.object_id)}
    galaxies = {}
    for row in rows:
        values = table.slice(row, 1).to_pylist()[0]
        index = place.get(values["object_id"])
        if index is not None:
            galaxies[row] = _galaxy(cutouts, index, values, sheet.task, columns)
    return galaxies


def _galaxy(
    cutouts: Cutouts, index: int, values: Mapping[str, object], task: str, columns: tuple[Column, ...]
) -> Galaxy:
    scale = float(cutouts.scale[index])
    return Galaxy(
        object_id=int(cutouts.object_id[index]),
        ra=float(cutouts.ra[index]),
        dec=float(cutouts.dec[index]),
        scale=scale,
        side=scale * cutouts.images.shape[-1],
        coverage=float(values[coverage_column(task)]),  # type: ignore[arg-type]
        picture=_data_uri(picture_of(cutouts.images[index], scale, cutouts.bands)),
        caption=tuple(caption(columns, values)),
    )


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
    stretch = SDSS_STRETCH
    if not set(stretch.bands) <= set(bands):
        shown = bands[-1] + bands[len(bands) // 2] + bands[0]
        stretch = Stretch(shown, stretch.scales, stretch.nonlinearity, stretch.pixel_scale)
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
