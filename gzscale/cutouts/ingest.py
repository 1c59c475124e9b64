"""Cut one partition: find its images, open each once, cut every geometry out of it, write the store."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from gzscale.config import GeometryConfig
from gzscale.cutouts.account import ImageRecord, Verdict, gaps_table, judge, quarantine_table
from gzscale.cutouts.geometry import check_sizes, half_diagonal, pixel_scales
from gzscale.cutouts.stack import Stack
from gzscale.cutouts.write import GroupContent, PartitionWriter
from gzscale.errors import ImageError, LedgerError
from gzscale.storage import Storage
from gzscale.surveys.ahead import open_ahead
from gzscale.surveys.base import Coverage, Image, ImageRef, Survey

__all__ = ["CutResult", "cut_partition"]


@dataclass(frozen=True)
class CutResult:
    """What cutting a partition did.

    Attributes
    ----------
    inventory
        Key -> (sha256, size in bytes) of every file that was written.
    quarantine
        Objects that could not be cut, one row an object and geometry (`QUARANTINE_SCHEMA`).
    gaps
        Bands that objects which were cut do not have, and why (`GAPS_SCHEMA`).
    done
        Objects that were cut, by geometry.
    images
        Every image that was needed, in the order in which they were opened.
    seconds
        Wall time by stage: ``find``, ``decode`` (waiting for images), ``resample``, ``write``.
    bytes_read
        Bytes of the image files that were used.
    clipped
        Pixels beyond the range of float16, by geometry.
    """

    inventory: dict[str, tuple[str, int]]
    quarantine: pa.Table
    gaps: pa.Table
    done: dict[str, int]
    images: tuple[ImageRecord, ...]
    seconds: dict[str, float]
    bytes_read: int
    clipped: dict[str, int]


class _Clock:
    """Wall time by stage."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(("find", "decode", "resample", "write"), 0.0)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] += time.perf_counter() - start


def cut_partition(
    survey: Survey,
    rows: pa.Table,
    geometries: Mapping[str, GeometryConfig],
    destination: Storage,
    prefix: str,
) -> CutResult:
    """Cut every object of a partition in every geometry, and write its cutout store.

    Parameters
    ----------
    survey
        Where the pixels come from.
    rows
        The partition's objects: ``object_id`` (int64), ``ra``, ``dec`` (float64, degrees), ``size``
        (float32, arcsec, if mapped) and the survey's locator columns.
    geometries
        The geometries by name.
    destination, prefix
        Where the store goes. What is there already is overwritten key by key.

    Returns
    -------
    CutResult
        For each geometry, objects done and quarantined add up to the rows.

    Raises
    ------
    StorageError
        If the store cannot be written.
    """
    clock = _Clock()
    count = rows.num_rows
    sizes = _sizes(rows)
    refused = {name: check_sizes(config, sizes, count) for name, config in geometries.items()}
    stacks = {
        name: Stack(config, pixel_scales(config, sizes, count), len(survey.bands))
        for name, config in sorted(geometries.items())
    }
    with clock.stage("find"):
        radius = _largest_radius(stacks.values(), count)
        cover = survey.find(rows, radius)
    records = _cut_images(survey, rows, cover, stacks, clock)

    writer = PartitionWriter(destination, prefix)
    verdicts: dict[str, Verdict] = {}
    done: dict[str, int] = {}
    clipped = {name: stack.clipped for name, stack in stacks.items()}
    for name in list(stacks):
        stack = stacks.pop(name)
        verdict = judge(
            stack.reached, stack.coverage, survey.bands, cover, records, refused[name], stack.conflicts
        )
        verdicts[name] = verdict
        done[name] = count - len(verdict.lost)
        with clock.stage("write"):
            content = _content(rows, survey.bands, stack, verdict, records)
            writer.write_group(name, content)
        del stack, content
    with clock.stage("write"):
        writer.close()
    quarantine = quarantine_table(rows, {name: verdict.lost for name, verdict in verdicts.items()})
    _check_accounting(count, done, quarantine)
    return CutResult(
        inventory=dict(sorted(writer.inventory.items())),
        quarantine=quarantine,
        gaps=gaps_table(rows, verdicts),
        done=done,
        images=tuple(records),
        seconds=clock.seconds,
        bytes_read=sum(record.size for record in records),
        clipped=clipped,
    )


def _sizes(rows: pa.Table) -> NDArray[np.float64] | None:
    if "size" not in rows.column_names:
        return None
    return rows.column("size").cast(pa.float64()).to_numpy(zero_copy_only=False)


def _largest_radius(stacks: Iterable[Stack], count: int) -> NDArray[np.float64]:
    """Half the diagonal of each object's largest stamp in degrees; 0 if no geometry takes it."""
    radius = np.zeros(count)
    for stack in stacks:
        np.fmax(radius, half_diagonal(stack.config, stack.scales), out=radius)
    return radius


