"""Objects a second out of a dense Rubin coadd: three bands of a patch, files to stored cutouts.

Run ``python tests/benchmarks/bench_coadds.py --json OUT``. A patch of 4,000 x 4,000 pixels with image,
mask and variance in three bands, 7,000 objects, stamps of 96 x 96, in turn:

- ours: find, decode, resample onto the geometry, store, as a night cuts a partition;
- astropy: each image opened once, `Cutout2D` by pixel position without resampling, stored with zarr;
- slicing: each image decoded once and sliced at positions known beforehand, stored with zarr.

The other two read the image plane only, and know no masks, noise or edges.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import zarr
from astropy.io import fits
from astropy.nddata import Cutout2D
from astropy.wcs import WCS
from zarr.codecs import BloscCodec

from gzscale.config import GeometryConfig
from gzscale.cutouts.ingest import cut_partition
from gzscale.sky.rubin_camera import MASK_PLANES
from gzscale.sky.rubin_files import coadd_bytes
from gzscale.storage import open_storage
from gzscale.surveys.rubin import RubinSurvey
from gzscale.surveys.rubin_tree import write_patches

SIDE, OBJECTS, SIZE, BANDS = 4000, 7000, 96, "gri"
TREE = "{tract}/{patch}/{band}.fits"


def header():
    cards = fits.Header()
    cards["CTYPE1"], cards["CTYPE2"], cards["RADESYS"] = "RA---TAN", "DEC--TAN", "ICRS"
    cards["CRVAL1"], cards["CRVAL2"] = 53.1, -28.1
    cards["CRPIX1"] = cards["CRPIX2"] = (SIDE + 1) / 2
    cards["CD1_1"], cards["CD2_2"] = -0.2 / 3600, 0.2 / 3600
    return cards


def make_patch(root, compress):
    wcs = WCS(header())
    corners = np.array([(0, 0), (SIDE, 0), (SIDE, SIDE), (0, SIDE)], float) - 0.5
    write_patches([0], [0], wcs.all_pix2world(corners, 0)[None], str(root / "patches.parquet"))
    for band in BANDS:
        rng = np.random.default_rng(ord(band))
        image = rng.normal(0, 5, (SIDE, SIDE)).astype("f4")
        mask = np.zeros((SIDE, SIDE), "i4")
        for x, y in rng.integers(0, SIDE - 40, (8000, 2)):
            mask[y : y + 20, x : x + 20] |= 1 << MASK_PLANES.index("DETECTED")
        variance = (25 + rng.normal(0, 0.5, (SIDE, SIDE))).astype("f4")
        path = root / TREE.format(tract=0, patch=0, band=band)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(coadd_bytes(image, mask, variance, header(), {"band": band}, compress))


def positions():
    rng = np.random.default_rng(5)
    return rng.uniform(SIZE, SIDE - SIZE, OBJECTS), rng.uniform(SIZE, SIDE - SIZE, OBJECTS)


def store(stack, folder):
    array = zarr.create_array(
        str(folder / "stack.zarr"),
        shape=stack.shape,
        dtype=stack.dtype,
        chunks=(64, *stack.shape[1:]),
        compressors=[BloscCodec(typesize=2, cname="lz4", clevel=5, shuffle="bitshuffle")],
    )
    array[...] = stack


def ours(root, folder, count=OBJECTS):
    ra, dec = WCS(header()).all_pix2world(*positions(), 0)
    rows = pa.table({"object_id": np.arange(OBJECTS), "ra": ra, "dec": dec}).slice(0, count)
    survey = RubinSurvey(str(root), BANDS, {"tree": TREE, "index": str(root / "patches.parquet")})
    geometry = {"sky": GeometryConfig(size=SIZE, scale=0.2)}
    result = cut_partition(survey, rows, geometry, open_storage(folder), "p.zarr")
    assert result.done == {"sky": count}
    return result.seconds


def others(root, folder, cut):
    stack = np.zeros((OBJECTS, len(BANDS), SIZE, SIZE), np.float16)
    x, y = positions()
    for index, band in enumerate(BANDS):
        with fits.open(root / TREE.format(tract=0, patch=0, band=band)) as hdus:
            pixels, wcs = np.asarray(hdus["IMAGE"].data), WCS(hdus["IMAGE"].header)
        cut(stack[:, index], pixels, wcs, x, y)
    store(stack, folder)
    return {}


def by_cutout2d(stack, pixels, wcs, x, y):
    for k in range(OBJECTS):
        stack[k] = Cutout2D(pixels, (x[k], y[k]), SIZE, wcs=wcs).data


def by_slicing(stack, pixels, wcs, x, y):
    left, low = np.round(x).astype(int) - SIZE // 2, np.round(y).astype(int) - SIZE // 2
    for k, (row, column) in enumerate(zip(low.tolist(), left.tolist(), strict=True)):
        stack[k] = pixels[row : row + SIZE, column : column + SIZE]


WAYS = {
    "ours": ours,
    "astropy": lambda root, folder: others(root, folder, by_cutout2d),
    "slicing": lambda root, folder: others(root, folder, by_slicing),
}


def run_way(way, root):
    """One way in a process of its own, so that its memory is its own; compiled code is warm."""
    with tempfile.TemporaryDirectory() as folder:
        if way == "ours":
            ours(root, Path(folder, "warm"), 10)
        start, cpu = time.perf_counter(), time.process_time()
        seconds = WAYS[way](root, Path(folder))
        took, used = time.perf_counter() - start, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"seconds": took, "cpu": used, "peak_rss": peak, "stages": seconds}))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--json", type=Path)
    parser.add_argument("--way", choices=WAYS)
    parser.add_argument("--root", type=Path)
    given = parser.parse_args()
    if given.way:
        run_way(given.way, given.root)
        return
    found = {}
    for kind, compress in (("rice", True), ("plain", False)):
        with tempfile.TemporaryDirectory() as folder:
            make_patch(Path(folder), compress)
            for _ in range(2):
                for way in WAYS:
                    done = subprocess.run(
                        [sys.executable, __file__, "--way", way, "--root", folder],
                        check=True,
                        capture_output=True,
                        text=True,
                    )
                    one = json.loads(done.stdout.splitlines()[-1])
                    best = found.setdefault(kind, {}).get(way)
                    if best is None or one["seconds"] < best["seconds"]:
                        found[kind][way] = one
        for way, one in found[kind].items():
            stages = ", ".join(f"{name} {value:.2f} s" for name, value in one["stages"].items())
            print(
                f"{kind:<6} {way:<8} {OBJECTS / one['seconds']:8.0f} objects/s, {one['cpu']:6.2f} s of CPU, "
                f"peak {one['peak_rss'] / 2**30:.2f} GiB {stages}"
            )
    if given.json:
        given.json.write_text(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
