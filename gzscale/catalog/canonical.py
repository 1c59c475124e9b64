"""From a table's own columns to ours: identifiers, angles in degrees, sizes in arcsec, locators."""

from __future__ import annotations

import math
import re

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from gzscale.errors import CatalogError

__all__ = [
    "angle_factor",
    "from_numpy",
    "is_text",
    "plain",
    "scaled_column",
    "to_angles",
    "to_floats",
    "to_identifiers",
    "to_locators",
    "to_names",
    "to_reddenings",
    "to_sizes",
]

_DEGREES = ("deg", "degree", "degrees")
_POSITION_UNITS = {
    **dict.fromkeys(_DEGREES, 1.0),
    **dict.fromkeys(("rad", "radian", "radians"), 180.0 / math.pi),
    **dict.fromkeys(("hourangle", "hourangles"), 15.0),
}
_SIZE_UNITS = {
    **dict.fromkeys(_DEGREES, 3600.0),
    **dict.fromkeys(("arcmin", "arcminute", "arcminutes"), 60.0),
    **dict.fromkeys(("arcsec", "arcsecond", "arcseconds"), 1.0),
}
#: VOUnits 1.0 lets a number stand before a unit: astropy writes hour angles as ``15 deg``.
_SCALED = re.compile(r"(\d+\.?\d*)? *([A-Za-z]+)")
#: A size that is no angle, with what makes it one: ``0.39 * r_kronRad``.
_TIMES = re.compile(r"\s*(\d+\.?\d*|\.\d+)\s*\*\s*(\S.*?)\s*")
_INTEGER = r"^[+-]?\d{1,19}$"
_NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"
_FLOATING = r"^[+-]?(\d+\.\d*|\.\d+|\d+\.?\d*[eE][+-]?\d+)$"


def angle_factor(role: str, column: str, unit: str | None) -> float:
    """Return what a column's numbers are multiplied with: to degrees, or to arcsec for a size.

    Parameters
    ----------
    role
        ``ra``, ``dec`` or ``size``.
    column
        The table's name for it, for the message.
    unit
        As the file states it; None where the file states none: then the column is
        taken to be in degrees, or in arcsec for a size.

    Raises
    ------
    CatalogError
        If the stated unit is not one that is converted.
    """
    if unit is None or not unit.strip():
        return 1.0
    known = _SIZE_UNITS if role == "size" else _POSITION_UNITS
    scaled = _SCALED.fullmatch(unit.strip())
    factor = known.get(scaled[2].lower()) if scaled else None
    if scaled is None or factor is None:
        choices = "arcsec, arcmin or deg" if role == "size" else "deg, rad or hourangle"
        raise CatalogError(
            f"column {column!r} (as {role}) is in {unit!r}; {role} must be in {choices}: "
            "convert the column, or map another one in catalog.columns"
        )
    return factor * float(scaled[1] or 1)


def scaled_column(text: str) -> tuple[str, float | None]:
    """Split ``0.39 * r_kronRad`` into the column's name and the number; None without one.

    The number turns the column into arcsec, whatever unit the file states: a radius in pixels, or one of
    another kind.
    """
    match = _TIMES.fullmatch(text)
    return (match[2], float(match[1])) if match else (text, None)


def from_numpy(values: NDArray[np.generic], missing: NDArray[np.bool_] | None = None) -> pa.Array:
    """Make an Arrow array of a NumPy column of any byte order; bytes become text without padding.

    Parameters
    ----------
    values
        Shape (n,).
    missing
        Shape (n,); True where there is no value.
    """
    if values.dtype.kind == "S":
        values = np.char.decode(values.astype("S"), "ascii", "replace")
    if values.dtype.kind == "U":
        values = np.char.strip(values.astype("U"))
        missing = (values == "") if missing is None else (missing | (values == ""))
        values = values.astype(object)
    elif not values.dtype.isnative:
        values = values.astype(values.dtype.newbyteorder("="))
    return pa.array(values, mask=missing)


