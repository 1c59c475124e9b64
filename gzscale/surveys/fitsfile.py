"""Bounded, safe reading of FITS files, plain or bzip2-compressed, from bytes that may be damaged.

Nothing is allocated on the word of a header alone, and what is wrong with a
file ends in an `ImageError` that says so; never in half an image.
"""

from __future__ import annotations

import bz2
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from astropy.io import fits

from gzscale.errors import ImageError, Reason
from gzscale.surveys.stored import FileBytes

__all__ = ["Hdu", "integer_card", "read_first_header", "read_fits"]

BLOCK = 2880
#: A frame's header has 4 blocks; nobody's needs a hundred.
MAX_HEADER_BLOCKS = 100
#: What the extensions of an image may unpack to beside its pixels.
MAX_EXTENSION_BYTES = 8_000_000
MAX_HDUS = 16
#: One byte more than a bzip2 block without long runs unpacks to, so that its end is reached; and than any
#: block does (runs of 259 equal bytes are stored as 5).
PACKED_BLOCK, MAX_PACKED_BLOCK = 900_001, 46_620_001
#: First piece of a compressed file that holds a frame's header; a bzip2 block of a frame takes about 0.3 MB.
FIRST_PIECE = 400_000
#: A bzip2 block unpacks to 900 kB and never needs more than a little over that.
LAST_PIECE = 1_600_000

#: Bytes that are added up at a time, whole words: they stay in a cache.
SUMMED = 1 << 20


@dataclass(frozen=True, slots=True)
class Hdu:
    """One header and its data unit, undecoded, without padding.

    Attributes
    ----------
    header
        As it stands.
    content
        What the unit is a part of: the whole file, unpacked.
    start, size
        Where the unit begins in it, and its bytes.
    """

    header: fits.Header
    content: memoryview | FileBytes
    start: int
    size: int

    @property
    def data(self) -> memoryview | bytes:
        """All of the unit."""
        return self.part(0, self.size)

    def part(self, start: int, stop: int) -> memoryview | bytes:
        """Return some bytes of the unit; of a file that is not in memory they are read."""
        return self.content[self.start + start : self.start + min(stop, self.size)]


class _Unpacker:
    """Unpacks a file's bytes no further than it is told to."""

    def __init__(self, stored: bytes | FileBytes, name: str) -> None:
        self.name = name
        self.packed = stored[:3] == b"BZh"
        self.complete = not self.packed
        self.out = bytearray() if self.packed else memoryview(stored) if isinstance(stored, bytes) else stored
        self._pending = stored[:] if self.packed else b""
        self._stream: Any = bz2.BZ2Decompressor() if self.packed else None

    def fill(self, wanted: int) -> None:
        """Unpack until at least ``wanted`` bytes are there, or the stored bytes end."""
        while not self.complete and len(self.out) < wanted:
            try:
                # No more at once than a piece: what is unpacked is in memory twice until it is added.
                piece = self._stream.decompress(self._pending, min(wanted - len(self.out), PACKED_BLOCK))
            except (OSError, ValueError) as error:
                raise ImageError(
                    Reason.CHECKSUM,
                    f"{self.name}: bzip2 data damaged after {len(self.out)} unpacked bytes ({error}); "
                    "fetch the file again",
                ) from error
            self.out += piece
            self._pending = b""
            if self._stream.eof:
                self._next_stream()
            elif not piece and self._stream.needs_input:
                return

    def _next_stream(self) -> None:
        # Parallel compressors write several streams one after the other.
        rest = self._stream.unused_data
        self.complete = rest[:3] != b"BZh"
        if not self.complete:
            self._stream, self._pending = bz2.BZ2Decompressor(), rest


