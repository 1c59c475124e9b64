"""The calibration that afw keeps as tables at the end of an exposure's file: what a unit of its pixels is."""

from __future__ import annotations

import math
from typing import Any

from astropy.io import fits

from gzscale.errors import ImageError, Reason
from gzscale.surveys.stored import FileBytes, as_file

__all__ = ["NANOJANSKY_ZERO_POINT", "archived_zero_point"]

#: AB magnitude of one nJy.
NANOJANSKY_ZERO_POINT = 31.4
#: Bytes of a table of the archive that is read; an index has some hundred rows, a PhotoCalib one.
MAX_TABLE_BYTES = 10_000_000
#: Since this version a PhotoCalib is in nJy a count; it was in maggies.
_FIRST_VERSION = 1
#: Units that need no calibration.
_FLUX = frozenset({"njy", "nanomaggy", "nmgy"})
#: Relative difference of two calibrations in one file that is an error.
_TOLERANCE = 0.01


def archived_zero_point(
    stored: bytes | FileBytes, primary: fits.Header, image: fits.Header, name: str
) -> float | None:
    """Return the AB magnitude of one unit of the pixels that an exposure's PhotoCalib says.

    The primary header has the number of the archive's index HDU, counted from 1, in ``AR_HDU`` and the
    PhotoCalib's identifier in the archive in ``PHOTOCALIB_ID``; the index says in which of the tables
    after it, and in which row, that is. A calibration that varies over the image is refused, not evaluated.

    Parameters
    ----------
    stored
        The file as it is stored.
    primary, image
        The headers of its primary HDU and of its image.
    name
        Of the file, for messages.

    Returns
    -------
    float or None
        None where ``BUNIT`` is a unit of flux, so that nothing is left to do, or no PhotoCalib is named.

    Raises
    ------
    ImageError
        BAD_UNIT if it cannot be used: it varies, is not positive, is of a version in other units, or
        contradicts ``FLUXMAG0``; BAD_IMAGE if it is not where the header says.

    References
    ----------
    lsst.afw (github.com/lsst/afw): image/PhotoCalib.cc, image/ExposureInfo.cc, table/io/OutputArchive.cc and
    table/io/FitsWriter.cc.
    """
    identifier, number = (_integer(primary.get(key)) for key in ("PHOTOCALIB_ID", "AR_HDU"))
    unit = str(image.get("BUNIT") or primary.get("BUNIT") or "").strip().lower()
    if not identifier or unit in _FLUX:
        return None
    try:
        with fits.open(as_file(stored), memmap=False, lazy_load_hdus=True) as hdus:
            table, row = _find(hdus, number - 1, identifier, name)
            constant = _flag(table, row, "isConstant")
            record = table.data[row]
            version = int(record["version"]) if "version" in table.columns.names else 0
            mean = float(record["calibrationMean"])
    except ImageError:
        raise
    except Exception as error:
        # What astropy raises of damaged tables has many types.
        raise ImageError(
            Reason.BAD_IMAGE,
            f"{name}: its PhotoCalib {identifier} is not in the archive that AR_HDU {number} names "
            f"({type(error).__name__}: {error}); fetch the file again",
        ) from error
    if version < _FIRST_VERSION:
        raise _unusable(name, f"is of version {version}, in maggies; this reads {_FIRST_VERSION} and later")
    if not constant:
        raise _unusable(name, f"varies over the image (mean {mean:g} nJy a count)")
    if not (math.isfinite(mean) and mean > 0):
        raise _unusable(name, f"has the mean {mean!r} nJy a count")
    zero_point = NANOJANSKY_ZERO_POINT - 2.5 * math.log10(mean)
    _check_against_header(primary, zero_point, name)
    return zero_point


def _find(hdus: fits.HDUList, place: int, identifier: int, name: str) -> tuple[Any, int]:
    """Return the table and the row of an object of the archive."""
    index = _table(hdus[place], name)
    rows = [row for row in index if row["id"] == identifier and row["name"].strip() == "PhotoCalib"]
    if len(rows) != 1 or rows[0]["nrows"] != 1:
        raise ValueError(f"the index has {len(rows)} such objects")
    table = hdus[place + int(rows[0]["cat.archive"])]
    _table(table, name)
    return table, int(rows[0]["row0"])


def _table(hdu: Any, name: str) -> Any:
    """Return a table's rows, if it is not too large to be one of an archive."""
    size = int(hdu.header["NAXIS1"]) * int(hdu.header["NAXIS2"]) + int(hdu.header.get("PCOUNT", 0))
    if size > MAX_TABLE_BYTES:
        raise ImageError(
            Reason.OVERSIZED_IMAGE,
            f"{name}: its archive has a table of {size} bytes; at most {MAX_TABLE_BYTES} are read",
        )
    return hdu.data


def _flag(table: Any, row: int, name: str) -> bool:
    """Return a flag of a row: all flags of a table are the bits of one column, named by ``TFLAGn``."""
    bits = table.data["flags"][row]
    numbers = [bit for bit in range(len(bits)) if table.header.get(f"TFLAG{bit + 1}") == name]
    if len(numbers) != 1:
        raise ValueError(f"the table has no flag {name}")
    return bool(bits[numbers[0]])


def _check_against_header(primary: fits.Header, zero_point: float, name: str) -> None:
    counts = primary.get("FLUXMAG0")
    if not isinstance(counts, int | float) or isinstance(counts, bool) or not counts > 0:
        return
    told = 2.5 * math.log10(counts)
    if abs(10 ** (0.4 * (told - zero_point)) - 1) > _TOLERANCE:
        raise _unusable(name, f"has the zero point {zero_point:.4f}, and FLUXMAG0 {counts:g} has {told:.4f}")


def _unusable(name: str, what: str) -> ImageError:
    return ImageError(
        Reason.BAD_UNIT,
        f"{name}: its PhotoCalib {what}; calibrate the coadd to nJy (PhotoCalib.calibrateImage), register "
        "that, and name its dataset type in survey.options.dataset_type",
    )


def _integer(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0