def is_text(kind: pa.DataType) -> bool:
    """Return whether an Arrow type holds text (as a dictionary, too)."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def to_identifiers(values: pa.Array, column: str) -> pa.Array:
    """Convert a column to int64 identifiers, exactly or not at all.

    Integers, text of digits, and floating-point numbers that still hold an integer
    exactly (below 2**53, or 2**24 in single precision) are accepted. Missing values and
    text that is no integer become null.

    Raises
    ------
    CatalogError
        If identifiers are floating-point numbers that have lost digits or hold fractions, exceed
        2**63 - 1, or are of another type.
    """
    values = plain(values)
    kind = values.type
    if kind == pa.int64():
        return values
    if pa.types.is_integer(kind):
        return _cast_identifiers(values, column)
    if pa.types.is_floating(kind):
        return _identifiers_of_floats(values, column)
    if is_text(kind):
        return _identifiers_of_text(values, column)
    if pa.types.is_decimal(kind):
        return _cast_identifiers(values, column)
    if pa.types.is_null(kind):
        return pa.nulls(len(values), pa.int64())
    raise CatalogError(f"column {column!r} (as object_id) has type {kind}; identifiers are integers")


def to_names(values: pa.Array, column: str) -> pa.Array:
    """Convert a column of identifiers of any kind to text, exactly or not at all.

    Whole numbers that were written as floating-point ones are taken for the integers that they are.
    Blank text and NaN become null.

    Raises
    ------
    CatalogError
        If floating-point numbers, or text of such, have lost digits of the identifier.
    """
    values = plain(values)
    if pa.types.is_floating(values.type):
        return _identifiers_of_floats(values, column).cast(pa.string())
    names = pc.utf8_trim_whitespace(values.cast(pa.string()))
    names = pc.if_else(pc.equal(names, ""), None, names)
    floating = pc.fill_null(pc.match_substring_regex(names, _FLOATING), False)
    if not pc.any(floating).as_py():
        return names
    numbers = pc.if_else(floating, names, None).cast(pa.float64())
    largest = pc.max(pc.abs(numbers)).as_py()
    if largest >= 2.0**53:
        raise CatalogError(_lost(column, f"{largest:.17g}"))
    whole = pc.fill_null(pc.equal(numbers, pc.floor(numbers)), False)
    integers = pc.if_else(whole, numbers, None).cast(pa.int64()).cast(pa.string())
    return pc.if_else(whole, integers, names)


def to_angles(values: pa.Array, column: str, factor: float) -> pa.Array:
    """Convert a column to float64, times ``factor``; text that is no number becomes null."""
    numbers = to_floats(values, column)
    return numbers if factor == 1.0 else pc.multiply(numbers, factor)


def to_sizes(values: pa.Array, column: str, factor: float) -> pa.Array:
    """Convert a column to float32 arcsec; NaN and text that is no number become null."""
    numbers = to_angles(values, column, factor)
    return pc.if_else(pc.is_nan(numbers), None, numbers).cast(pa.float32(), safe=False)


def to_reddenings(values: pa.Array, column: str) -> pa.Array:
    """Convert a column of E(B-V) to float32 magnitudes; what is no number from 0 to 100 becomes null."""
    numbers = to_floats(values, column)
    usable = pc.and_(pc.greater_equal(numbers, 0.0), pc.less_equal(numbers, 100.0))
    return pc.if_else(pc.fill_null(usable, False), numbers, None).cast(pa.float32(), safe=False)


def to_locators(values: pa.Array, column: str) -> pa.Array:
    """Convert a column (run, camcol, field) to int32; what is no such number becomes null."""
    numbers = to_floats(values, column)
    whole = pc.and_(pc.equal(numbers, pc.floor(numbers)), pc.less_equal(pc.abs(numbers), 2.0**31 - 1))
    return pc.if_else(pc.fill_null(whole, False), numbers, None).cast(pa.int32())


def plain(values: pa.Array) -> pa.Array:
    """Undo what a column's encoding adds: chunks, dictionaries, other layouts of text."""
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    if is_text(values.type) and values.type != pa.string():
        values = values.cast(pa.string())
    return values


def to_floats(values: pa.Array, column: str) -> pa.Array:
    """Return float64; text that is no number becomes null.

    Raises
    ------
    CatalogError
        If the column holds neither numbers nor text.
    """
    values = plain(values)
    kind = values.type
    if is_text(kind):
        trimmed = pc.utf8_trim_whitespace(values)
        try:
            return trimmed.cast(pa.float64())
        except pa.ArrowInvalid:
            number = pc.match_substring_regex(trimmed, _NUMBER)
            return pc.if_else(number, trimmed, None).cast(pa.float64())
    if pa.types.is_boolean(kind) or not (
        pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_decimal(kind)
        or pa.types.is_null(kind)
    ):
        raise CatalogError(f"column {column!r} has type {kind}; numbers are needed")
    return values.cast(pa.float64(), safe=False)


def _cast_identifiers(values: pa.Array, column: str) -> pa.Array:
    try:
        return values.cast(pa.int64())
    except pa.ArrowInvalid as error:
        raise CatalogError(
            f"column {column!r} (as object_id): largest value {pc.max(values).as_py()} is not an integer "
            "below 2**63; renumber the objects, or map another column"
        ) from error


def _identifiers_of_floats(values: pa.Array, column: str) -> pa.Array:
    limit = 2.0**53 if values.type == pa.float64() else 2.0**24
    values = values.cast(pa.float64())
    values = pc.if_else(pc.is_nan(values), None, values)
    largest = pc.max(pc.abs(values)).as_py()
    if largest is not None and largest >= limit:
        raise CatalogError(_lost(column, f"{largest:.17g}"))
    fractional = pc.filter(values, pc.not_equal(values, pc.floor(values)))
    if len(fractional):
        raise CatalogError(
            f"column {column!r} (as object_id) holds {fractional[0].as_py()!r}; identifiers are integers"
        )
    return values.cast(pa.int64())


def _identifiers_of_text(values: pa.Array, column: str) -> pa.Array:
    trimmed = pc.utf8_trim_whitespace(values)
    try:
        return trimmed.cast(pa.int64())
    except pa.ArrowInvalid:
        pass
    floating = pc.filter(trimmed, pc.fill_null(pc.match_substring_regex(trimmed, _FLOATING), False))
    if len(floating):
        raise CatalogError(_lost(column, floating[0].as_py()))
    integer = pc.match_substring_regex(trimmed, _INTEGER)
    try:
        return pc.utf8_ltrim(pc.if_else(integer, trimmed, None), characters="+").cast(pa.int64())
    except pa.ArrowInvalid as error:
        raise CatalogError(
            f"column {column!r} (as object_id): {error}; identifiers must be below 2**63"
        ) from error


def _lost(column: str, value: str) -> str:
    return (
        f"column {column!r} (as object_id) holds {value}, a floating-point number that has lost digits of "
        "the identifier; export the column as integers or as text"
    )
