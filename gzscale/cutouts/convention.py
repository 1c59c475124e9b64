"""The cutout store: one Zarr v3 group a partition, with a sub-group for each geometry.

The convention, ``gzscale-cutouts`` 1.0. A geometry's group holds, for N objects, B bands and cutouts of
S x S pixels, these arrays (dimension names in parentheses):

=============  =======  ========================  ====================================================
array          dtype    shape                     what
=============  =======  ========================  ====================================================
images         float16  (object, band, y, x)      flux of a cutout pixel in nanomaggies; NaN: not measured
object_id      int64    (object)                  identifier in the input catalog
ra, dec        float64  (object)                  position in degrees, ICRS: the cutout's centre
scale          float64  (object)                  side of a cutout pixel in arcsec
coverage       float32  (object, band)            fraction of pixels that are measured
noise          float32  (object, band)            background sigma of a cutout pixel in nanomaggies
band_status    uint8    (object, band)            0, or an index into ``band_status_meanings``
image_index    int32    (object, band, slot)      rows of the attribute ``images``; -1 pads
flags          uint8    (object, band)            bit k: the mask plane ``flag_meanings[k]`` below the cutout
=============  =======  ========================  ====================================================

Each entry of the attribute ``images`` has a survey image's name, band, SHA-256 and size in bytes, and where
it is known ``seeing``, the full width at half maximum of its stars in arcsec.

``flags`` is there only where the survey has masks: where the group has the attribute ``flag_meanings``.

World coordinates of cutout i, at 0-based column x and row y: TAN, ICRS, with
CRVAL = (ra[i], dec[i]), CRPIX = ((S + 1) / 2, (S + 1) / 2), CDELT = (-scale[i], +scale[i]) / 3600,
no rotation, LONPOLE 180: north up (y grows), east left. In words, the object is at the exact centre.

``noise`` is the source images' background sigma times the square root of a cutout pixel's area in
source pixels: what a pixel would scatter by if source pixels were independent and cutout pixels did
not share any. Sharing correlates neighbours, so the scatter seen from pixel to pixel is
smaller where a cutout pixel is not much larger than a source pixel.

float16 holds 11 bits: rounding adds an error of 1.4e-4 of the pixel's value (rms), 1 % of the photon noise
of a pixel with 5,000 electrons and less than 0.1 % of the background's; below 6.1e-5
nanomaggies the step is a constant 6e-8. Values beyond 65504 are clipped to it.

Every chunk carries a CRC-32C, ``images`` is one shard, and every chunk is written, so that a
missing one is damage and not a fill value. Nothing in the bytes depends on time, threads or place.
"""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["ARRAYS", "CONVENTION", "OPTIONAL", "VERSION", "WCS_RULE"]

CONVENTION = "gzscale-cutouts"
VERSION = "1.0"

#: Array -> (dtype, dimension names, unit in CF spelling, long name).
ARRAYS: Mapping[str, tuple[str, tuple[str, ...], str, str]] = {
    "images": ("float16", ("object", "band", "y", "x"), "nanomaggy", "flux of a cutout pixel"),
    "object_id": ("int64", ("object",), "1", "identifier in the input catalog"),
    "ra": ("float64", ("object",), "degree", "right ascension (ICRS) of the cutout's centre"),
    "dec": ("float64", ("object",), "degree", "declination (ICRS) of the cutout's centre"),
    "scale": ("float64", ("object",), "arcsec", "side of a cutout pixel"),
    "coverage": ("float32", ("object", "band"), "1", "fraction of pixels that are measured"),
    "noise": ("float32", ("object", "band"), "nanomaggy", "background sigma of a cutout pixel"),
    "band_status": ("uint8", ("object", "band"), "1", "0 or an index into band_status_meanings"),
    "image_index": ("int32", ("object", "band", "slot"), "1", "rows of the attribute images, -1 pads"),
}

#: Arrays that a group may be without.
OPTIONAL: Mapping[str, tuple[str, tuple[str, ...], str, str]] = {
    "flags": ("uint8", ("object", "band"), "1", "mask planes that are set below the cutout"),
}

WCS_RULE = {
    "projection": "TAN",
    "frame": "ICRS",
    "crval": "(ra[i], dec[i])",
    "crpix": "((S + 1) / 2, (S + 1) / 2), 1-based, S pixels a side",
    "cdelt": "(-scale[i] / 3600, scale[i] / 3600) degree",
    "lonpole": 180.0,
    "words": "north up (y grows to the north), east left, the object at the exact centre",
}
