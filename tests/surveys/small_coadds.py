"""Small Rubin coadds of any content, for tests: a tract of 3 x 2 patches of 200 pixels, made with astropy."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS

from gzscale.surveys.rubin_tree import write_patches

SCALE = 0.2
INNER, BORDER = 200, 20
COLUMNS, ROWS = 3, 2
TEMPLATE = "coadds/{tract}/{patch}/coadd-{band}-{tract}-{patch}.fits"
PLANES = {"BAD": 0, "SAT": 1, "DETECTED": 5, "DETECTED_NEGATIVE": 6, "NO_DATA": 8, "BRIGHT_OBJECT": 9}
#: One nanomaggy is 10^(-0.4 x 22.5) of the flux of magnitude 0, one nJy 10^(-0.4 x 31.4).
NANOJANSKY_A_NANOMAGGY = 10 ** (0.4 * 8.9)


def wcs_cards(x0=0, y0=0, sip=0.0, ra=150.0, dec=2.0):
    """The WCS of a tract's pixels from (x0, y0) on; ``sip`` is a distortion in pixels at 300 pixels."""
    cards = fits.Header()
    kind = "-SIP" if sip else ""
    cards["CTYPE1"], cards["CTYPE2"] = f"RA---TAN{kind}", f"DEC--TAN{kind}"
    cards["CUNIT1"], cards["CUNIT2"] = "deg", "deg"
    cards["CRVAL1"], cards["CRVAL2"] = ra, dec
    cards["CRPIX1"] = COLUMNS * INNER / 2 + 0.5 - x0
    cards["CRPIX2"] = ROWS * INNER / 2 + 0.5 - y0
    cards["CD1_1"], cards["CD1_2"], cards["CD2_1"], cards["CD2_2"] = -SCALE / 3600, 0.0, 0.0, SCALE / 3600
    if sip:
        cards["A_ORDER"], cards["B_ORDER"] = 2, 2
        cards["A_2_0"], cards["B_0_2"], cards["A_1_1"] = sip / 300**2, -sip / 300**2, sip / 300**2
    return cards


def box(patch):
    """First column and row of a patch's outer region, and the ones after its last."""
    x, y = patch % COLUMNS * INNER, patch // COLUMNS * INNER
    return (
        max(0, x - BORDER),
        max(0, y - BORDER),
        min(COLUMNS * INNER, x + INNER + BORDER),
        min(ROWS * INNER, y + INNER + BORDER),
    )


def coadd(
    image, mask=None, variance=None, cards=None, unit="nJy", planes=PLANES, compress=True, primary=None
) -> bytes:
    """A coadd file; image and variance are stored in ``unit`` as they are given."""
    mask = np.zeros(image.shape, np.int32) if mask is None else mask.astype(np.int32)
    variance = np.full(image.shape, 4.0) if variance is None else variance
    hdus = [fits.PrimaryHDU(header=fits.Header(primary or {}))]
    for name, values in (("IMAGE", image.astype("f4")), ("MASK", mask), ("VARIANCE", variance.astype("f4"))):
        header = (cards if cards is not None else wcs_cards()).copy()
        header["EXTNAME"] = name
        if name == "IMAGE" and unit:
            header["BUNIT"] = unit
        for plane, bit in planes.items() if name == "MASK" else ():
            header[f"HIERARCH MP_{plane}"] = bit
        if not compress:
            hdus.append(fits.ImageHDU(values, header))
            continue
        # Lossless, so that what is read can be compared to the last bit.
        kind = {"compression_type": "GZIP_2", "tile_shape": (1, image.shape[1]), "quantize_level": 0.0}
        hdus.append(fits.CompImageHDU(values, header, **kind))
    sink = io.BytesIO()
    fits.HDUList(hdus).writeto(sink, checksum=True)
    return sink.getvalue()


def path(patch, band, tract=7):
    """Where a coadd lies below the root."""
    return TEMPLATE.format(tract=tract, patch=patch, band=band)


def options(root: Path, **more):
    """Options of a survey on a tree; writes its table of patches."""
    index = root / "patches.parquet"
    if not index.exists():
        corners = []
        for patch in range(COLUMNS * ROWS):
            x0, y0, x1, y1 = box(patch)
            pixels = np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], float) - 0.5
            corners.append(WCS(wcs_cards()).all_pix2world(pixels, 0))
        write_patches([7] * len(corners), list(range(len(corners))), np.array(corners), str(index))
    return {"tree": TEMPLATE, "index": str(index), **more}


def tree(root: Path, planes_of, bands="r", patches=range(COLUMNS * ROWS), sip=0.0, **how) -> Path:
    """A tree of coadds cut out of whole tracts: ``planes_of(band)`` returns image, mask and variance."""
    for band in bands:
        whole = planes_of(band)
        for patch in patches:
            x0, y0, x1, y1 = box(patch)
            parts = [None if plane is None else plane[y0:y1, x0:x1] for plane in whole]
            write(root, path(patch, band), coadd(*parts, cards=wcs_cards(x0, y0, sip), **how))
    return root


def write(root: Path, name: str, stored: bytes) -> Path:
    """Write a file, and the folders above it."""
    target = root / name
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(stored)
    return target


def sky(x, y, sip=0.0):
    """The sky position of a pixel of the tract."""
    return WCS(wcs_cards(sip=sip)).all_pix2world(x, y, 0)