def read_fits(
    stored: bytes | FileBytes,
    name: str,
    max_pixels: int,
    max_extension: int = MAX_EXTENSION_BYTES,
    hdus_read: int = MAX_HDUS,
) -> list[Hdu]:
    """Split a FITS file into its header and data units.

    Parameters
    ----------
    stored
        The file as it is stored, plain or bzip2.
    name
        Of the file, for messages.
    max_pixels
        Pixels that the primary image may have; refused before anything is unpacked beyond the header.
    max_extension
        Bytes that the extensions may have together, and elements of each.
    hdus_read
        How many HDUs: what follows is neither read nor checked.

    Returns
    -------
    list[Hdu]
        The primary first.

    Raises
    ------
    ImageError
        EMPTY_IMAGE, NOT_FITS, TRUNCATED_IMAGE, CHECKSUM (bzip2's own, or DATASUM), OVERSIZED_IMAGE or
        BAD_IMAGE.

    References
    ----------
    FITS Standard 4.0, sections 3.1 to 3.5 and 4.4.1.
    """
    file = _Unpacker(stored, name)
    try:
        header, start = _header_at(file, 0, b"SIMPLE  =")
        size = _data_bytes(header, name, max_pixels, max_extension)
    except ImageError:
        # Bad bzip2 data may look like anything before the checksum of their block is reached.
        file.fill(MAX_PACKED_BLOCK)
        if not file.complete and len(file.out) < MAX_PACKED_BLOCK:
            raise _truncated(file, MAX_PACKED_BLOCK) from None
        raise
    limit = start + _padded(size) + max_extension
    file.fill(limit + 1)
    if len(file.out) > limit:
        raise ImageError(
            Reason.OVERSIZED_IMAGE,
            f"{name}: unpacks to more than the {limit} bytes that its header of {size} data bytes allows; "
            "not unpacked further. Fetch the file again",
        )
    if not file.complete:
        raise _truncated(file, limit)
    content = file.out if isinstance(file.out, FileBytes) else memoryview(file.out)
    hdus = [_data_unit(file, Hdu(header, content, start, size))]
    offset = start + _padded(size)
    while len(hdus) < hdus_read and bytes(content[offset : offset + 8]) == b"XTENSION":
        header, start = _header_at(file, offset, b"XTENSION=")
        size = _data_bytes(header, name, max_extension, max_extension)
        hdus.append(_data_unit(file, Hdu(header, content, start, size)))
        offset = start + _padded(size)
    return hdus


def read_first_header(read: Callable[[int], bytes], name: str) -> fits.Header:
    """Read a file's primary header without reading, or unpacking, the rest of it.

    Parameters
    ----------
    read
        Returns the first n stored bytes (fewer where the file is shorter).
    name
        Of the file, for messages.

    Raises
    ------
    ImageError
        As `read_fits`, for what can be seen that early.
    """
    wanted = FIRST_PIECE
    while True:
        piece = read(wanted)
        try:
            return _header_at(_Unpacker(piece, name), 0, b"SIMPLE  =")[0]
        except ImageError as error:
            if error.reason is not Reason.TRUNCATED_IMAGE or len(piece) < wanted or wanted >= LAST_PIECE:
                raise
        wanted *= 2


def _header_at(file: _Unpacker, offset: int, magic: bytes) -> tuple[fits.Header, int]:
    """Parse the header at an offset; return it and the offset of its data."""
    # A bzip2 block's checksum is tested at its end: until then its bytes are not to be judged.
    file.fill(max(offset + BLOCK, PACKED_BLOCK if file.packed else 0))
    seen = bytes(file.out[offset : offset + len(magic)])
    if not seen and file.complete and not file.packed:
        raise ImageError(Reason.EMPTY_IMAGE, f"{file.name}: 0 bytes; fetch the file again")
    if not magic.startswith(seen) or (len(seen) < len(magic) and file.complete):
        raise ImageError(
            Reason.NOT_FITS,
            f"{file.name}: not a FITS file: begins with {bytes(file.out[:40])!r}; if this is a server's "
            "error page, check the survey's root, then delete the file and fetch it again",
        )
    for block in range(MAX_HEADER_BLOCKS):
        start = offset + block * BLOCK
        file.fill(start + BLOCK)
        cards = bytes(file.out[start : start + BLOCK])
        if len(cards) < BLOCK:
            raise _truncated(file, start + BLOCK)
        if any(cards[i : i + 8] == b"END     " for i in range(0, BLOCK, 80)):
            text = bytes(file.out[offset : start + BLOCK])
            try:
                return fits.Header.fromstring(text.decode("ascii")), start + BLOCK
            except (UnicodeDecodeError, ValueError, OSError, fits.VerifyError) as error:
                raise ImageError(
                    Reason.BAD_IMAGE, f"{file.name}: unreadable header ({error}); fetch the file again"
                ) from error
    raise ImageError(
        Reason.BAD_IMAGE,
        f"{file.name}: no END card in the first {MAX_HEADER_BLOCKS} header blocks; fetch the file again",
    )


