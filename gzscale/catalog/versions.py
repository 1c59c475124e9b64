"""From a table's own columns to ours, of a catalog that is given in deltas: versions, removals."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from gzscale.catalog.canonical import is_text, plain, to_floats
from gzscale.errors import CatalogError

__all__ = ["to_flags", "to_removals", "to_versions"]

_INTEGER = r"^[+-]?\d{1,18}$"
_TIME = r"^\d{4}-\d{2}-\d{2}([ T]\d{2}:\d{2}(:\d{2}(\.\d{1,6})?)?)?Z?$"
_WORDS = {"true": True, "t": True, "false": False, "f": False}


def to_versions(values: pa.Array, column: str) -> pa.Array:
    """Convert a column to int64 versions, of which the largest is the newest.

    Integers are taken as they are; timestamps, dates and ISO 8601 text become microseconds
    since 1970 (UTC where no time zone is stated). Missing values and text that is neither become null.

    Raises
    ------
    CatalogError
        If the column holds fractions, integers of 2**63 and above, or another type.
    """
    values = plain(values)
    kind = values.type
    if is_text(kind):
        return _versions_of_text(values)
    if pa.types.is_temporal(kind) and not pa.types.is_time(kind) and not pa.types.is_duration(kind):
        zone = kind.tz if pa.types.is_timestamp(kind) else None
        return values.cast(pa.timestamp("us", zone), safe=False).cast(pa.int64())
    if pa.types.is_floating(kind):
        values = pc.if_else(pc.is_nan(values), None, values)
    elif not (pa.types.is_integer(kind) or pa.types.is_decimal(kind) or pa.types.is_null(kind)):
        raise CatalogError(f"column {column!r} (as version) has type {kind}; integers or times are needed")
    try:
        return values.cast(pa.int64())
    except pa.ArrowInvalid as error:
        raise CatalogError(
            f"column {column!r} (as version): {error}; versions are integers below 2**63, or times: "
            "convert the column, for example days to whole seconds"
        ) from error


def to_removals(values: pa.Array, column: str) -> pa.Array:
    """Convert a column to booleans; a missing value is False, since a removal is said outright.

    Raises
    ------
    CatalogError
        If there is anything but booleans, 0 and 1, or ``true`` and ``false`` as text; see `to_flags`.
    """
    values = plain(values)
    flags, known = to_flags(values, column)
    strange = pc.filter(values, pc.and_(pc.is_valid(values), pc.invert(known)))
    if len(strange):
        raise CatalogError(
            f"column {column!r} (as removed) holds {strange[0].as_py()!r}; true, false, 1 or 0 is needed"
        )
    return flags


def to_flags(values: pa.Array, column: str) -> tuple[pa.Array, pa.Array]:
    """Convert a column to booleans: booleans, numbers 0 and 1, or ``true`` and ``false`` as text.

    Logicals of FITS are read as bytes that hold the letters T and F (FITS 4.0, Section 7.3.3.2).

    Returns
    -------
    flags : pa.Array
        False also where there is no value, or none of these.
    known : pa.Array
        Which are values of these.

    Raises
    ------
    CatalogError
        If the column holds neither booleans, numbers nor text.
    """
    values = plain(values)
    if pa.types.is_boolean(values.type):
        return values.fill_null(False), pc.is_valid(values)
    numbers = to_floats(values, column)
    if pa.types.is_int8(values.type):
        numbers = pc.if_else(pc.equal(numbers, ord("T")), 1.0, numbers)
        numbers = pc.if_else(pc.equal(numbers, ord("F")), 0.0, numbers)
    flags, off = (pc.fill_null(pc.equal(numbers, number), False) for number in (1.0, 0.0))
    if is_text(values.type) and numbers.null_count > values.null_count:
        words = pc.utf8_lower(pc.utf8_trim_whitespace(values))
        flags, off = (
            pc.or_(known, pc.is_in(words, pa.array([word for word, flag in _WORDS.items() if flag is said])))
            for known, said in ((flags, True), (off, False))
        )
    return flags, pc.or_(flags, off)


def _versions_of_text(values: pa.Array) -> pa.Array:
    trimmed = pc.utf8_trim_whitespace(values)
    integers = pc.if_else(pc.match_substring_regex(trimmed, _INTEGER), trimmed, None)
    numbers = pc.utf8_ltrim(integers, characters="+").cast(pa.int64())
    bare = pc.utf8_rtrim(pc.if_else(pc.match_substring_regex(trimmed, _TIME), trimmed, None), characters="Z")
    return pc.coalesce(numbers, _times(bare))


def _times(texts: pa.Array) -> pa.Array:
    """Microseconds since 1970 of ISO 8601 text; null where there is no such day or hour."""
    try:
        return texts.cast(pa.timestamp("us")).cast(pa.int64())
    except pa.ArrowInvalid:
        return pa.array([_time(text) for text in texts.to_pylist()], pa.int64())


def _time(text: str | None) -> int | None:
    try:
        one = pa.array([text], pa.string()).cast(pa.timestamp("us")).cast(pa.int64())
    except pa.ArrowInvalid:
        return None
    value: int | None = one[0].as_py()
    return value
