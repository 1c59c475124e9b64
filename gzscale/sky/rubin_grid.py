"""The tracts and patches of a synthetic Rubin sky, and where their pixels lie.

As in a real skymap [1]_, a tract is one pixel grid. Its patches' inner regions tile it; their outer regions
reach beyond by a border, except at the tract's edge, so that neighbouring patches share pixels. Tracts follow
each other along a parallel and overlap. The projection is TAN with third-order distortion (SIP [2]_),
as small as a camera's would be after resampling: readers must not take it for a plain TAN.

References
----------
.. [1] ``lsst.skymap``: tractInfo, patchInfo.
.. [2] D. L. Shupe et al. 2005, ASP Conf. Ser. 347, 491.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS
from numpy.typing import NDArray

from gzscale.errors import ConfigError

__all__ = ["BORDER", "INNER", "PIXEL_SCALE", "RIM", "SKYMAP", "Box", "Tract", "tracts_of"]

SKYMAP = "gzscale_simulated"
#: Side of a pixel in arcsec.
PIXEL_SCALE = 0.2
#: Side of a patch's inner region, and how far the outer one reaches beyond, in pixels.
INNER, BORDER = 1000, 50
#: Pixels at a tract's edge that no visit has seen: NO_DATA.
RIM = 20
#: Patches along a side of a tract, and pixels that two tracts share.
_MAX_SIDE, _OVERLAP = 5, 400
#: Where the first tract is: the Extended Chandra Deep Field South.
_RA, _DEC = 53.13, -28.10
#: More tracts would go round the sky.
_MAX_TRACTS = 1100
#: Third-order coefficient of the distortion: 0.3 pixel at the corner of a tract of 5,000 pixels.
_DISTORTION = 0.3 / 3500.0**3

Box = tuple[int, int, int, int]
"""First column, first row, and the ones after the last column and row, in a tract's pixels."""


@dataclass(frozen=True, slots=True, order=True)
class Tract:
    """One tract of the synthetic sky.

    Attributes
    ----------
    number
        Its identifier.
    ra, dec
        Its centre in degrees.
    columns, rows
        Patches along its sides.
    first, last
        Whether no tract lies before (at larger column numbers: east is left) or after it.
    """

    number: int
    ra: float
    dec: float
    columns: int
    rows: int
    first: bool
    last: bool

    @property
    def width(self) -> int:
        """Pixels along a row."""
        return self.columns * INNER

    @property
    def height(self) -> int:
        """Pixels along a column."""
        return self.rows * INNER

    @property
    def patches(self) -> range:
        """Identifiers of the patches, row by row."""
        return range(self.columns * self.rows)

    def cell(self, patch: int) -> tuple[int, int]:
        """Return column and row of a patch."""
        return patch % self.columns, patch // self.columns

    def inner(self, patch: int) -> Box:
        """Return the inner region of a patch."""
        x, y = self.cell(patch)
        return x * INNER, y * INNER, (x + 1) * INNER, (y + 1) * INNER

    def outer(self, patch: int) -> Box:
        """Return the outer region of a patch."""
        x0, y0, x1, y1 = self.inner(patch)
        return (
            max(0, x0 - BORDER),
            max(0, y0 - BORDER),
            min(self.width, x1 + BORDER),
            min(self.height, y1 + BORDER),
        )

    def owned(self) -> Box:
        """Return where the tract's own objects lie: neighbouring tracts share their overlap."""
        left = RIM if self.last else _OVERLAP // 2
        right = RIM if self.first else _OVERLAP // 2
        return left, RIM, self.width - right, self.height - RIM

    def header(self, box: Box | None = None) -> fits.Header:
        """Return the WCS cards of the tract, or of a box of it."""
        x0, y0 = box[:2] if box else (0, 0)
        header = fits.Header()
        header["CTYPE1"], header["CTYPE2"] = "RA---TAN-SIP", "DEC--TAN-SIP"
        header["CUNIT1"], header["CUNIT2"] = "deg", "deg"
        header["RADESYS"] = "ICRS"
        header["CRVAL1"], header["CRVAL2"] = self.ra, self.dec
        header["CRPIX1"] = (self.width + 1) / 2 - x0
        header["CRPIX2"] = (self.height + 1) / 2 - y0
        header["CD1_1"], header["CD1_2"] = -PIXEL_SCALE / 3600, 0.0
        header["CD2_1"], header["CD2_2"] = 0.0, PIXEL_SCALE / 3600
        for way, sign in (("", 1), ("P", -1)):
            header[f"A{way}_ORDER"] = header[f"B{way}_ORDER"] = 3
            for name in (f"A{way}_3_0", f"A{way}_1_2", f"B{way}_0_3", f"B{way}_2_1"):
                header[name] = sign * _DISTORTION
        return header

    def wcs(self, box: Box | None = None) -> WCS:
        """Return the world coordinate system of the tract, or of a box of it."""
        return WCS(self.header(box))

    def corners(self, box: Box) -> NDArray[np.float64]:
        """Return ra and dec in degrees of a box's corners, in order round it, shape (4, 2)."""
        x0, y0, x1, y1 = box
        pixels = np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], dtype=np.float64) - 0.5
        return np.asarray(self.wcs().all_pix2world(pixels, 0), dtype=np.float64)


def tracts_of(patches: int) -> list[Tract]:
    """Lay a number of patches out on tracts, at least as many.

    Raises
    ------
    ConfigError
        If they do not fit round the sky.
    """
    side = min(_MAX_SIDE, int(np.ceil(np.sqrt(patches))))
    whole, rest = divmod(patches, side * side)
    heights = [side] * whole + ([-(-rest // side)] if rest else [])
    if len(heights) > _MAX_TRACTS:
        raise ConfigError(
            f"{patches} patches: a synthetic sky has at most {_MAX_TRACTS * side * side}; ask for fewer "
            "objects"
        )
    step = (side * INNER - _OVERLAP) * PIXEL_SCALE / 3600 / np.cos(np.radians(_DEC))
    return [
        Tract(
            number=number,
            ra=(_RA + number * step) % 360.0,
            dec=_DEC,
            columns=side,
            rows=height,
            first=number == 0,
            last=number == len(heights) - 1,
        )
        for number, height in enumerate(heights)
    ]
