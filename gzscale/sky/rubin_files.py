"""One coadd file as Rubin writes them: primary header, IMAGE, MASK and VARIANCE in compressed tiles."""

from __future__ import annotations

import io

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from gzscale.sky.rubin_camera import MASK_PLANES

__all__ = ["coadd_bytes"]

#: Steps of quantised pixels in a standard deviation of the noise.
_QUANTIZE = 16
#: Any fixed number: the same pixels must give the same bytes.
_DITHER_SEED = 1
_SUBTRACTIVE_DITHER = 1
#: Bytes of a gzip stream's header.
_GZIP_HEADER = 10


def coadd_bytes(
    image: NDArray[np.float32],
    mask: NDArray[np.int32],
    variance: NDArray[np.float32],
    wcs: fits.Header,
    data_id: dict[str, str | int],
    compress: bool = True,
) -> bytes:
    """Return a coadd file.

    Parameters
    ----------
    image, mask, variance
        nJy, bits, nJy squared; shape (ny, nx).
    wcs
        WCS cards, which every plane has.
    data_id
        band, skymap, tract and patch.
    compress
        Whether planes are stored as tiles of one row: Rice-compressed with subtractive dithering (image and
        variance) and GZIP_2 (mask); or plain.

    Returns
    -------
    bytes
        The same for the same input; each extension has its DATASUM.
    """
    primary = fits.PrimaryHDU()
    for name, value in data_id.items():
        primary.header[f"HIERARCH LSST BUTLER DATAID {name.upper()}"] = value
    # Flux of a source of magnitude 0 in the pixels' unit.
    primary.header["FLUXMAG0"] = 10 ** (0.4 * 31.4)
    planes: list[fits.hdu.base.ExtensionHDU] = []
    for name, pixels, unit in (("IMAGE", image, "nJy"), ("MASK", mask, ""), ("VARIANCE", variance, "nJy2")):
        header = wcs.copy()
        header["EXTNAME"] = name
        header["INHERIT"] = True
        if unit:
            header["BUNIT"] = unit
        else:
            for bit, plane in enumerate(MASK_PLANES):
                header[f"HIERARCH MP_{plane}"] = bit
        planes.append(_extension(pixels, header) if compress else fits.ImageHDU(pixels, header))
    sink = io.BytesIO()
    fits.HDUList([primary, *planes]).writeto(sink)
    return _with_sums(sink.getvalue())


def _extension(pixels: NDArray[np.float32] | NDArray[np.int32], header: fits.Header) -> fits.CompImageHDU:
    tile = (1, pixels.shape[1])
    if pixels.dtype.kind == "i":
        return fits.CompImageHDU(pixels, header, compression_type="GZIP_2", tile_shape=tile)
    return fits.CompImageHDU(
        pixels,
        header,
        compression_type="RICE_1",
        tile_shape=tile,
        quantize_level=_QUANTIZE,
        quantize_method=_SUBTRACTIVE_DITHER,
        dither_seed=_DITHER_SEED,
    )


def _with_sums(stored: bytes) -> bytes:
    """Add DATASUM and CHECKSUM to every HDU, without the date that their comments would have."""
    sink = io.BytesIO()
    with fits.open(io.BytesIO(_without_times(stored)), disable_image_compression=True, memmap=False) as hdus:
        for hdu in hdus:
            hdu.add_checksum(when="FITS 4.0, section 4.4.2.7")
        hdus.writeto(sink)
    return sink.getvalue()


def _without_times(stored: bytes) -> bytes:
    """Clear the time of compression that each gzip stream of a tile begins with (RFC 1952, MTIME)."""
    changed = bytearray(stored)
    with fits.open(io.BytesIO(stored), disable_image_compression=True, memmap=False) as hdus:
        for hdu in hdus[1:]:
            if "ZIMAGE" not in hdu.header:
                continue
            start = hdu.fileinfo()["datLoc"]
            heap = start + hdu.header["NAXIS1"] * hdu.header["NAXIS2"]
            table = np.frombuffer(stored, hdu.columns.dtype.newbyteorder(">"), hdu.header["NAXIS2"], start)
            for column in hdu.columns:
                if column.format[:2] not in {"1P", "1Q"}:
                    continue
                for length, offset in table[column.name].reshape(-1, 2).tolist():
                    place = heap + offset
                    if length >= _GZIP_HEADER and stored[place : place + 2] == b"\x1f\x8b":
                        changed[place + 4 : place + 8] = bytes(4)
    return bytes(changed)
