"""What is drawn: deterministic, consistent with itself, and where it says it is."""

import numpy as np
import pytest

from gzscale.sky import population, scan


@pytest.fixture(scope="module")
def table():
    return population.draw(1000, seed=3)


@pytest.fixture(scope="module")
def truth(table):
    return table.to_pandas()


def test_same_seed_same_table(table):
    assert population.draw(1000, seed=3).equals(table)
    assert not population.draw(1000, seed=4)["ra"].equals(table["ra"])


def test_counts_and_identifiers(truth):
    assert truth.catalogued.sum() == 1000
    assert len(truth) == 1000 + 4 * population.FIELD_STARS
    assert truth.object_id.is_monotonic_increasing
    assert truth.object_id.is_unique
    assert truth.groupby(["camcol", "field"]).catalogued.sum().eq(250).all()
    assert set(truth.kind) == {*population.KINDS, "star"}


def test_an_object_lies_in_the_field_that_owns_it(truth):
    column, row = scan.sky_to_pixel(3, "r", truth.mu, truth.nu)
    np.testing.assert_array_equal(scan.primary_field(row, 4), truth.field)
    assert np.all((column >= -0.5) & (column <= 2047.5))
    first, last = row[truth.field == 11], row[truth.field == 14]
    assert first.min() < 64
    assert last.max() > 3 * scan.FIELD_STEP + 1425


def test_magnitudes_are_the_sum_of_the_bodies(truth):
    total = sum(np.stack(truth[f"flux_{body}"]) for body in population.BODIES)
    mags = truth[[f"mag_{band}" for band in scan.BANDS]].to_numpy()
    np.testing.assert_allclose(22.5 - 2.5 * np.log10(total), mags, atol=1e-9)
    shares = truth[[f"fraction_{body}" for body in population.BODIES]].sum(axis=1)
    np.testing.assert_allclose(shares, 1, atol=1e-9)


def test_galaxies_are_plausible(truth):
    galaxies = truth[truth.kind != "star"]
    assert galaxies.mag_r.between(14, 19).all()
    colour = (galaxies.mag_g - galaxies.mag_r).groupby(galaxies.kind).median()
    assert colour["elliptical"] > colour["spiral"] > colour["irregular"]
    assert galaxies.redshift.between(0.005, 0.4).all()
    bright, faint = galaxies.mag_r < 16, galaxies.mag_r > 18
    assert galaxies[bright].half_light_radius.median() > 1.5 * galaxies[faint].half_light_radius.median()
    assert truth[truth.kind == "star"].redshift.isna().all()


def test_units_stand_in_the_fields(table):
    units = {field.name: field.metadata[b"unit"].decode() for field in table.schema if field.metadata}
    assert units["ra"] == "deg"
    assert units["half_light_radius"] == "arcsec"
    assert units["mag_r"] == "mag"
