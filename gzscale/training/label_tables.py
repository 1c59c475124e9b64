"""Reads tables of votes: Galaxy Zoo 2's data releases, Kaggle's, and those in the same columns.

What is read, from CSV (also gzipped), FITS, VOTable or Parquet, a batch at a time:

- the 37 columns of the Kaggle challenge, ``Class1.1`` to ``Class11.6``, keyed by ``GalaxyID``;
- Galaxy Zoo 2's own (Willett et al. 2013; Hart et al. 2016): for each answer
  ``<answer>_weighted_fraction``, ``_fraction`` or ``_debiased``, conditional fractions, which are multiplied
  down the tree, or ``_count`` or ``_weight``, which are divided by the question's sum first; keyed by
  ``dr7objid`` or ``objid``, or by ``asset_id``. Where the table has ``_count``, it says how many answers
  were counted, whichever of the fractions are used; where it has ``_flag``, of whose clean samples the
  galaxy is one.

``gz2_filename_mapping.csv`` of the public image archive names the images: see `gzscale.training.mapping`.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from gzscale.catalog.canonical import to_floats
from gzscale.catalog.locate import locate_table
from gzscale.catalog.versions import to_flags
from gzscale.errors import CatalogError
from gzscale.models.votes import ANSWERS, KAGGLE_NAMES, QUESTIONS, asked, to_joint
from gzscale.training.labels import Flags, Labels, Refusal
from gzscale.training.mapping import SAMPLE, Mapping, batches, read_mapping, texts

__all__ = ["KINDS", "read_labels"]

#: What Galaxy Zoo 2's tables have of each answer, and votes are taken from; the endings of the columns.
KINDS = ("weighted_fraction", "fraction", "debiased", "count", "weight")
#: Those that are numbers of answers: of people, and of people weighted for their consistency.
_NUMBERS = ("count", "weight")
#: Columns that may name a galaxy, in the order in which they are looked for.
ID_COLUMNS = ("asset_id", "GalaxyID", "object_id", "dr7objid", "objid")
#: Columns that a mapping to images may be joined by.
_OBJECT_COLUMNS = ("dr7objid", "objid")
#: Columns that may hold the identifier of the survey's catalog, beside the name of the image.
_SURVEY_COLUMNS = ("object_id", *_OBJECT_COLUMNS)
#: Our names of what else a table may have -> its columns.
_OTHERS = {
    "volunteers": ("total_classifications",),
    "ra": ("ra", "RA"),
    "dec": ("dec", "DEC"),
    "redshift": ("redshift", "REDSHIFT", "z"),
}
#: How far the fractions of a question may be off their sum: the tables are rounded to 0.001.
TOLERANCE = 0.02
#: Largest share of volunteers who were asked a question of which no answer was counted: the weights of so
#: few may have come to nothing.
UNCOUNTED_SHARE = 0.1


@dataclass(frozen=True)
class _Layout:
    """Which columns of a table are what."""

    name: str
    object_name: str | None
    fractions: tuple[str, ...]
    kind: str
    others: dict[str, str]
    joined_by: tuple[str, ...]
    counts: tuple[str, ...]
    flags: tuple[str, ...]

    @property
    def columns(self) -> tuple[str, ...]:
        named = (self.name, *([self.object_name] if self.object_name else []), *self.joined_by)
        values = (*self.fractions, *self.counts, *self.flags, *self.others.values())
        return tuple(dict.fromkeys((*named, *values)))


def read_labels(
    path: str | Path, kind: str = "weighted_fraction", mapping: str | Path | None = None
) -> Labels:
    """Read a table of votes, in a memory of some 100 bytes a galaxy and 37 fractions.

    Parameters
    ----------
    path
        File or URL of the table.
    kind
        What the fractions of Galaxy Zoo 2's tables are taken from: one of `KINDS`.
    mapping
        Table ``objid``, ``sample``, ``asset_id`` that names the image of each galaxy; where both
        tables have ``sample``, it must agree too: see `gzscale.training.mapping.Mapping.find`.

    Returns
    -------
    Labels
        In the table's order. A question that nobody was asked is 0 in all its answers.

    Raises
    ------
    CatalogError
        If the table cannot be read, has no identifier or neither set of columns, or its identifiers are
        floating-point numbers that have lost digits.
    """
    if kind not in KINDS:
        raise CatalogError(f"kind of fractions {kind!r}: one of {', '.join(KINDS)}")
    parts: list[tuple[NDArray, ...]] = []
    names: list[str | Refusal] = []
    objects: list[str | None] = []
    assets = None if mapping is None else read_mapping(mapping)
    with tempfile.TemporaryDirectory(prefix="gzscale-labels-") as scratch:
        source = locate_table(str(path), "auto", Path(scratch))[2]
        layout = _layout(str(path), source.names, kind, assets is not None)
        for batch in batches(source, layout.columns):
            parts.append(_convert(batch, layout))
            names += _names(batch, layout, assets)
            if layout.object_name:
                objects += texts(batch, layout.object_name)
    if not parts:
        raise CatalogError(f"{path}: the table has 0 rows")
    joint, faults, volunteers, ra, dec, redshift, counted, flagged, unclear = (
        np.concatenate(part) for part in zip(*parts, strict=True)
    )
    reasons = _refusals(names, faults)
    good = np.flatnonzero(reasons == "")
    kept = tuple(str(names[i]) for i in good)
    refused = Counter(reasons[reasons != ""].tolist())
    refused_names = frozenset(str(names[i]) for i in np.flatnonzero(reasons) if type(names[i]) is str)
    return Labels(
        kept,
        joint[good],
        volunteers[good],
        ra[good],
        dec[good],
        redshift[good],
        refused,
        tuple(objects[i] for i in good) if objects else (),
        layout.name if assets is None else "asset_id",
        layout.kind,
        counted[good],
        Flags(flagged[good], int(unclear[good].sum())) if layout.flags else None,
        refused_names - set(kept),
        frozenset(name for i in np.flatnonzero(reasons) if objects and (name := objects[i])),
    )


def _layout(path: str, columns: Sequence[str], kind: str, mapped: bool) -> _Layout:
    present = set(columns)
    candidates = _OBJECT_COLUMNS if mapped else ID_COLUMNS
    name = next((column for column in candidates if column in present), None)
    if name is None:
        raise CatalogError(f"{path}: none of the identifiers {', '.join(candidates)} among its columns")
    others = {
        ours: next((column for column in theirs if column in present), "") for ours, theirs in _OTHERS.items()
    }
    others = {ours: column for ours, column in others.items() if column}
    beside = [column for column in _SURVEY_COLUMNS if column in present and (mapped or column != name)]
    object_name = beside[0] if beside else None
    joined_by = (SAMPLE,) if mapped and SAMPLE in present else ()
    released = tuple(f"{answer}_{kind}" for answer in ANSWERS)
    counts, flags = (
        beside if set(beside) <= present else ()
        for beside in (tuple(f"{answer}_{what}" for answer in ANSWERS) for what in ("count", "flag"))
    )
    for fractions, found in ((KAGGLE_NAMES, "joint"), (released, kind)):
        if set(fractions) <= present:
            return _Layout(name, object_name, fractions, found, others, joined_by, counts, flags)
    nearest = min((KAGGLE_NAMES, released), key=lambda wanted: len(set(wanted) - present))
    missing = [column for column in nearest if column not in present]
    raise CatalogError(
        f"{path}: neither {KAGGLE_NAMES[0]} to {KAGGLE_NAMES[-1]} nor Galaxy Zoo 2's columns ending in "
        f"_{kind}: of the nearer set {len(missing)} are missing, the first is {missing[0]!r}"
    )


def _names(batch: pa.RecordBatch, layout: _Layout, assets: Mapping | None) -> list[str | Refusal]:
    """Return the name of each galaxy's image, or why there is none."""
    names = texts(batch, layout.name)
    samples = texts(batch, SAMPLE) if layout.joined_by else [None] * len(names)
    found: list[str | Refusal] = []
    for name, sample in zip(names, samples, strict=True):
        if name is None:
            found.append(Refusal.MISSING_ID)
        else:
            found.append(name if assets is None else assets.find(name, sample))
    return found


