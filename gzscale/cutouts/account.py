"""What became of each object's bands, and why an object was not cut."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from gzscale.catalog.schema import QUARANTINE_SCHEMA
from gzscale.errors import Reason
from gzscale.surveys.base import Coverage

__all__ = ["STATUS", "ImageRecord", "Verdict", "judge", "quarantine_table"]

#: Meanings of the per-band status codes; ``Reason`` is append-only, so the codes keep their meaning.
STATUS: tuple[str, ...] = ("OK", *(reason.value for reason in Reason))

#: What names a band's failure least comes last: any damage says more than an absence.
_WEAKEST = (Reason.MISSING_IMAGE, Reason.MISSING_BAND, Reason.ALL_NAN, Reason.OFF_FOOTPRINT)


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """One image that a partition needed.

    Attributes
    ----------
    name, band, path
        As in `gzscale.surveys.base.ImageRef`.
    sha256, size
        Of the stored file's bytes; empty and 0 if it could not be used.
    reason, detail
        Why it could not be used; empty if it was.
    seeing
        Full width at half maximum of its stars in arcsec; NaN where it is not known.
    """

    name: str
    band: str
    path: str
    sha256: str
    size: int
    reason: str
    detail: str
    seeing: float = math.nan


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of the objects in one geometry.

    Attributes
    ----------
    status
        Index into `STATUS`, uint8, shape (n, bands).
    lost
        Row -> (reason, one sentence) of the objects that are not cut.
    gaps
        (Row, band, reason, one sentence) of each band that an object which is cut does not have.
    """

    status: NDArray[np.uint8]
    lost: dict[int, tuple[Reason, str]]
    gaps: list[tuple[int, str, Reason, str]]


def judge(
    reached: NDArray[np.bool_],
    coverage: NDArray[np.float32],
    bands: str,
    cover: Coverage,
    records: Sequence[ImageRecord],
    refused: dict[int, tuple[Reason, str]],
    conflicts: Mapping[tuple[int, int], tuple[int, int, str]],
) -> Verdict:
    """Give each object and band a status.

    A band is OK when an image that could be opened contains the object's position and at least one
    pixel of the stamp is measured. An object is done when at least one band is.

    Parameters
    ----------
    reached
        Whether an opened image contains the position, shape (n, bands).
    coverage
        Fraction of finite pixels, shape (n, bands).
    bands
        The survey's bands.
    cover
        What `Survey.find` returned.
    records
        One for each of ``cover.images``.
    refused
        Objects whose size does not allow this geometry.
    conflicts
        Bands of objects in which two images disagree: see `gzscale.cutouts.stack.Stack`.
    """
    status = np.zeros(reached.shape, dtype=np.uint8)
    lost: dict[int, tuple[Reason, str]] = dict(refused)
    gaps: list[tuple[int, str, Reason, str]] = []
    done = reached & (coverage > 0)
    images_of: dict[int, list[int]] = {row: [] for row in np.flatnonzero(~done.all(axis=1)).tolist()}
    for row, image in zip(cover.pair_object.tolist(), cover.pair_image.tolist(), strict=True):
        if row in images_of:
            images_of[row].append(image)
    whole = _exposures_with_images(cover, records)
    for row, images in images_of.items():
        reasons: list[tuple[Reason, str]] = []
        for index, band in enumerate(bands):
            if done[row, index]:
                continue
            mine = [image for image in images if cover.images[image].band == band]
            if row in refused:
                why = refused[row]
            elif (row, index) in conflicts:
                why = _conflict(*conflicts[row, index], records)
            elif row in cover.lost:
                why = cover.lost[row]
            else:
                elsewhere = len(mine) < len(images)
                why = _band_reason(bool(reached[row, index]), mine, elsewhere, cover, records, whole)
            if why[0] is Reason.OFF_FOOTPRINT and done[row].any():
                why = (Reason.MISSING_BAND, why[1])
            status[row, index] = STATUS.index(why[0].value)
            reasons.append((why[0], f"{band}: {why[1]}"))
            if done[row].any():
                gaps.append((row, band, *why))
        if not done[row].any() and row not in lost:
            lost[row] = cover.lost.get(row) or _summary(reasons)
    return Verdict(status, lost, gaps)