def _data_bytes(header: fits.Header, name: str, max_elements: int, max_heap: int) -> int:
    """Length of a data unit by its header (FITS 4.0, equation 2), refused where it is too large."""
    count = min(integer_card(header, "NAXIS", name), 999)
    axes = [integer_card(header, f"NAXIS{i}", name) for i in range(1, count + 1)]
    elements = math.prod(axes) if axes else 0
    if elements > max_elements:
        raise ImageError(
            Reason.OVERSIZED_IMAGE,
            f"{name}: the header claims {' x '.join(map(str, axes))} = {elements} elements; an image "
            f"of this survey has at most {max_elements}. Fetch the file again",
        )
    extra = integer_card(header, "PCOUNT", name, 0)
    if extra > max_heap:
        raise ImageError(
            Reason.OVERSIZED_IMAGE, f"{name}: the header claims a heap of {extra} bytes; fetch it again"
        )
    return abs(integer_card(header, "BITPIX", name, negative=True)) // 8 * (elements + extra if axes else 0)


def _data_unit(file: _Unpacker, unit: Hdu) -> Hdu:
    """Check that a data unit is whole and adds up to its header's sum, if it states one."""
    if len(file.out) < unit.start + unit.size:
        raise _truncated(file, unit.start + unit.size)
    claimed = str(unit.header.get("DATASUM", "")).strip()
    if claimed.isdigit() and _datasum(unit) != int(claimed):
        raise ImageError(
            Reason.CHECKSUM,
            f"{file.name}: the data sum to {_datasum(unit)}, the header's DATASUM is {claimed}; "
            "fetch the file again",
        )
    return unit


def _datasum(unit: Hdu) -> int:
    """Ones' complement sum of 32-bit words (FITS 4.0, appendix J)."""
    total = 0
    for start in range(0, unit.size, SUMMED):
        data = unit.part(start, start + SUMMED)
        whole = len(data) // 4 * 4
        total += int(np.frombuffer(data[:whole], dtype=">u4").sum(dtype=np.uint64))
        total += int.from_bytes(bytes(data[whole:]).ljust(4, b"\0"), "big")
    while total >> 32:
        total = (total & 0xFFFFFFFF) + (total >> 32)
    return total


def integer_card(
    header: fits.Header, key: str, name: str, default: int | None = None, negative: bool = False
) -> int:
    """Return the count that a card states, ``default`` without it.

    Raises
    ------
    ImageError
        BAD_IMAGE if it is no integer, or a negative one where ``negative`` is not said.
    """
    try:
        value = header.get(key, default)
    except (ValueError, fits.VerifyError):
        value = None
    if not isinstance(value, int) or isinstance(value, bool) or (value < 0 and not negative):
        raise ImageError(
            Reason.BAD_IMAGE, f"{name}: header card {key} is {value!r}, not a count; fetch the file again"
        )
    return value


def _padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK


def _truncated(file: _Unpacker, wanted: int) -> ImageError:
    kind = "bzip2 stream" if file.packed and not file.complete else "file"
    return ImageError(
        Reason.TRUNCATED_IMAGE,
        f"{file.name}: the {kind} ends after {len(file.out)} unpacked bytes of {wanted}; "
        "fetch the file again",
    )
