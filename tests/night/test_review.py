"""Review lists of a release and completeness, on a small night with lenses in its catalog."""

import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from click.testing import CliRunner
from conftest import run_night
from PIL import Image as Picture
from toy import CENTRES, toy_config

from gzscale.cli import main
from gzscale.errors import MissingError
from gzscale.models.bundle import Bundle, BundleGeometry, write_bundle
from gzscale.models.engine import Engine
from gzscale.models.inputs import SDSS_REDDENING, FluxInputs
from gzscale.models.network import build_network
from gzscale.night.candidates import completeness_key, read_completeness, review_name
from gzscale.night.completeness import AXES, measure_completeness
from gzscale.night.report import write_report
from gzscale.night.review import list_length, write_review
from gzscale.night.verify import verify
from gzscale.sky import deflectors
from gzscale.storage import open_storage
from gzscale.tasks.base import load_task
from gzscale.tasks.lenses import RADIUS_EDGES
from gzscale.tasks.morphology import MorphologyTask

OBJECTS = 60


def lens_bundle(path):
    torch.manual_seed(4)
    parameters = {
        "channels": 6,
        "widths": [2, 2],
        "blocks": [1, 1],
        "heads": {"lens": "lens", "einstein_radius": {"kind": "pdf", "bins": len(RADIUS_EDGES) - 1}},
        "mean": 0.0,
        "spread": 2.0,
    }
    network = build_network("equivariant", parameters)
    torch.nn.init.normal_(network.heads["lens"].logits.weight, 0, 2.0)
    bundle = Bundle(
        task="lenses",
        name="toy-lenses",
        network="equivariant",
        parameters=parameters,
        geometry=BundleGeometry(32, 0.396),
        inputs=FluxInputs("gri", "gri", (0.1, 0.1, 0.1), tuple(SDSS_REDDENING[band] for band in "gri")),
        symmetries=1,
        outputs={"lens": ["lens"], "einstein_radius": [str(n) for n in range(len(RADIUS_EDGES) - 1)]},
        training={},
        scores={},
        terms={},
        tensors=dict(network.state_dict()),
        calibration={
            "slope": 1.0,
            "offset": 0.0,
            "training_prevalence": 0.5,
            "prevalence": 1e-3,
            "usual_noise": {"g": 0.02, "r": 0.02, "i": 0.02},
        },
    )
    path.write_bytes(write_bundle(bundle))
    return str(path)


def lens_config(folder, **changes):
    folder.mkdir(exist_ok=True)
    task = {"geometry": "sky", "bundle": lens_bundle(folder / "lenses.safetensors"), "review_least": 7}
    config = toy_config(
        folder, geometries={"sky": {"size": 32, "scale": 0.396}}, tasks={"lenses": task | changes}
    )
    rng = np.random.default_rng(9)
    centre = np.array([CENTRES["ab"[number % 2]] for number in range(OBJECTS)])
    table = {
        "id": 100 + np.arange(OBJECTS),
        "ra": centre[:, 0] + rng.uniform(-0.012, 0.012, OBJECTS),
        "dec": centre[:, 1] + rng.uniform(-0.012, 0.012, OBJECTS),
        "r90": np.full(OBJECTS, 4.0, np.float32),
    }
    pq.write_table(pa.table(table), folder / "catalog.parquet")
    return config


@pytest.fixture(scope="module")
def night(toy, tmp_path_factory):
    return run_night(lens_config(tmp_path_factory.mktemp("lenses")))


def review_of(night):
    storage = open_storage(night.config.output)
    data = storage.get(f"releases/{night.record.release}/{review_name('lenses')}")
    return pq.read_table(pa.BufferReader(data))


def predictions(night):
    storage = open_storage(night.config.output)
    tables = [
        pq.read_table(pa.BufferReader(storage.get(f"predictions/{item.partition.path}.parquet")))
        for item in night.plan.partitions
    ]
    return pa.concat_tables(tables).to_pandas()


def test_list_has_the_highest_scores_of_the_whole_night(night):
    assert len(night.plan.partitions) > 1
    table, every = review_of(night), predictions(night)
    best = every.sort_values(["lens_score", "object_id"], ascending=[False, True]).head(7)
    assert table["rank"].to_pylist() == list(range(1, 8))
    assert table["object_id"].to_pylist() == best["object_id"].tolist()
    np.testing.assert_array_equal(table["lens_score"], best["lens_score"])
    assert table.schema.field("einstein_radius").metadata[b"unit"] == b"arcsec"