def _convert(batch: pa.RecordBatch, layout: _Layout) -> tuple[NDArray, ...]:
    """Return joint fractions, the fault of each row, the other columns, and the answers counted."""
    given = np.stack([_numbers(batch, column) for column in layout.fractions], axis=1)
    faults = np.full(len(given), "", dtype="U16")
    if layout.kind == "debiased":
        given = _completed(given)
    faults[np.isnan(given).any(axis=1)] = Refusal.MISSING_FRACTION
    usable = np.nan_to_num(given)
    wrong = ((given < 0) | np.isinf(given)).any(axis=1)
    if layout.kind in _NUMBERS:
        usable = _normalised(np.maximum(usable, 0))
    if layout.kind == "joint":
        faults[(faults == "") & _off(usable, asked(usable))] = Refusal.BAD_SUM
        joint: NDArray[np.floating] = usable
    else:
        # Each debiased fraction was found by itself, and numbers have the sum that they have.
        if layout.kind not in ("debiased", *_NUMBERS):
            faults[(faults == "") & _off(usable, np.ones((len(usable), len(QUESTIONS))))] = Refusal.BAD_SUM
        joint = to_joint(_normalised(usable))
    if layout.kind != "debiased":
        faults[(faults == "") & _uncounted(joint)] = Refusal.BAD_SUM
    outside = wrong | (usable > 1 + 1e-6).any(axis=1)
    faults[outside & (faults != Refusal.MISSING_FRACTION)] = Refusal.BAD_FRACTION
    others = [
        _numbers(batch, layout.others[name]) if name in layout.others else np.full(len(given), np.nan)
        for name in _OTHERS
    ]
    volunteers, ra, dec, redshift = others
    # Tables write -999 for a position that is not known; some count right ascension from -180 degrees.
    off_sky = ~((ra >= -180) & (ra <= 360) & (np.abs(dec) <= 90))
    ra[ra < 0] += 360
    ra[off_sky] = dec[off_sky] = np.nan
    faults[(faults == "") & ((volunteers <= 0) | np.isinf(volunteers))] = Refusal.BAD_VOLUNTEERS
    return (
        joint.astype(np.float32),
        faults,
        volunteers.astype(np.float32),
        ra,
        dec,
        redshift.astype(np.float32),
        _counted(batch, layout),
        *_flagged(batch, layout),
    )


