"""The planes of a coadd file: image, mask and variance, whole or only where they are wanted."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from astropy.io import fits
from isal import igzip_lib
from numpy.typing import NDArray

from gzscale.errors import ImageError, Reason
from gzscale.surveys.fitsfile import Hdu, read_fits
from gzscale.surveys.stored import FileBytes, as_file
from gzscale.surveys.tiles import TileTable, decode_tiles, tile_table

__all__ = ["PLANES", "Planes", "Window", "mask_bits", "open_planes", "windows_of"]

#: Extensions of an exposure, in the order in which they are written.
PLANES = ("IMAGE", "MASK", "VARIANCE")
#: Pixels of a plane at most: a patch has 3,400 x 3,400 (DP1) to 4,200 x 4,200 (DC2).
MAX_PIXELS = 100_000_000
#: Bytes that all extensions may have.
MAX_BYTES = 4_000_000_000
#: Primary header and planes; what follows (PSF, inputs, transmission curves) is not read.
_HDUS = 4
#: Share of a plane from which it is decoded whole: tiles that overlap windows come on top of them.
WHOLE_FROM = 0.3

#: Rows that are decoded and calibrated while they are in a cache.
_BLOCK_ROWS = 64

Window = tuple[slice, slice]


@dataclass(frozen=True, slots=True)
class Planes:
    """A coadd file whose structure is checked and whose pixels are not decoded yet.

    Attributes
    ----------
    name
        Of the file, for messages.
    primary
        The primary header: what holds for all planes.
    headers
        By plane, as of an uncompressed image.
    shape
        (ny, nx) of each plane.
    tile_rows
        Rows of a compressed tile by plane, 1 where it is not compressed.
    units
        By plane: the extension's bytes, which hold its pixels or tiles.
    tables
        By plane: where its tiles are; None without tiles, or if they are coded in a rare way.
    hdus
        Planes that are compressed, or coded in a rare way, as astropy has opened them.
    """

    name: str
    primary: fits.Header
    headers: Mapping[str, fits.Header]
    shape: tuple[int, int]
    tile_rows: Mapping[str, int]
    units: Mapping[str, Hdu]
    tables: Mapping[str, TileTable | None]
    hdus: Mapping[str, Any]

    def blocks(self) -> list[slice]:
        """Return spans of rows that no tile crosses, in which the planes can be read one after the other."""
        step = math.lcm(*self.tile_rows.values())
        step *= -(-_BLOCK_ROWS // step)
        return [slice(row, min(row + step, self.shape[0])) for row in range(0, self.shape[0], step)]

    def read(self, plane: str, windows: Sequence[Window] | None, rows: slice) -> NDArray[Any]:
        """Decode one of the `blocks` of a plane, or the windows in it; elsewhere it is NaN, of integers 0.

        Raises
        ------
        ImageError
            CHECKSUM if the CRC-32 of a gzip tile is another, BAD_IMAGE if one cannot be decompressed.
        """
        clipped = None if windows is None else _clipped(windows, rows)
        try:
            pixels = _native(self._pixels(plane, clipped, rows))
        except ImageError:
            raise
        except Exception as error:
            # zlib, Rice, table and scaling errors each have a type of their own.
            raise self._undecodable(plane, error) from error
        if clipped is None:
            return pixels
        block = np.full(pixels.shape, np.nan if pixels.dtype.kind == "f" else 0, pixels.dtype)
        for window in clipped:
            block[window] = pixels[window]
        return block

    def strips(self, plane: str, rows: Iterable[int], height: int) -> list[NDArray[Any]]:
        """Decode strips of ``height`` rows from some rows on, from one edge of the plane to the other."""
        ny, step = self.shape[0], self.tile_rows[plane]
        found: list[NDArray[Any]] = []
        around, pixels = slice(0, 0), np.empty((0, 0))
        for row in rows:
            stop = min(row + height, ny)
            # No more than the rows of whole tiles: an array of the plane's size would be touched all over.
            wanted = slice(row // step * step, min(-(-stop // step) * step, ny))
            if wanted != around:
                try:
                    around, pixels = wanted, self._pixels(plane, None, wanted)
                except ImageError:
                    raise
                except Exception as error:
                    raise self._undecodable(plane, error) from error
            found.append(_native(pixels[row - around.start : stop - around.start]))
        return found

    def _pixels(self, plane: str, windows: Sequence[Window] | None, rows: slice) -> NDArray[Any]:
        """Return a block of rows in any byte order; outside the windows undefined."""
        table = self.tables[plane]
        if table is not None:
            return decode_tiles(table.part(rows), windows)
        kind = _plain(self.units[plane])
        if kind is None:
            return np.asarray(self.hdus[plane].section[rows])
        width = kind.itemsize * self.shape[1]
        data = self.units[plane].part(rows.start * width, rows.stop * width)
        return np.frombuffer(data, kind).reshape(-1, self.shape[1])

    def _undecodable(self, plane: str, error: Exception) -> ImageError:
        # Of gzip tiles each has a CRC-32 of its own.
        damaged = isinstance(error, igzip_lib.IsalError | zlib.error) and "checksum" in str(error).lower()
        return ImageError(
            Reason.CHECKSUM if damaged else Reason.BAD_IMAGE,
            f"{self.name}: plane {plane} cannot be decoded ({type(error).__name__}: {error}); "
            "fetch the file again",
        )


def open_planes(stored: bytes | FileBytes, name: str) -> Planes:
    """Check the structure and the checksums of a coadd file, and find its planes.

    Parameters
    ----------
    stored
        The file as it is stored.
    name
        Of the file, for messages.

    Raises
    ------
    ImageError
        As `gzscale.surveys.fitsfile.read_fits`; CHECKSUM where the bytes of a plane (its compressed tiles)
        do not add up to its DATASUM, if it states one: without it damage to Rice tiles cannot be told;
        BAD_IMAGE if a plane is missing or they differ in shape; OVERSIZED_IMAGE.

    References
    ----------
    FITS Standard 4.0, section 10 (tiled image compression).
    """
    units = read_fits(stored, name, MAX_PIXELS, MAX_BYTES, _HDUS)
    headers = {str(unit.header.get("EXTNAME", "")).strip().upper(): unit.header for unit in units[1:]}
    missing = [plane for plane in PLANES if plane not in headers]
    if missing:
        raise ImageError(
            Reason.BAD_IMAGE,
            f"{name}: no extension {', '.join(missing)} among the first {_HDUS - 1}; a coadd has "
            f"{', '.join(PLANES)}. Check survey.options.dataset_type",
        )
    shapes = {plane: _shape(headers[plane], f"{name}[{plane}]") for plane in PLANES}
    if len(set(shapes.values())) > 1:
        raise ImageError(Reason.BAD_IMAGE, f"{name}: planes of different shapes {shapes}; fetch it again")
    try:
        stored_as = dict(zip(headers, units[1:], strict=True))
        coded = [plane for plane in PLANES if _plain(stored_as[plane]) is None]
        opened = fits.open(as_file(stored), memmap=False, lazy_load_hdus=True) if coded else None
        hdus = {plane: opened[plane] for plane in coded} if opened is not None else {}
        found = {plane: hdus[plane].header if plane in hdus else headers[plane] for plane in PLANES}
        tables = {plane: tile_table(stored_as[plane], shapes[plane]) for plane in PLANES}
    except ImageError:
        raise
    except Exception as error:
        raise ImageError(
            Reason.BAD_IMAGE,
            f"{name}: unreadable extension ({type(error).__name__}: {error}); fetch it again",
        ) from error
    tile_rows = {plane: int(headers[plane].get("ZTILE2", 1)) for plane in PLANES}
    return Planes(name, units[0].header, found, shapes["IMAGE"], tile_rows, stored_as, tables, hdus)


def mask_bits(
    header: fits.Header, required: Sequence[str], others: Sequence[str], name: str
) -> dict[str, int]:
    """Return the bit number of mask planes by name, from a mask's ``MP_*`` cards.

    Parameters
    ----------
    header
        Of the mask.
    required, others
        Planes; the others are left out where the mask does not declare them.
    name
        Of the file, for messages.

    Raises
    ------
    ImageError
        BAD_IMAGE if a required plane is not declared.
    """
    bits = {key[3:]: value for key, value in header.items() if key.startswith("MP_")}
    found = {
        plane: bits[plane]
        for plane in (*required, *others)
        if isinstance(bits.get(plane), int) and 0 <= bits[plane] < 63
    }
    absent = [plane for plane in required if plane not in found]
    if absent:
        raise ImageError(
            Reason.BAD_IMAGE,
            f"{name}: its mask declares no plane {', '.join(absent)}; it has "
            f"{', '.join(sorted(bits)) or 'none'}. Check survey.options.blank and survey.options.flags",
        )
    return found


def windows_of(
    shape: tuple[int, int],
    cell: int,
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    reach: NDArray[np.float64],
) -> list[Window] | None:
    """Choose what to decode of a plane for some stamps: cells of a grid, or None for all of it.

    Parameters
    ----------
    shape
        (ny, nx) of the plane.
    cell
        Side of a cell in pixels.
    x, y
        0-based positions of the stamps' centres, shape (n,).
    reach
        Half their diagonals in pixels, shape (n,).

    Returns
    -------
    list of (rows, columns), or None
        Rectangles that hold every cell that a stamp touches. None where they come to `WHOLE_FROM` of the
        plane.
    """
    ny, nx = shape
    rows, columns = -(-ny // cell), -(-nx // cell)
    seen = np.isfinite(x) & np.isfinite(y)
    touched = np.zeros((rows, columns), dtype=bool)
    first_x, last_x = _cells(x[seen], reach[seen], cell, columns)
    first_y, last_y = _cells(y[seen], reach[seen], cell, rows)
    for left, right, bottom, top in zip(first_x, last_x, first_y, last_y, strict=True):
        touched[bottom : top + 1, left : right + 1] = True
    if touched.mean() >= WHOLE_FROM:
        return None
    windows = []
    for row in range(rows):
        edges = np.flatnonzero(np.diff(np.concatenate([[False], touched[row], [False]]).astype(np.int8)))
        for left, right in edges.reshape(-1, 2).tolist():
            windows.append(
                (slice(row * cell, min(ny, (row + 1) * cell)), slice(left * cell, min(nx, right * cell)))
            )
    return windows


def _cells(
    centre: NDArray[np.float64], reach: NDArray[np.float64], cell: int, count: int
) -> tuple[list[int], list[int]]:
    first = np.clip(np.floor((centre - reach) / cell), 0, count - 1).astype(int)
    last = np.clip(np.floor((centre + reach + 1) / cell), 0, count - 1).astype(int)
    return first.tolist(), last.tolist()


def _shape(header: fits.Header, name: str) -> tuple[int, int]:
    """Return the shape of an image, compressed or not, and refuse what is too large to decode."""
    prefix = "Z" if header.get("ZIMAGE") is True else ""
    naxis, nx, ny = (header.get(f"{prefix}{key}") for key in ("NAXIS", "NAXIS1", "NAXIS2"))
    if naxis != 2 or not isinstance(nx, int) or not isinstance(ny, int) or nx < 1 or ny < 1:
        raise ImageError(Reason.BAD_IMAGE, f"{name}: NAXIS {naxis}, {nx} x {ny} pixels; fetch it again")
    tile = [header.get(f"ZTILE{i}", 1) for i in (1, 2)] if prefix else [1, 1]
    if not all(isinstance(side, int) and side >= 1 for side in tile):
        raise ImageError(Reason.BAD_IMAGE, f"{name}: tiles of {tile[0]} x {tile[1]} pixels; fetch it again")
    if nx * ny > MAX_PIXELS or tile[0] * tile[1] > MAX_PIXELS:
        raise ImageError(
            Reason.OVERSIZED_IMAGE,
            f"{name}: the header claims {nx} x {ny} pixels in tiles of {tile[0]} x {tile[1]}; a coadd has at "
            f"most {MAX_PIXELS}. Fetch it again",
        )
    return ny, nx


def _clipped(windows: Sequence[Window], rows: slice) -> list[Window]:
    """Return the parts of windows that lie in some rows, counted from the first of these."""
    parts = [
        (slice(max(span.start, rows.start) - rows.start, min(span.stop, rows.stop) - rows.start), columns)
        for span, columns in windows
    ]
    return [(span, columns) for span, columns in parts if span.start < span.stop]


def _plain(unit: Hdu) -> np.dtype[Any] | None:
    """Return the type of uncompressed 32-bit pixels; None if they are compressed, scaled or of another."""
    header = unit.header
    kind = {-32: ">f4", 32: ">i4"}.get(header.get("BITPIX", 0))
    scaled = (header.get("BSCALE", 1), header.get("BZERO", 0)) != (1, 0) or "BLANK" in header
    return None if header.get("XTENSION") != "IMAGE" or kind is None or scaled else np.dtype(kind)


def _native(values: NDArray[Any]) -> NDArray[Any]:
    return values.astype(values.dtype.newbyteorder("="), copy=False)