def test_each_candidate_has_its_pixels_and_the_evidence_for_it(night):
    for row in review_of(night).to_pylist():
        cutout = np.array(row["cutout"]).reshape(len(row["bands"]), 32, 32)
        assert np.isfinite(cutout).any()
        logit = np.mean(row["evidence"])
        chance = 1 / (1 + np.exp(-logit))
        odds = chance / (1 - chance) * 1e-3 / 0.999
        # The network may multiply in bfloat16.
        assert row["lens_score"] == pytest.approx(odds / (1 + odds), rel=0.1)
        assert Picture.open(io.BytesIO(row["picture"])).size == (32, 32)
        assert Picture.open(io.BytesIO(row["evidence_picture"])).size == (16, 16)


def test_maps_of_several_partitions_are_made_together(night, monkeypatch):
    made = []
    evidence = Engine.evidence

    def noted(engine, observation, head):
        made.append(len(observation))
        return evidence(engine, observation, head)

    monkeypatch.setattr(Engine, "evidence", noted)
    storage = open_storage(night.config.output)
    data = write_review(night.config, night.plan, storage, load_task("lenses"), 7)
    assert made == [7]
    assert data == storage.get(f"releases/{night.record.release}/{review_name('lenses')}")


def test_same_bytes_whatever_ran_before(night, tmp_path):
    again = run_night(night.config.model_copy(update={"output": str(tmp_path / "again")}), "n2")
    stored = [
        open_storage(run.config.output).get(f"releases/{run.record.release}/{review_name('lenses')}")
        for run in (night, again)
    ]
    assert stored[0] == stored[1]
    assert again.record.release == night.record.release


def test_list_is_verified_and_shown(night):
    assert verify(night.config.output) == []
    page = open_storage(night.config.output)
    url = write_report(night.config.output)
    text = page.get(url.split(f"{night.config.output}/")[1]).decode()
    assert "Review lists" in text
    assert text.count("evidence of object") == 7
    assert "Completeness" not in text


@pytest.mark.parametrize(
    ("changes", "objects", "expected"),
    [
        ({}, 60, 7),
        ({}, 3, 3),
        ({}, 1_000_000, 100),
        ({"review": 0.5}, 60, 30),
        ({"review": 0.0}, 60, 0),
        ({"review_least": 0}, 60, 1),
    ],
)
def test_length_of_the_list(tmp_path, changes, objects, expected):
    assert list_length(lens_config(tmp_path, **changes), load_task("lenses"), objects) == expected


def test_a_task_that_ranks_nothing_has_no_list(tmp_path):
    assert list_length(toy_config(tmp_path), MorphologyTask(), 1000) == 0


def test_without_red_galaxies_completeness_says_so(night):
    run = CliRunner().invoke(main, ["completeness", night.config.output])
    assert run.exit_code == 2
    assert "bright red galaxy" in run.output


def test_completeness_counts_every_lens_once(night, monkeypatch):
    # The toy's galaxies are white and faint: all that is asked of a deflector here is a redshift.
    real = deflectors.measure

    def willing(images, *rest):
        found = real(images, *rest)
        galaxy = found.deflectors
        redshift = np.full(len(images), 0.3)
        known = deflectors.Deflectors(redshift, np.full(len(images), 18.0), galaxy.axis_ratio, galaxy.angle)
        return deflectors.Measured(known, found.magnitudes, np.ones(len(images), bool))

    monkeypatch.setattr("gzscale.sky.stamps.measure", willing)
    found = measure_completeness(night.config.output, 90, seed=2)
    storage = open_storage(night.config.output)
    rows = pq.read_table(pa.BufferReader(storage.get(completeness_key("n1", "parquet")))).to_pandas()
    assert found == read_completeness(storage, "n1") == json.loads(json.dumps(found))
    assert len(rows) == found["injections"] == 90
    assert rows.found.sum() == found["found"] == (rows.score >= found["threshold"]).sum()
    for other, counts in found["maps"].items():
        assert np.sum(counts["put"]) == 90, other
        expected = np.histogram2d(
            rows.einstein_radius[rows.found],
            rows[other][rows.found],
            [AXES["einstein_radius"], AXES[other]],
        )[0]
        np.testing.assert_array_equal(counts["found"], expected)
    page = storage.get(f"reports/n1/{write_report(night.config.output).rsplit('/', 1)[1]}").decode()
    assert "Completeness by Einstein radius" in page


def test_completeness_needs_a_lens_finder(ran):
    with pytest.raises(MissingError, match="no task 'lenses'"):
        measure_completeness(ran.config.output, 5)
