"""Small SDSS frames of any content, for tests: true in structure, a few hundred pixels wide."""

from __future__ import annotations

import bz2
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
from astropy.io import fits

SCALE = 0.396 / 3600
SHAPE = (300, 256)
#: Rows by which neighbouring fields follow each other: they share 28.
STEP = 272
ROWS = "riuzg"


def sky(x, y, field=100, ra0=150.0, dec0=2.0):
    """The position of a pixel of a frame, by astropy."""
    from astropy.wcs import WCS

    return WCS(header(field, ra0=ra0, dec0=dec0)).all_pix2world(x, y, 0)


def header(field=100, band="r", run=1234, camcol=3, shape=SHAPE, ra0=150.0, dec0=2.0):
    """The primary header: a field lies north of the one before, shifted a little from band to band."""
    cards = fits.Header()
    cards["RUN"], cards["CAMCOL"], cards["FILTER"] = run, camcol, band
    cards["FRAME"] = field + 2 * ROWS.index(band)
    cards["BUNIT"] = "nanomaggy"
    cards["CTYPE1"], cards["CTYPE2"] = "RA---TAN", "DEC--TAN"
    cards["CUNIT1"], cards["CUNIT2"] = "deg", "deg"
    cards["CRPIX1"], cards["CRPIX2"] = (shape[1] + 1) / 2 + ROWS.index(band), (shape[0] + 1) / 2
    cards["CRVAL1"], cards["CRVAL2"] = ra0 % 360, dec0 + (field - 100) * STEP * SCALE
    cards["CD1_1"], cards["CD1_2"], cards["CD2_1"], cards["CD2_2"] = -SCALE, 0.0, 0.0, SCALE
    return cards


def frame(pixels=None, cards=None, sky_counts=100.0, calibration=0.005, **place) -> bytes:
    """An uncompressed frame: image, calibration vector, sky table."""
    if pixels is None:
        shape = place.get("shape", SHAPE)
        # Few different values, as in a real frame of whole counts: quick to compress.
        counts = np.rint(np.random.default_rng(place.get("field", 0)).normal(0, 4, shape))
        pixels = (counts * calibration).astype(np.float32)
    ny, nx = pixels.shape
    head = cards if cards is not None else header(**{"shape": pixels.shape, **place})
    columns = [
        fits.Column("ALLSKY", "48E", dim="(8,6)", array=np.full((1, 6, 8), sky_counts, np.float32)),
        fits.Column("XINTERP", f"{nx}E", array=np.linspace(-0.5, 7.5, nx, dtype=np.float32)[None]),
        fits.Column("YINTERP", f"{ny}E", array=np.linspace(-0.5, 5.5, ny, dtype=np.float32)[None]),
    ]
    vector = np.full(nx, calibration, dtype=np.float32)
    hdus = [fits.PrimaryHDU(pixels, head), fits.ImageHDU(vector), fits.BinTableHDU.from_columns(columns)]
    sink = io.BytesIO()
    fits.HDUList(hdus).writeto(sink, output_verify="silentfix")
    return sink.getvalue()


def path(field=100, band="r", run=1234, camcol=3) -> str:
    """Where a frame lies below the root."""
    return f"eboss/photoObj/frames/301/{run}/{camcol}/frame-{band}-{run:06d}-{camcol}-{field:04d}.fits.bz2"


def write(root: Path, name: str, stored: bytes) -> Path:
    """Write a file, and the folders above it."""
    target = root / name
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(stored)
    return target


def tree(
    root: Path, fields=(100,), bands="gri", change: Callable[[bytes], bytes] = bz2.compress, **place
) -> Path:
    """A tree of frames."""
    names = {key: place[key] for key in ("run", "camcol") if key in place}
    for field in fields:
        for band in bands:
            write(root, path(field, band, **names), change(frame(field=field, band=band, **place)))
    return root


def rows(ra, dec, object_id=None, **columns) -> pa.Table:
    """A table of objects; by default their identifier says run 1234, camcol 3, field 100."""
    from gzscale.surveys.sdss_ids import Release, encode_objid

    ra, dec = np.atleast_1d(np.asarray(ra, float)), np.atleast_1d(np.asarray(dec, float))
    if object_id is None:
        object_id = encode_objid(Release.DR8, 301, 1234, 3, 100, np.arange(len(ra)))
    table = {"object_id": pa.array(np.asarray(object_id, np.int64)), "ra": ra, "dec": dec}
    return pa.table(table | {name: pa.array(value, pa.int32()) for name, value in columns.items()})