def _cut_images(
    survey: Survey, rows: pa.Table, cover: Coverage, stacks: Mapping[str, Stack], clock: _Clock
) -> list[ImageRecord]:
    """Open each image once, band after band, and cut all geometries out of it."""
    ra, dec = (rows.column(name).to_numpy() for name in ("ra", "dec"))
    begins = np.searchsorted(cover.pair_image, np.arange(len(cover.images) + 1))
    bands_of = np.array([survey.bands.index(ref.band) for ref in cover.images], dtype=np.int64)
    records: list[ImageRecord] = []
    opened = open_ahead(survey, cover.images)
    for band in range(len(survey.bands)):
        numbers = np.flatnonzero(bands_of == band)
        pairs = np.isin(cover.pair_image, numbers)
        layers, spans = _layers(cover, pairs, rows.num_rows), _spans(cover, pairs, rows.num_rows)
        for stack in stacks.values():
            stack.start_band(band, layers, spans)
        for number in numbers.tolist():
            with clock.stage("decode"):
                ref, image = next(opened)
            records.append(_record(ref, image))
            if isinstance(image, Image):
                mine = slice(begins[number], begins[number + 1])
                objects = cover.pair_object[mine]
                ranks = None if cover.pair_rank is None else cover.pair_rank[mine]
                with clock.stage("resample"):
                    for stack in stacks.values():
                        stack.add(image, number, band, objects, ra, dec, ranks)
            del image
            with clock.stage("resample"):
                for stack in stacks.values():
                    stack.pass_image(number, band)
        with clock.stage("resample"):
            for stack in stacks.values():
                stack.finish_band(band)
    return records


def _layers(cover: Coverage, pairs: NDArray[np.bool_], count: int) -> NDArray[np.int64]:
    """Return how many layers the stamps of one band's pairs need; see `Stack.start_band`."""
    objects = cover.pair_object[pairs]
    layers = (np.bincount(objects, minlength=count) > 1).astype(np.int64)
    if cover.pair_rank is not None:
        ranks = np.zeros(count, dtype=np.int64)
        np.maximum.at(ranks, objects, cover.pair_rank[pairs])
        layers *= ranks + 1
    return layers


def _spans(cover: Coverage, pairs: NDArray[np.bool_], count: int) -> NDArray[np.int64]:
    """Return the numbers of the first and of the last of each object's images of one band, -1 without any."""
    images, objects = cover.pair_image[pairs], cover.pair_object[pairs]
    spans = np.full((count, 2), -1, dtype=np.int64)
    # Of several values for one place the last one stays.
    ascending = np.argsort(images, kind="stable")
    spans[objects[ascending[::-1]], 0] = images[ascending[::-1]]
    spans[objects[ascending], 1] = images[ascending]
    return spans


def _record(ref: ImageRef, image: Image | ImageError) -> ImageRecord:
    if isinstance(image, Image):
        return ImageRecord(ref.name, ref.band, ref.path, image.sha256, image.size, "", "", image.seeing)
    return ImageRecord(ref.name, ref.band, ref.path, "", 0, image.reason.value, str(image))


def _content(
    rows: pa.Table, bands: str, stack: Stack, verdict: Verdict, records: list[ImageRecord]
) -> GroupContent:
    """Gather what a geometry's group holds: the objects that were cut, in the rows' order."""
    kept = [row for row in range(rows.num_rows) if row not in verdict.lost]
    numbers, image_index = stack.image_index()
    return GroupContent(
        geometry=stack.config,
        bands=bands,
        images=stack.keep(kept),
        object_id=rows.column("object_id").to_numpy()[kept],
        ra=rows.column("ra").to_numpy()[kept],
        dec=rows.column("dec").to_numpy()[kept],
        scale=stack.scales[kept],
        coverage=stack.coverage[kept],
        noise=stack.noise[kept],
        band_status=verdict.status[kept],
        image_index=image_index[kept],
        flags=stack.flags[kept] if stack.flag_names else None,
        flag_names=stack.flag_names,
        sources=tuple(_source(records[n]) for n in numbers.tolist()),
    )


def _source(record: ImageRecord) -> dict[str, str | int | float]:
    """Return what a store says of an image: its seeing to the milliarcsec, where it is known."""
    told: dict[str, str | int | float] = {
        "name": record.name,
        "band": record.band,
        "sha256": record.sha256,
        "size": record.size,
    }
    return told if math.isnan(record.seeing) else {**told, "seeing": round(record.seeing, 3)}


def _check_accounting(count: int, done: Mapping[str, int], quarantine: pa.Table) -> None:
    """Rows are done or quarantined, in every geometry."""
    tasks = quarantine.column("task").to_pylist()
    for name, number in done.items():
        if number + tasks.count(name) != count:
            raise LedgerError(
                f"geometry {name}: {count} rows, but {number} done and {tasks.count(name)} quarantined"
            )
