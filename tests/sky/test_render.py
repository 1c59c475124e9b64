"""What is drawn against GalSim's own drawing, against truth magnitudes and against profiles' formulae."""

import galsim
import numpy as np
import pytest
from astropy.wcs import WCS

from gzscale.sky import camera, population, render, scan

KEY = scan.FieldKey(3, 12)


@pytest.fixture(scope="module")
def rows():
    return population.draw(750, seed=11).to_pylist()


def pick(rows, kind, column=1000.3, row=700.6, low=15.0, high=16.5):
    found = next(r for r in rows if r["kind"] == kind and low < r["mag_r"] < high)
    return put(found, column, row)


def put(found, column, row):
    mu, nu = scan.mu_nu(3, "r", column, KEY.first_row + row)
    return found | {"camcol": 3, "field": KEY.field, "mu": float(mu), "nu": float(nu)}


@pytest.mark.parametrize("kind", ["elliptical", "barred_spiral", "edge_on", "merger"])
def test_stamp_is_what_galsim_draws(rows, kind):
    row = pick(rows, kind)
    bottom, left, stamp = render.draw_object(row)["g"]
    parts = [body * row[f"flux_{name}"][1] for name, body in render.bodies(row).items()]
    column, line = scan.sky_to_pixel(3, "g", row["mu"], row["nu"])
    expected = galsim.Convolve(galsim.Sum(parts), galsim.Moffat(3.5, fwhm=camera.SEEING["g"])).drawImage(
        nx=len(stamp) + 1,
        ny=len(stamp) + 1,
        scale=0.396,
        offset=(column - round(float(column)), line - round(float(line))),
    )
    difference = stamp - expected.array[:-1, :-1]
    assert np.abs(difference).max() < 0.003 * stamp.max()
    assert (bottom, left) == (round(float(line)) - len(stamp) // 2, round(float(column)) - len(stamp) // 2)


@pytest.mark.parametrize("kind", ["elliptical", "spiral", "star"])
def test_aperture_flux_is_the_true_magnitude(rows, kind):
    row = pick(rows, kind)
    frames, _ = render.draw_field(KEY, [row])
    pixels = camera.observe(frames["r"], KEY, "r", seed=2)
    y, x = np.mgrid[: scan.ROWS, : scan.COLUMNS]
    aperture = np.hypot(x - 1000.3, y - 700.6) < 200
    expected = 10 ** (0.4 * (22.5 - row["mag_r"]))
    counts = expected / camera.NANOMAGGIES_PER_COUNT["r"]
    noise = np.sqrt(aperture.sum() * (97 / 4.72 + 1.3225) + counts / 4.72) * camera.NANOMAGGIES_PER_COUNT["r"]
    assert abs(pixels[aperture].sum() - expected) < 4 * noise + 0.003 * expected


def centroid(window):
    """Position of a star's light under a Gaussian weight that moves along, from the window's middle."""
    half = len(window) // 2
    y, x = np.mgrid[-half : half + 1, -half : half + 1]
    cx = cy = 0.0
    for _ in range(50):
        weight = window * np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / 8)
        cx, cy = cx + (weight * (x - cx)).sum() / weight.sum(), cy + (weight * (y - cy)).sum() / weight.sum()
    return cx, cy


def test_bands_agree_on_the_sky(rows):
    # The brightest in u, so that noise moves it by a hundredth of a pixel at most.
    star = min((r for r in rows if r["kind"] == "star"), key=lambda r: r["mag_u"])
    row = put(star, 321.7, 1222.2)
    frames, _ = render.draw_field(KEY, [row])
    places = []
    for band, frame in frames.items():
        pixels = camera.observe(frame, KEY, band, seed=2)
        top, left = (int(i) for i in np.unravel_index(pixels.argmax(), pixels.shape))
        x, y = centroid(pixels[top - 7 : top + 8, left - 7 : left + 8].astype(float))
        header = scan.frame_wcs(KEY, band)
        wcs = WCS(naxis=2)
        wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
        wcs.wcs.crpix, wcs.wcs.crval, wcs.wcs.cd = header.crpix, header.crval, header.cd
        places.append(wcs.all_pix2world(left + x, top + y, 0))
    ra, dec = np.array(places).T
    truth = scan.pixel_to_sky(3, "r", 321.7, KEY.first_row + 1222.2)
    east, north = (ra - truth[0]) * np.cos(np.radians(dec)) * 3600, (dec - truth[1]) * 3600
    assert np.hypot(east, north).max() < 0.05 * scan.PIXEL_SCALE


def test_neighbouring_fields_draw_the_same_in_their_common_rows(rows):
    # An object on the edge is drawn from either side.
    near = [
        pick(rows, "spiral", 900.0, 1380.0),
        pick(rows, "star", 920.0, 1300.0),
        pick(rows, "merger", 500.0, 1500.0),
    ]
    here, _ = render.draw_field(KEY, near)
    there, _ = render.draw_field(scan.FieldKey(3, 13), near)
    assert here["z"][scan.FIELD_STEP :].max() > 1
    for band in scan.BANDS:
        np.testing.assert_array_equal(
            here[band][scan.FIELD_STEP :], there[band][: scan.ROWS - scan.FIELD_STEP]
        )


def test_position_angle_is_north_through_east(rows):
    row = pick(rows, "edge_on") | {"position_angle": 30.0}
    _, _, stamp = render.draw_object(row)["r"]
    y, x = np.mgrid[: len(stamp), : len(stamp)] - len(stamp) // 2
    ra, dec = scan.pixel_to_sky(3, "r", 1000.3 + x, KEY.first_row + 700.6 + y)
    east, north = (ra - ra[len(ra) // 2, len(ra) // 2]) * np.cos(np.radians(dec)), dec - dec.mean()
    east, north = east - np.average(east, weights=stamp), north - np.average(north, weights=stamp)
    ee, nn, en = (np.average(q, weights=stamp) for q in (east**2, north**2, east * north))
    assert np.degrees(np.arctan2(2 * en, nn - ee) / 2) == pytest.approx(30, abs=2)


def test_stamps_hold_their_objects(rows):
    # Light that a stamp would cut off, or fold back, is a tenth of the noise of a pixel at most.
    for row in rows[::5]:
        stamp = render.draw_object(row)["r"][2]
        border = [stamp[0].max(), stamp[-1].max(), stamp[:, 0].max(), stamp[:, -1].max()]
        assert max(border) < 0.1 * 0.024, row


def test_petrosian_of_an_exponential_disc():
    # r_P = 3.586 h, 99.4 % of the light within 2 r_P: r50 = 1.665 h, r90 = 3.78 h (Graham et al. 2005).
    scale = 15.0
    y, x = np.mgrid[-256:256, -256:256]
    stamp = np.exp(-np.hypot(x, y) / scale) / (2 * np.pi * scale**2) * 1000
    mag, r50, r90 = render.petrosian(stamp.astype(np.float32))
    assert mag == pytest.approx(22.5 - 7.5 + 0.0068, abs=0.004)
    assert r50 / 0.396 == pytest.approx(1.665 * scale, rel=0.01)
    assert r90 / 0.396 == pytest.approx(3.80 * scale, rel=0.02)