def _counted(batch: pa.RecordBatch, layout: _Layout) -> NDArray[np.float32]:
    """Return how many answers to each question the table counts, NaN where it does not say."""
    if not layout.counts:
        return np.full((batch.num_rows, len(QUESTIONS)), np.nan, np.float32)
    counts = np.stack([_numbers(batch, column) for column in layout.counts], axis=1)
    summed = [counts[:, question.answers].sum(axis=1) for question in QUESTIONS]
    total = np.stack(summed, axis=1).astype(np.float32)
    total[(counts < 0).any(axis=1)] = np.nan
    return total


def _flagged(batch: pa.RecordBatch, layout: _Layout) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Return of which clean samples each galaxy is one, and how many of its flags say neither yes nor no."""
    flagged = np.zeros((batch.num_rows, len(layout.flags)), bool)
    unclear = np.zeros(batch.num_rows, np.int64)
    for place, column in enumerate(layout.flags):
        values = batch.column(column)
        flags, known = to_flags(values, column)
        flagged[:, place] = flags.to_numpy(zero_copy_only=False)
        if pc.all(known).as_py():
            continue
        missing = pc.is_null(values, nan_is_null=True)
        unclear += ~pc.or_(known, missing).to_numpy(zero_copy_only=False)
    return flagged, unclear


def _numbers(batch: pa.RecordBatch, column: str) -> NDArray[np.float64]:
    return to_floats(batch.column(column), column).to_numpy(zero_copy_only=False).astype(np.float64)


def _off(values: NDArray[np.floating], shares: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Tell where a question's answers sum to neither the share that was asked it nor 0."""
    off = np.zeros(len(values), bool)
    for index, question in enumerate(QUESTIONS):
        total = values[:, question.answers].sum(axis=1)
        off |= (np.abs(total - shares[:, index]) > TOLERANCE) & (total > TOLERANCE)
    return off


def _uncounted(joint: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Tell where a question has no answer though more than a few were asked it."""
    shares = asked(joint)
    found = np.zeros(len(joint), bool)
    for index, question in enumerate(QUESTIONS):
        none = joint[:, question.answers].sum(axis=1) <= TOLERANCE * shares[:, index]
        found |= none & (shares[:, index] > UNCOUNTED_SHARE)
    return found


def _completed(given: NDArray[np.float64]) -> NDArray[np.float64]:
    """Give an answer that alone has no number what the others of its question leave.

    Debiased fractions have such holes where the correction of one answer came to nothing.
    """
    completed = given.copy()
    for question in QUESTIONS:
        values = completed[:, question.answers]
        hole = np.isnan(values)
        alone = hole & (hole.sum(axis=1, keepdims=True) == 1)
        rest = np.clip(1 - np.nansum(values, axis=1, keepdims=True), 0, 1)
        completed[:, question.answers] = np.where(alone, rest, values)
    return completed


def _normalised(conditional: NDArray[np.float64]) -> NDArray[np.float64]:
    """Make the answers of each question sum to 1; all are 0 where no answer was counted.

    The table has such questions even where the answer that leads there has votes: the
    weights of those few who were asked came to nothing. It also rounds to 0.001.
    """
    result = conditional.copy()
    for question in QUESTIONS:
        total = conditional[:, question.answers].sum(axis=1, keepdims=True)
        result[:, question.answers] /= np.where(total > 0, total, 1)
    return result


def _refusals(names: list[str | Refusal], faults: NDArray[np.str_]) -> NDArray[np.str_]:
    """Return the reason for which each row is refused, empty for a good one."""
    reasons = faults.copy()
    seen: set[str] = set()
    for row, name in enumerate(names):
        if isinstance(name, Refusal):
            reasons[row] = name
        elif name in seen:
            reasons[row] = Refusal.DUPLICATE_ID
        elif reasons[row] == "":
            seen.add(name)
    return reasons
