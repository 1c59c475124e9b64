import numpy as np
import pytest
from astropy.io.votable import ucd
from astropy.units import Unit
from scipy import stats

from gzscale.catalog.redshift_columns import REDSHIFT_COLUMNS, RedshiftFlag
from gzscale.catalog.schema import arrow_schema, release_columns
from gzscale.errors import BundleError
from gzscale.tasks.base import DistributionTask, Seen, load_task
from gzscale.tasks.redshifts import RedshiftsTask

BINS = 80
CALIBRATION = {
    "limit": 0.4,
    "bins": BINS,
    "temperature": 1.0,
    "pit": [0.0, 0.5, 1.0],
    "bands": "ugr",
    "reference": "r",
    "flux": [10.0, 1000.0],
    "saturation": {"u": 50.0, "g": 50.0, "r": 50.0},
}
EDGES = np.linspace(0, 0.4, BINS + 1)


def outputs(*mean, sigma=0.01):
    total = stats.norm.cdf(EDGES, np.array(mean)[:, None], sigma)
    share = np.diff(total, axis=1)
    return {"pdf": (share / share.sum(axis=1, keepdims=True)).astype(np.float32)}


def seen(count, **changes):
    ones = np.ones((count, 3), np.float32)
    values = {
        "bands": "ugr",
        "measured": np.ones((count, 3), bool),
        "coverage": ones,
        "noise": 0.01 * ones,
        "flux": 100 * ones,
        "brightest": 3 * ones,
        "extinction": np.zeros(count, np.float32),
    }
    return Seen(**(values | changes))


def change(values, row, column, value):
    values = values.copy()
    values[row, column] = value
    return values


@pytest.mark.parametrize("column", REDSHIFT_COLUMNS, ids=lambda column: column.name)
def test_columns_are_described_in_the_fields_vocabularies(column):
    assert ucd.check_ucd(column.ucd, check_controlled_vocabulary=True)
    assert Unit(column.unit, format="vounit") is not None
    assert len(column.description.split()) >= 4


def test_it_is_found_by_its_name_and_its_columns_make_a_schema():
    task = load_task("redshifts")
    assert isinstance(task, RedshiftsTask)
    assert isinstance(task, DistributionTask)
    assert not isinstance(load_task("morphology"), DistributionTask)
    assert len(arrow_schema(release_columns(task.columns))) == 5 + len(REDSHIFT_COLUMNS)


def test_good_objects_have_numbers_and_no_flag():
    values, finite = RedshiftsTask().table(outputs(0.1, 0.2), CALIBRATION, seen(2))
    assert finite.all()
    assert values["z_flags"].tolist() == [0, 0]
    assert values["z_flags"].dtype == np.int32
    np.testing.assert_allclose(values["z_median"], [0.1, 0.2], atol=1e-4)
    np.testing.assert_allclose(values["z_high68"] - values["z_low68"], 0.02, rtol=0.03)
    assert not np.ma.getmaskarray(values["z_mode"]).any()
    density = values["redshift_pdf"]
    assert density.dtype == np.float16
    assert (density.astype(np.float64).sum(axis=1) * 0.4 / BINS) == pytest.approx(1, abs=1e-3)


def test_every_bad_input_has_its_flag_and_the_hopeless_no_number():
    plain = seen(8)
    nothing = np.full(8, False)
    observed = seen(
        8,
        measured=change(plain.measured, 0, 0, False),
        flux=change(change(change(plain.flux, 1, 0, -1.0), 2, 2, -1.0), 6, 2, 5000.0),
        brightest=change(change(plain.brightest, 3, 2, 99.0), 7, 0, 99.0),
        coverage=change(plain.coverage, 4, 1, 0.5),
        extinction=np.where(np.arange(8) == 5, np.nan, 0).astype(np.float32),
    )
    values, finite = RedshiftsTask().table(outputs(*[0.1] * 8), CALIBRATION, observed)
    flag = RedshiftFlag
    assert values["z_flags"].tolist() == [
        flag.BAND_MISSING,
        flag.NEGATIVE_FLUX,
        flag.NEGATIVE_FLUX | flag.UNUSUAL_FLUX,
        flag.SATURATED,
        flag.PARTLY_COVERED,
        flag.EXTINCTION_UNKNOWN,
        flag.UNUSUAL_FLUX,
        flag.SATURATED,
    ]
    assert finite.all()
    nothing[[2, 3]] = True
    assert np.array_equal(np.ma.getmaskarray(values["z_median"]), nothing)


def test_a_band_that_the_survey_lacks_is_flagged_for_all():
    lacking = seen(2)
    columns = (lacking.measured, lacking.coverage, lacking.noise, lacking.flux, lacking.brightest)
    less = Seen("gr", *(array[:, 1:] for array in columns), lacking.extinction)
    values, _ = RedshiftsTask().table(outputs(0.1, 0.2), CALIBRATION, less)
    assert values["z_flags"].tolist() == [RedshiftFlag.BAND_MISSING] * 2


def test_a_flat_pdf_gives_no_number_and_one_at_the_end_is_flagged():
    made = outputs(0.2, 0.399)
    made["pdf"][0] = 1 / BINS
    values, _ = RedshiftsTask().table(made, CALIBRATION, seen(2))
    flags = values["z_flags"]
    assert flags[0] & RedshiftFlag.FLAT_PDF
    assert np.ma.getmaskarray(values["z_mean"]).tolist() == [True, False]
    assert flags[1] == RedshiftFlag.END_OF_GRID


def test_output_that_is_not_finite_is_no_answer():
    made = outputs(0.1, 0.2, 0.3)
    made["pdf"][1, 3] = np.nan
    made["pdf"][2] = 0
    assert RedshiftsTask().table(made, CALIBRATION, seen(3))[1].tolist() == [True, False, False]


@pytest.mark.parametrize("lost", ["limit", "temperature", "bands", "flux", "saturation"])
def test_a_bundle_without_its_calibration_is_refused(lost):
    calibration = {key: value for key, value in CALIBRATION.items() if key != lost}
    with pytest.raises(BundleError, match=lost):
        RedshiftsTask().table(outputs(0.1), calibration, seen(1))


def test_nothing_to_be_said_of_nothing():
    values, finite = RedshiftsTask().table({"pdf": np.empty((0, BINS), np.float32)}, CALIBRATION, seen(0))
    assert len(finite) == 0
    assert values["redshift_pdf"].shape == (0, BINS)
