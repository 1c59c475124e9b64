"""The footprint index against a search by brute force with wcslib."""

import io

import numpy as np
import pytest
from astropy.io import fits
from small_frames import SCALE
from test_tan import astropy_of

from gzscale.errors import ConfigError
from gzscale.surveys.footprints import (
    Footprints,
    footprints_of,
    read_footprints,
    stripe_to_sky,
    window_flist_footprints,
    write_footprints,
)
from gzscale.surveys.tan import TanFrame


def some_frames(ra0, dec0, rng, n=40):
    """Frames that overlap at random around a point, turned at random."""
    frames = {}
    for i in range(n):
        turn = rng.uniform(0, 2 * np.pi)
        ra = (ra0 + rng.normal(0, 0.03) / max(np.cos(np.radians(dec0)), 1e-3)) % 360
        cd = SCALE * np.array([-np.cos(turn), np.sin(turn), np.sin(turn), np.cos(turn)])
        dec = min(90.0, dec0 + abs(rng.normal(0, 0.03)) * (-1 if dec0 > 0 else 1))
        frames[1000 + i, 1 + i % 6, i] = TanFrame((ra, dec), (128.5, 150.5), tuple(cd), (300, 256))
    return frames


@pytest.mark.parametrize(
    ("ra0", "dec0"), [(150.0, 2.0), (0.0, 0.0), (40.0, 90.0), (77.0, -90.0), (359.99, 60.0)]
)
def test_search_finds_the_frame_that_holds_the_position_deepest(ra0, dec0):
    rng = np.random.default_rng(int(ra0))
    frames = some_frames(ra0, dec0, rng)
    index = footprints_of(frames)
    keys = sorted(frames)
    ra, dec = [], []
    for key in keys:
        x, y = rng.uniform(-30, 290, 12), rng.uniform(-30, 330, 12)
        position = astropy_of(frames[key]).all_pix2world(x, y, 0)
        ra += position[0].tolist()
        dec += position[1].tolist()
    ra, dec = np.array(ra), np.array(dec)
    depth = np.full((len(keys), len(ra)), -np.inf)
    for i, key in enumerate(keys):
        x, y = astropy_of(frames[key]).all_world2pix(ra, dec, 0)
        ny, nx = frames[key].shape
        depth[i] = np.min([x + 0.5, nx - 0.5 - x, y + 0.5, ny - 0.5 - y], axis=0)
    truth = np.where(depth.max(axis=0) >= 0, depth.argmax(axis=0), -1)
    found = index.search(ra, dec)
    assert set(truth.tolist()) > {-1}
    np.testing.assert_array_equal(found, truth)


def test_far_away_nothing_is_found():
    index = footprints_of(some_frames(150.0, 2.0, np.random.default_rng(0)))
    assert index.search(np.array([330.0, 150.0, 150.0]), np.array([-2.0, 4.0, -88.0])).tolist() == [
        -1,
        -1,
        -1,
    ]
    assert footprints_of({}).search(np.array([1.0]), np.array([1.0])).tolist() == [-1]


def test_an_index_comes_back_from_its_file(tmp_path):
    index = footprints_of(some_frames(150.0, 2.0, np.random.default_rng(0)))
    write_footprints(index, f"{tmp_path}/index.parquet")
    first = (tmp_path / "index.parquet").read_bytes()
    again = read_footprints(f"{tmp_path}/index.parquet")
    for name in ("exposures", "shapes", "parameters"):
        np.testing.assert_array_equal(getattr(again, name), getattr(index, name))
    write_footprints(again, f"{tmp_path}/index.parquet")
    assert (tmp_path / "index.parquet").read_bytes() == first


def test_what_is_no_index(tmp_path):
    with pytest.raises(ConfigError, match=r"index\.parquet"):
        read_footprints(f"{tmp_path}/index.parquet")
    (tmp_path / "index.parquet").write_bytes(b"nonsense")
    with pytest.raises(ConfigError, match="not a footprint index"):
        read_footprints(f"{tmp_path}/index.parquet")
    (tmp_path / "window_flist.fits").write_bytes(b"SIMPLE  = nonsense")
    with pytest.raises(ConfigError, match="window_flist"):
        read_footprints(f"{tmp_path}/window_flist.fits")


def rotated(mu, nu, node, incl):
    """Great circle coordinates by two rotations: about x by the inclination, about z by the node."""
    m, n, i, o = map(np.radians, (mu - node, nu, incl, node))
    vector = np.array([np.cos(m) * np.cos(n), np.sin(m) * np.cos(n), np.sin(n)])
    about_x = np.array([[1, 0, 0], [0, np.cos(i), -np.sin(i)], [0, np.sin(i), np.cos(i)]])
    about_z = np.array([[np.cos(o), -np.sin(o), 0], [np.sin(o), np.cos(o), 0], [0, 0, 1]])
    x, y, z = about_z @ about_x @ vector
    return np.degrees(np.arctan2(y, x)) % 360, np.degrees(np.arcsin(z))


def test_stripe_coordinates_are_two_rotations():
    rng = np.random.default_rng(3)
    for mu, nu, incl in zip(
        rng.uniform(0, 360, 30), rng.uniform(-3, 3, 30), rng.uniform(-50, 90, 30), strict=True
    ):
        np.testing.assert_allclose(stripe_to_sky(mu, nu, 95.0, incl), rotated(mu, nu, 95.0, incl), atol=1e-9)


def window_flist(**columns) -> bytes:
    sink = io.BytesIO()
    formats = {"RERUN": "3A", "RUN": "J", "CAMCOL": "I", "FIELD": "J"}
    table = fits.BinTableHDU.from_columns(
        [
            fits.Column(name, formats.get(name, "D"), array=np.asarray(values))
            for name, values in columns.items()
        ]
    )
    fits.HDUList([fits.PrimaryHDU(), table]).writeto(sink)
    return sink.getvalue()


def test_sdss_s_own_list_of_fields():
    rows, across = 1489 * SCALE, 2048 * SCALE
    data = window_flist(
        RUN=[3918, 3918, 94], RERUN=["301", "301", "157"], CAMCOL=[3, 3, 1], FIELD=[213, 214, 11],
        NODE=[95.0] * 3, INCL=[52.5] * 3, MU_START=[216.0, 216.15, 10],
        MU_END=[216.0 + rows, 216.15 + rows, 10.1],
        NU_START=[-0.2, -0.2, 0], NU_END=[-0.2 + across, -0.2 + across, 0.2],
    )  # fmt: skip
    index = window_flist_footprints(data, "window_flist.fits")
    assert isinstance(index, Footprints)
    assert index.exposures.tolist() == [[3918, 3, 213], [3918, 3, 214]]
    np.testing.assert_allclose(index.shapes, [[1489, 2048]] * 2, atol=2)
    # Corners: rows run along mu, columns along nu.
    corners = [(216.0, -0.2, 0, 0), (216.0 + rows, -0.2, 0, 1488), (216.0, -0.2 + across, 2047, 0)]
    from gzscale.surveys.tan import tan_pixels

    for mu, nu, x, y in corners:
        ra, dec = rotated(mu, nu, 95.0, 52.5)
        np.testing.assert_allclose(tan_pixels(index.parameters[0], ra, dec), (x, y), atol=3)
    ra, dec = rotated(216.01, 0.0, 95.0, 52.5)
    assert index.search(np.array([ra]), np.array([dec])).tolist() == [0]
