"""Stamps of real SDSS frames against reproject_exact, and a real partition end to end."""

from __future__ import annotations

import functools
import os
import warnings
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.nddata import Cutout2D
from astropy.wcs import WCS, FITSFixedWarning
from astropy.wcs.utils import proj_plane_pixel_area
from reproject import reproject_exact

from gzscale.config import GeometryConfig
from gzscale.cutouts.affine import affine_tiles
from gzscale.cutouts.geometry import wcs_of
from gzscale.cutouts.ingest import cut_partition
from gzscale.cutouts.stamp import Target, finish_stamps, resample
from gzscale.cutouts.store import read_cutouts
from gzscale.storage import open_storage
from gzscale.surveys.sdss import SdssSurvey

ROOT = Path(os.environ.get("GZSCALE_REAL_DATA", "../shared/data")) / "sdss"
FRAMES = [("r", 3918, 3, 213), ("u", 1043, 5, 25), ("i", 8162, 6, 80)]

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not ROOT.exists(), reason=f"{ROOT} is absent; set GZSCALE_REAL_DATA"),
]


@functools.cache
def frame(band, run, camcol, field):
    name = f"frame-{band}-{run:06d}-{camcol}-{field:04d}.fits.bz2"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FITSFixedWarning)
        with fits.open(ROOT / f"eboss/photoObj/frames/301/{run}/{camcol}" / name) as hdus:
            return np.ascontiguousarray(hdus[0].data, dtype=np.float32), WCS(hdus[0].header)


def brightest(run, count):
    table = pq.read_table(ROOT / "galaxies.parquet").to_pandas()
    return table[table.run == run].sort_values("r_mag").head(count)


def cut(pixels, wcs, ra, dec, scale, size):
    """Stamps in float32, before they are rounded to float16."""
    count = len(ra)
    target = Target(
        out=np.zeros(count * size * size, dtype=np.uint16),
        start=np.arange(count) * size * size,
        slot=np.arange(count),
        sums=np.zeros((count, 2, size, size), dtype=np.float32),
        tally=np.zeros((count, 3)),
    )
    resample(pixels, affine_tiles(wcs, ra, dec, np.full(count, scale), size), target)
    finish_stamps(target, np.arange(count))
    return target.sums[:, 0]


def centroid(stamp):
    """Of what stands out of the noise within 5 pixels of the centre."""
    half = stamp.shape[0] // 2
    window = stamp[half - 6 : half + 6, half - 6 : half + 6]
    j, i = np.mgrid[0:12, 0:12]
    return np.array([(window * i).sum(), (window * j).sum()]) / window.sum()


@pytest.mark.parametrize("name", FRAMES)
@pytest.mark.parametrize(("scale", "size"), [(0.396, 64), (0.24, 96), (0.9, 48)])
def test_stamps_of_real_frames_match_reproject_exact(name, scale, size):
    pixels, wcs = frame(*name)
    sigma = 1.4826 * np.median(np.abs(pixels - np.median(pixels)))
    chosen = brightest(name[1], 5)
    ra, dec = chosen.ra.to_numpy(), chosen.dec.to_numpy()
    found = cut(pixels, wcs, ra, dec, scale, size)
    compared = 0
    for k in range(len(ra)):
        target = wcs_of(ra[k], dec[k], scale, size)
        area = proj_plane_pixel_area(target) / proj_plane_pixel_area(wcs)
        # reproject looks at all of its input, however small the target is.
        side = int(1.5 * size * scale / 0.396) + 20
        near = Cutout2D(pixels, SkyCoord(ra[k], dec[k], unit="deg"), side, wcs=wcs)
        flux, covered = reproject_exact((near.data, near.wcs), target, shape_out=(size, size), parallel=False)
        expected = np.where(covered > 0.999, flux * area, np.nan)
        both = np.isfinite(expected) & np.isfinite(found[k])
        if both.mean() < 0.9:
            continue
        compared += 1
        noise = sigma * np.sqrt(area)
        difference = np.median(np.abs(found[k] - expected)[both]) / noise
        assert difference < 0.01, f"median |difference| is {difference:.5f} of the noise"
        total = expected[both].sum()
        if total > 20 * noise * size:
            assert found[k][both].sum() == pytest.approx(total, rel=0.005)
        centre = expected[size // 2 - 6 : size // 2 + 6, size // 2 - 6 : size // 2 + 6]
        if centre.sum() > 200 * noise:
            offset = np.abs(centroid(found[k]) - centroid(expected)).max()
            assert offset < 0.02, f"centroid is off by {offset:.4f} pixel"
    assert compared >= 2, "too few whole stamps to compare"


@pytest.mark.timeout(600)
def test_a_real_partition_is_accounted_for_and_its_bands_are_aligned(tmp_path):
    table = pq.read_table(ROOT / "galaxies.parquet")
    rows = table.filter(pa.array(np.asarray(table.column("run")) == 3918))
    rows = rows.select(["object_id", "ra", "dec", "run", "camcol", "field"]).append_column(
        "size", rows.column("r90").cast(pa.float32())
    )
    rows = rows.set_column(4, "camcol", rows.column("camcol").cast(pa.int32()))
    survey = SdssSurvey(str(ROOT.resolve()), "gri")
    geometries = {
        "galaxy": GeometryConfig(size=96, scale="0.08 * size"),
        "sky": GeometryConfig(size=64, scale=0.396),
    }
    storage = open_storage(tmp_path)
    result = cut_partition(survey, rows, geometries, storage, "p.zarr")
    for name in geometries:
        refused = result.quarantine.column("task").to_pylist().count(name)
        assert result.done[name] + refused == rows.num_rows
    sky = read_cutouts(storage, "p.zarr", "sky", result.inventory)
    whole = np.flatnonzero((sky.coverage == 1).all(axis=1))
    offsets = []
    for i in whole:
        flux = sky.images[i].astype(float)
        central = flux[:, 26:38, 26:38].sum(axis=(1, 2))
        if (central > 500 * sky.noise[i]).all():
            g, r, infrared = (centroid(band) for band in flux)
            offsets += [g - r, infrared - r]
    assert len(offsets) > 20
    apart = np.abs(np.median(offsets, axis=0)).max()
    # The astrometry of SDSS's bands agrees to some 30 milliarcsec, 0.08 pixel.
    assert apart < 0.1, f"bands are {apart:.3f} pixel apart in the median"
