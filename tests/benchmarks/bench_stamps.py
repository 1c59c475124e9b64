"""Stamps a second, against a cutout tool's way and against bare slicing; one thread, decoded images.

Run ``python tests/benchmarks/bench_stamps.py --json OUT``. Two comparisons, each within one run and with
the ways taken in turn, so that a busy machine slows all of them alike:

- per object, ``astropy.nddata.Cutout2D`` by sky position and ``reproject_interp`` onto the stamp's grid;
- bare slicing of the decoded array into a float16 stack at positions known beforehand: no
  WCS, no resampling, no edges.

Ours includes everything from sky positions to float16 stamps.
"""

from __future__ import annotations

import argparse
import json
import os
import time
import warnings
from pathlib import Path

import numpy as np
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.nddata import Cutout2D
from astropy.wcs import WCS, FITSFixedWarning
from reproject import reproject_interp

from gzscale.cutouts.affine import affine_tiles
from gzscale.cutouts.geometry import wcs_of
from gzscale.cutouts.stamp import Target, resample

SIZE, SCALE = 64, 0.396
FRAME = "sdss/eboss/photoObj/frames/301/3918/3/frame-r-003918-3-0213.fits.bz2"


def real_frame():
    root = Path(os.environ.get("GZSCALE_REAL_DATA", "none"))
    if not (root / FRAME).exists():
        return None
    with fits.open(root / FRAME) as hdus:
        return "real SDSS frame", np.ascontiguousarray(hdus[0].data, dtype=np.float32), WCS(hdus[0].header)


def simulated_frame():
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval, wcs.wcs.crpix = [229.5, 42.8], [1025.0, 745.0]
    wcs.wcs.cd = [[6.122e-5, 9.141e-5], [9.139e-5, -6.121e-5]]
    pixels = np.random.default_rng(1).normal(0, 0.02, (1489, 2048)).astype(np.float32)
    return "simulated noise frame", pixels, wcs


class Ways:
    """The three ways to make the same stamps."""

    def __init__(self, pixels, wcs, count):
        rng = np.random.default_rng(2)
        height, width = pixels.shape
        self.pixels, self.wcs, self.count = pixels, wcs, count
        self.x = rng.uniform(SIZE, width - SIZE, count)
        self.y = rng.uniform(SIZE, height - SIZE, count)
        self.ra, self.dec = wcs.wcs_pix2world(self.x, self.y, 0)
        self.left = (np.round(self.x).astype(int) - SIZE // 2).tolist()
        self.low = (np.round(self.y).astype(int) - SIZE // 2).tolist()
        self.stack = np.zeros((count, SIZE, SIZE), dtype=np.float16)

    def ours(self):
        target = Target(
            out=self.stack.view(np.uint16).reshape(-1),
            start=np.arange(self.count) * SIZE * SIZE,
            slot=np.full(self.count, -1),
            sums=np.zeros((0, 2, SIZE, SIZE), dtype=np.float32),
            tally=np.zeros((self.count, 3)),
        )
        tiles = affine_tiles(self.wcs, self.ra, self.dec, np.full(self.count, SCALE), SIZE)
        resample(self.pixels, tiles, target)

    def slicing(self):
        for k, (row, column) in enumerate(zip(self.low, self.left, strict=True)):
            self.stack[k] = self.pixels[row : row + SIZE, column : column + SIZE]

    def per_object(self, count):
        for k in range(count):
            position = SkyCoord(self.ra[k], self.dec[k], unit="deg")
            cutout = Cutout2D(self.pixels, position, int(SIZE * 1.5), wcs=self.wcs)
            target = wcs_of(self.ra[k], self.dec[k], SCALE, SIZE)
            flux = reproject_interp(
                (cutout.data, cutout.wcs), target, shape_out=(SIZE, SIZE), return_footprint=False
            )
            self.stack[k] = flux


def seconds(call):
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def measure(ways, rounds, few):
    """Best of several rounds; each round takes the three ways in turn. Seconds a stamp."""
    best = dict.fromkeys(("ours", "slicing", "per_object"), np.inf)
    for _ in range(rounds):
        for _ in range(3):
            best["ours"] = min(best["ours"], seconds(ways.ours) / ways.count)
            best["slicing"] = min(best["slicing"], seconds(ways.slicing) / ways.count)
        best["per_object"] = min(best["per_object"], seconds(lambda: ways.per_object(few)) / few)
    return best


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", help="write the figures to this file, too")
    parser.add_argument("--objects", type=int, default=600)
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", FITSFixedWarning)
    name, pixels, wcs = real_frame() or simulated_frame()
    ways = Ways(pixels, wcs, arguments.objects)
    ways.ours()
    ways.slicing()
    ways.per_object(2)
    best = measure(ways, arguments.rounds, few=10)
    figures = {
        "source": name,
        "stamp": f"{SIZE} x {SIZE} pixels of {SCALE} arcsec",
        "stamps_per_second": 1 / best["ours"],
        "cutout2d_reproject_interp_per_second": 1 / best["per_object"],
        "bare_slicing_per_second": 1 / best["slicing"],
        "times_cutout2d_reproject_interp": best["per_object"] / best["ours"],
        "share_of_bare_slicing": best["slicing"] / best["ours"],
        "goal_times_cutout2d_reproject_interp": 30,
        "goal_share_of_bare_slicing": 0.3,
    }
    print(f"{figures['source']}, {figures['stamp']}, one thread")
    print(f"  resampled stamps              {figures['stamps_per_second']:10.0f} /s")
    print(
        f"  Cutout2D + reproject_interp   {figures['cutout2d_reproject_interp_per_second']:10.0f} /s"
        f"   ours is {figures['times_cutout2d_reproject_interp']:.0f} x (goal 30)"
    )
    print(
        f"  bare slicing to float16       {figures['bare_slicing_per_second']:10.0f} /s"
        f"   ours is {figures['share_of_bare_slicing']:.2f} of it (goal 0.3)"
    )
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(figures, indent=2, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
