"""The synthetic run's geometry against astropy and against formulae written here."""

import numpy as np
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.wcs import WCS
from hypothesis import given
from hypothesis import strategies as st

from gzscale.errors import ConfigError
from gzscale.sky import scan


def tan(key, band):
    header = scan.frame_wcs(key, band)
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crpix, wcs.wcs.crval, wcs.wcs.cd = header.crpix, header.crval, header.cd
    return wcs


@pytest.mark.parametrize("band", scan.BANDS)
@pytest.mark.parametrize("key", [scan.FieldKey(3, 11), scan.FieldKey(4, 60)])
def test_header_places_every_pixel_to_a_hundredth(key, band):
    x, y = (g.ravel() for g in np.meshgrid(np.linspace(0, 2047, 7), np.linspace(0, 1488, 7)))
    ra, dec = scan.pixel_to_sky(key.camcol, band, x, key.first_row + y)
    there = tan(key, band).all_world2pix(ra, dec, 0)
    assert np.abs(there[0] - x).max() < 0.01
    assert np.abs(there[1] - y).max() < 0.01


def test_great_circle_is_the_one_that_the_header_names():
    # The pole of a circle that ascends at NODE with inclination INCL lies at (NODE - 90, 90 - INCL).
    ra, dec = scan.pixel_to_sky(3, "r", 500.0, np.array([0.0, 50_000.0]))
    _, nu = scan.mu_nu(3, "r", 500.0, 0.0)
    pole = SkyCoord((scan.NODE - 90) * u.deg, (90 - scan.INCLINATION) * u.deg)
    away = SkyCoord(ra * u.deg, dec * u.deg).separation(pole).deg
    np.testing.assert_allclose(away, 90 - nu, atol=1e-9)
    assert np.all((dec > 5) & (dec < 12))


def test_scale_and_parity_are_those_of_sdss():
    cd = scan.frame_wcs(scan.FieldKey(3, 30), "r").cd
    np.testing.assert_allclose(np.hypot(*cd) * 3600, 0.396, rtol=1e-3)
    assert np.linalg.det(cd) < 0


@given(st.floats(-20, 2070), st.floats(-100, 1e6), st.sampled_from(scan.BANDS), st.integers(1, 6))
def test_sky_to_pixel_inverts(column, row, band, camcol):
    back = scan.sky_to_pixel(camcol, band, *scan.mu_nu(camcol, band, column, row))
    np.testing.assert_allclose(back, (column, row), atol=1e-5)


def test_column_angle_is_the_position_angle_of_the_columns():
    ra, dec = scan.pixel_to_sky(4, "r", np.array([900.0, 1100.0]), 3000.0)
    points = SkyCoord(ra * u.deg, dec * u.deg)
    expected = points[0].position_angle(points[1]).wrap_at(180 * u.deg).deg
    assert scan.column_angle(4, 1000.0, 3000.0) == pytest.approx(expected, abs=1e-3)


def test_object_id_has_the_bits_of_a_dr8_objid():
    # The pair that pydl's sdss_objid documents for run 3704, with this run's number put in.
    known = 1237661382772195474 - (3704 << 32) + (scan.RUN << 32)
    assert int(scan.object_id(3, 91, 146)) == known


@given(st.integers(1, 6), st.integers(0, 4095), st.integers(0, 65535))
def test_object_id_decodes(camcol, field, number):
    value = int(scan.object_id(camcol, field, number))
    assert value >> 59 & 15 == 2
    assert value >> 48 & 2047 == 301
    assert value >> 32 & 65535 == scan.RUN
    assert (value >> 29 & 7, value >> 28 & 1, value >> 16 & 4095, value & 65535) == (camcol, 0, field, number)


def test_exposures_fill_one_camera_column_then_two():
    assert {key.camcol for key in scan.exposures(20)} == {3}
    eighty = scan.exposures(80)
    assert len(set(eighty)) == 80
    assert {key.camcol for key in eighty} == {3, 4}
    assert eighty == sorted(eighty)
    with pytest.raises(ConfigError, match="at most 5400"):
        scan.exposures(5401)


def test_primary_field_changes_after_64_rows_of_the_next():
    rows = [0, 63, 1361 + 63.9, 1361 + 64, 2 * 1361 + 1488]
    assert (scan.primary_field(rows, 3) - scan.FIRST_FIELD).tolist() == [0, 0, 0, 1, 2]
