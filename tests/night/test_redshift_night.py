"""A night with two tasks: pixels are read once, redshifts are released with their PDFs and flags."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import qp
from conftest import run_night
from hats.io.validation import is_valid_collection
from toy import toy_catalog, toy_config, write_redshift_bundle

from gzscale.catalog.redshift_columns import RedshiftFlag
from gzscale.night import answering
from gzscale.night.explain import explain
from gzscale.night.pointer import read_manifest
from gzscale.night.report import write_report
from gzscale.night.verify import verify
from gzscale.storage import open_storage


@pytest.fixture(scope="module")
def two(toy, tmp_path_factory):
    """A night of both tasks on one geometry, with the number of times that its cutouts were read."""
    folder = tmp_path_factory.mktemp("two")
    bundle = write_redshift_bundle(folder / "redshifts.safetensors")
    toy_config(folder)
    table = toy_catalog()
    ebv = pa.array([0.1 if number % 3 else None for number in range(table.num_rows)], pa.float32())
    pq.write_table(table.append_column("ebv", ebv), folder / "catalog.parquet")
    columns = {"object_id": "id", "ra": "ra", "dec": "dec", "size": "r90", "ebv": "ebv"}
    tasks = {
        "morphology": {"geometry": "galaxy", "bundle": str(folder / "toy.safetensors")},
        "redshifts": {"geometry": "galaxy", "bundle": str(bundle)},
    }
    config = toy_config(folder)
    pq.write_table(table.append_column("ebv", ebv), folder / "catalog.parquet")
    catalog = config.catalog.model_copy(update={"columns": columns})
    config = type(config).model_validate(
        config.model_dump() | {"tasks": tasks, "catalog": catalog.model_dump()}
    )
    reads = []
    with pytest.MonkeyPatch.context() as patch:
        real = answering.read_cutouts
        patch.setattr(answering, "read_cutouts", lambda *args: reads.append(args[2]) or real(*args))
        yield run_night(config), reads


def test_pixels_are_read_once_for_the_tasks_that_share_a_geometry(two):
    ran, reads = two
    assert reads == ["galaxy"] * len(ran.plan.partitions)
    assert ran.record.counts["redshifts"].closes
    assert ran.record.counts["redshifts"].done == ran.record.counts["morphology"].done == 40


def test_both_catalogs_are_released_and_valid(two):
    ran, _ = two
    root = Path(ran.config.output, "releases", ran.record.release)
    manifest = read_manifest(open_storage(ran.config.output), ran.record.release)
    assert manifest["rows"] == {"morphology": 40, "redshifts": 40}
    for task in ("morphology", "redshifts"):
        assert is_valid_collection(root / task, strict=True)
    assert verify(ran.config.output) == []


def test_qp_reads_the_pdfs_row_by_row_as_the_catalog_has_them(two):
    ran, _ = two
    root = Path(ran.config.output, "releases", ran.record.release, "redshifts")
    files = sorted(root.glob("redshifts_pdfs/**/*.hdf5"))
    assert files
    rows = 0
    for path in files:
        ensemble = qp.read(path)
        data = (
            root / "redshifts" / "dataset" / path.relative_to(root / "redshifts_pdfs").with_suffix(".parquet")
        )
        table = pq.read_table(data)
        assert ensemble.ancil["object_id"].tolist() == table["object_id"].to_pylist()
        given = np.flatnonzero(table["z_mean"].is_valid().to_numpy(zero_copy_only=False))
        for column, told in (("z_mean", ensemble.mean()), ("z_low68", ensemble.ppf(0.16))):
            np.testing.assert_allclose(told.ravel()[given], table[column].to_numpy()[given], atol=1e-4)
        flags = table["z_flags"].to_numpy()
        # Some of the toy's stamps hold noise alone: no number is given of them, and the flag says why.
        positive = np.flatnonzero((flags & RedshiftFlag.NEGATIVE_FLUX) == 0)
        assert set(positive) <= set(given)
        missing, unknown = RedshiftFlag.BAND_MISSING, RedshiftFlag.EXTINCTION_UNKNOWN
        assert (flags & missing).all()
        dusty = (flags & unknown) != 0
        assert dusty.any()
        assert not dusty.all()
        rows += table.num_rows
    assert rows == 40


def test_damage_to_the_pdfs_is_found(two):
    ran, _ = two
    root = Path(ran.config.output, "releases", ran.record.release, "redshifts")
    path = next(root.glob("redshifts_pdfs/**/*.hdf5"))
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    findings = verify(ran.config.output)
    path.write_bytes(whole)
    assert [finding.where.endswith(".hdf5") for finding in findings] == [True]


def test_the_report_and_the_story_of_an_object_tell_them(two):
    ran, _ = two
    page = Path(write_report(ran.config.output).removeprefix("file://")).read_text()
    assert "a band is missing" in page
    assert "40 objects with a PDF" in page
    told = explain(ran.config.output, 1001)["predictions"]["redshifts"]["columns"]
    assert told["z_median"] is None or 0 < told["z_median"] < 0.4
    assert told["z_flags"] & RedshiftFlag.BAND_MISSING


def test_the_same_night_gives_the_same_bytes(two, tmp_path):
    ran, _ = two
    again = run_night(ran.config.model_copy(update={"output": str(tmp_path / "again")}))
    manifests = [
        read_manifest(open_storage(each.config.output), each.record.release) for each in (ran, again)
    ]
    assert manifests[0]["files"] == manifests[1]["files"]
