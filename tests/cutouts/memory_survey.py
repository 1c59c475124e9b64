"""Small surveys in memory, for the tests of gzscale.cutouts."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from astropy.wcs import WCS

from gzscale.errors import ImageError, Reason
from gzscale.storage import sha256_hex
from gzscale.surveys.base import Coverage, Image, ImageRef


def make_wcs(ra, dec, scale=0.396, rotation=0.0, shape=(200, 240), parity=-1.0, shift=(0.0, 0.0)):
    """TAN WCS with its tangent point at the image's centre; rotation in degrees, parity -1: east left."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [ra, dec]
    wcs.wcs.crpix = [(shape[1] + 1) / 2 + shift[0], (shape[0] + 1) / 2 + shift[1]]
    angle = np.radians(rotation)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    wcs.wcs.cd = turn @ np.diag([parity, 1.0]) * scale / 3600
    wcs.wcs.lonpole = 180.0
    wcs.wcs.set()
    return wcs


def make_image(pixels, wcs, name="frame-r-1", band="r", sigma=0.02, exposure="1"):
    pixels = np.ascontiguousarray(pixels, dtype=np.float32)
    ref = ImageRef(name, band, f"{name}.fits", exposure)
    return Image(
        ref, pixels, wcs, np.full((2, 2), sigma, np.float32), sha256_hex(name.encode()), pixels.nbytes
    )


@dataclass
class MemorySurvey:
    """Images held in memory; every image may overlap every object, unless `pairs` says otherwise."""

    images: list
    bands: str = "r"
    kind: str = "memory"
    pixel_scale: float = 0.396
    broken: dict = field(default_factory=dict)
    lost: dict = field(default_factory=dict)
    opened: list = field(default_factory=list)

    def find(self, rows, radius):
        refs = {image.ref: image for image in self.images}
        ordered = tuple(sorted(refs, key=lambda ref: (self.bands.index(ref.band), ref.name)))
        found = [row for row in range(rows.num_rows) if row not in self.lost]
        return Coverage(
            ordered,
            np.tile(np.array(found, dtype=np.int64), len(ordered)),
            np.repeat(np.arange(len(ordered)), len(found)),
            self.lost,
        )

    def open(self, ref):
        self.opened.append(ref.name)
        if ref.name in self.broken:
            raise ImageError(Reason(self.broken[ref.name]), f"{ref.path}: broken for the test")
        return next(image for image in self.images if image.ref == ref)

    def state(self, ref):
        return "absent" if ref.name in self.broken else "there"


def make_rows(ra, dec, size=None):
    columns = {
        "_healpix_29": pa.array(np.arange(len(ra)), pa.int64()),
        "object_id": pa.array(np.arange(len(ra)) + 1000, pa.int64()),
        "ra": pa.array(np.asarray(ra, float)),
        "dec": pa.array(np.asarray(dec, float)),
    }
    if size is not None:
        columns["size"] = pa.array(np.asarray(size, np.float32))
    return pa.table(columns)
