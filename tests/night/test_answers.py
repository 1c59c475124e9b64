"""What was measured reaches the tasks; what cannot be answered is said, and nothing is lost."""

from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest

from gzscale.catalog.schema import QUARANTINE_SCHEMA, Column
from gzscale.cutouts.account import GAPS_SCHEMA, STATUS
from gzscale.cutouts.store import Cutouts
from gzscale.errors import Reason
from gzscale.night.answers import merge_answers, observe, take_answers, usable_rows
from gzscale.tasks.seen import look

IDS = [40, 10, 30, 20]


@pytest.fixture
def cutouts():
    images = np.random.default_rng(0).normal(0.1, 0.01, (4, 3, 8, 8)).astype(np.float16)
    images[1, 0] = np.nan
    images[2, 1] = 0
    images[3, 2, :4] = np.nan
    status = np.zeros((4, 3), np.uint8)
    status[1, 0] = STATUS.index("MISSING_IMAGE")
    return Cutouts(
        geometry={"name": "sky", "size": 8, "scale": 0.4},
        bands="ugr",
        images=images,
        object_id=np.array(IDS),
        ra=np.arange(4.0),
        dec=np.zeros(4),
        scale=np.full(4, 0.4),
        coverage=np.isfinite(images).mean(axis=(2, 3)).astype(np.float32),
        noise=np.full((4, 3), 0.01, np.float32),
        band_status=status,
        status_meanings=tuple(STATUS),
        image_index=np.zeros((4, 3, 1), np.int32),
        sources=(),
    )


GAPS = pa.Table.from_pylist(
    [{"geometry": "sky", "object_id": 10, "band": "u", "reason": "MISSING_IMAGE", "detail": "not there"}],
    schema=pa.schema(
        [
            field
            for field in GAPS_SCHEMA
            if field.name in ("geometry", "object_id", "band", "reason", "detail")
        ]
    ),
)


def rows(**more):
    ids = sorted([*IDS, 99])
    base = {"_healpix_29": ids, "object_id": ids, "ra": np.arange(5.0), "dec": np.zeros(5)}
    return pa.table(base | more)


def bundle(required, flux=True, bands="ugriz"):
    return SimpleNamespace(required=required, bands=bands, measures_flux=flux, calibration={})


class Counting:
    """A task that writes how many bands were measured, and nothing where it is fewer than all."""

    name = "counting"
    columns = (Column("measured", "int32", "", "meta.number", "Bands"),)

    def table(self, outputs, calibration, seen):
        count = seen.measured.sum(axis=1).astype(np.int32)
        return {"measured": np.ma.masked_array(count, mask=count < 3)}, np.isfinite(outputs["x"][:, 0])


def test_extinction_goes_to_its_object_and_is_nan_where_the_catalog_has_none(cutouts):
    ebv = pa.array([0.1, 0.2, None, 0.4, 0.9], pa.float32())
    np.testing.assert_allclose(observe(cutouts, rows(ebv=ebv)).extinction, [0.4, 0.1, np.nan, 0.2])
    assert np.isnan(observe(cutouts, rows()).extinction).all()
    assert np.array_equal(observe(cutouts, rows()).noise, cutouts.noise)


def test_only_bands_that_are_required_must_be_there(cutouts):
    seen = look(observe(cutouts, rows()))
    assert usable_rows(cutouts, seen, bundle("r")).tolist() == [0, 1, 2, 3]
    assert usable_rows(cutouts, seen, bundle("ur")).tolist() == [0, 2, 3]
    assert usable_rows(cutouts, seen, bundle("ugr")).tolist() == [0, 3]
    # Zeros are black in a picture, and no measurement of flux.
    assert usable_rows(cutouts, seen, bundle("ugr", flux=False)).tolist() == [0, 2, 3]


def test_what_has_no_answer_is_lost_by_name_and_the_rest_is_answered(cutouts):
    made = bundle("ugr")
    seen = look(observe(cutouts, rows()))
    answers = take_answers(Counting(), "sky", cutouts, GAPS, seen, made, {"x": np.zeros((2, 1))})
    assert answers.object_id.tolist() == [40, 20]
    assert {key: reason for key, (reason, _) in answers.lost.items()} == {
        10: Reason.MISSING_IMAGE,
        30: Reason.BLANK_BAND,
    }
    assert answers.coverage.tolist() == [1.0, 0.5]


def test_masked_values_become_null(cutouts):
    seen = look(observe(cutouts, rows()))
    outputs = {"x": np.array([[0.0], [0.0], [0.0], [np.nan]])}
    answers = take_answers(Counting(), "sky", cutouts, GAPS, seen, bundle("r"), outputs)
    assert answers.lost[20][0] == Reason.NONFINITE_OUTPUT
    assert answers.coverage.tolist() == [1.0, 1.0, 1.0]
    lost = pa.Table.from_pylist(
        [{"object_id": 99, "ra": 4.0, "dec": 0.0, "stage": "cut", "task": "sky", "reason": "BAD_SIZE"}],
        schema=QUARANTINE_SCHEMA,
    )
    merged = merge_answers(rows(), [answers], lost)
    assert merged.table["object_id"].to_pylist() == [10, 30, 40]
    assert merged.table["measured"].to_pylist() == [None, None, 3]
    assert merged.counts["counting"].quarantined == {"BAD_SIZE": 1, "NONFINITE_OUTPUT": 1}
    assert merged.counts["counting"].closes
