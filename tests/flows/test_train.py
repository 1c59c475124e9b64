"""The training flow: every task from typed parameters; what does not fit a task is refused before a run."""

import json

import pytest
from prefect.exceptions import ParameterTypeError
from pydantic import TypeAdapter
from test_inject import red_galaxies
from test_inject import write_store as write_red_galaxies
from test_lenses_training import SETTINGS as LENS_SETTINGS
from test_training_redshifts import SETTINGS as REDSHIFT_SETTINGS
from toy_stamps import write_store

from flows.train import LensLessons, Lessons, RedshiftLessons, fit_bundle, train
from gzscale.models.bundle import load_bundle


def test_lenses_are_learnt_from_several_stores(tmp_path):
    stores = [
        write_red_galaxies(tmp_path / str(seed), red_galaxies(24, seed=seed), first_id=100 * seed)
        for seed in (1, 5)
    ]
    lessons = LensLessons(task="lenses", images=[str(store) for store in stores])
    output = tmp_path / "lenses.safetensors"
    lines = fit_bundle.fn(lessons, str(output), "flow-lenses", list(LENS_SETTINGS))
    assert "48 cutouts" in lines[0]
    bundle = load_bundle(output)
    assert (bundle.task, bundle.name) == ("lenses", "flow-lenses")


@pytest.mark.slow
def test_redshifts_are_learnt_from_labels(tmp_path):
    write_store(tmp_path, 700)
    lessons = RedshiftLessons(
        task="redshifts",
        labels=str(tmp_path / "labels.parquet"),
        images=str(tmp_path),
        geometry="sky",
    )
    settings = [f"{key}={value}" for key, value in REDSHIFT_SETTINGS.items()]
    fit_bundle.fn(lessons, str(tmp_path / "own.safetensors"), "flow-redshifts", settings)
    bundle = load_bundle(tmp_path / "own.safetensors")
    assert (bundle.task, bundle.name) == ("redshifts", "flow-redshifts")
    assert "image_sigma_mad" in bundle.scores


@pytest.mark.parametrize(
    ("lessons", "says"),
    [
        ({"task": "lenses", "images": []}, "at least 1 item"),
        ({"task": "redshifts", "images": "night"}, "labels"),
        ({"task": "lenses", "images": ["night"], "search": 3}, "Extra inputs"),
        ({"task": "spectra", "images": "night"}, "morphology"),
    ],
)
def test_what_does_not_fit_the_task_is_refused_before_a_run(lessons, says):
    with pytest.raises(ParameterTypeError, match=says):
        train.validate_parameters({"lessons": lessons, "output": "own.safetensors"})


def test_a_deployment_gives_them_as_json():
    given = json.loads('{"task": "morphology", "labels": "votes.csv", "images": "pictures", "search": 2}')
    found = TypeAdapter(Lessons).validate_python(given)
    assert found.search == 2
    assert found.kind == "weighted_fraction"