def _conflict(one: int, other: int, said: str, records: Sequence[ImageRecord]) -> tuple[Reason, str]:
    return Reason.BAD_IMAGE, f"{records[one].name} and {records[other].name} disagree here: {said}"


def _exposures_with_images(cover: Coverage, records: Sequence[ImageRecord]) -> set[str]:
    """Exposures of which at least one band's image exists, usable or not."""
    return {
        ref.exposure
        for ref, record in zip(cover.images, records, strict=True)
        if record.reason != Reason.MISSING_IMAGE
    }


def _band_reason(
    reached: bool,
    images: list[int],
    elsewhere: bool,
    cover: Coverage,
    records: Sequence[ImageRecord],
    whole: set[str],
) -> tuple[Reason, str]:
    if reached:
        return Reason.ALL_NAN, f"every pixel of {', '.join(records[i].name for i in images)} here is missing"
    failed = [image for image in images if records[image].reason]
    damaged = [image for image in failed if records[image].reason != Reason.MISSING_IMAGE]
    if damaged:
        return Reason(records[damaged[0]].reason), records[damaged[0]].detail
    if failed:
        reason = Reason.MISSING_BAND if cover.images[failed[0]].exposure in whole else Reason.MISSING_IMAGE
        return reason, records[failed[0]].detail
    if images:
        names = ", ".join(records[image].name for image in images)
        return Reason.OFF_FOOTPRINT, f"the position is outside {names}"
    if elsewhere:
        return Reason.MISSING_BAND, "the survey has no image of this band here"
    return Reason.OFF_FOOTPRINT, "no image of the survey covers the position"


def _summary(reasons: list[tuple[Reason, str]]) -> tuple[Reason, str]:
    """One reason for an object without any band: the one that says most, and all sentences once."""
    strength = {reason: -place for place, reason in enumerate(_WEAKEST, start=1)}
    order = sorted(range(len(reasons)), key=lambda i: (-strength.get(reasons[i][0], 0), i))
    return reasons[order[0]][0], "; ".join(reasons[i][1] for i in order)


#: Bands that objects which are cut do not have.
GAPS_SCHEMA = pa.schema(
    [
        ("object_id", pa.int64()),
        ("geometry", pa.string()),
        ("band", pa.string()),
        ("reason", pa.string()),
        ("detail", pa.string()),
    ]
)


def gaps_table(rows: pa.Table, verdicts: Mapping[str, Verdict]) -> pa.Table:
    """Return what bands are missing of the objects that are cut, ordered by geometry, row and band."""
    ids = rows["object_id"].to_pylist()
    found = [
        (ids[row], geometry, band, reason.value, detail)
        for geometry, verdict in sorted(verdicts.items())
        for row, band, reason, detail in sorted(verdict.gaps, key=lambda gap: gap[0])
    ]
    columns = zip(*found, strict=True) if found else ([] for _ in GAPS_SCHEMA)
    return pa.table([list(column) for column in columns], schema=GAPS_SCHEMA)


def quarantine_table(rows: pa.Table, lost_by_geometry: dict[str, dict[int, tuple[Reason, str]]]) -> pa.Table:
    """Return the quarantine rows of the stage ``cut``, ordered by geometry and row."""
    columns: dict[str, list[object]] = {name: [] for name in QUARANTINE_SCHEMA.names}
    object_id, ra, dec = (rows.column(name).to_pylist() for name in ("object_id", "ra", "dec"))
    for geometry, lost in sorted(lost_by_geometry.items()):
        for row, (reason, detail) in sorted(lost.items()):
            values = (object_id[row], ra[row], dec[row], "cut", geometry, reason.value, detail)
            for name, value in zip(columns, values, strict=True):
                columns[name].append(value)
    return pa.table(columns, schema=QUARANTINE_SCHEMA)
