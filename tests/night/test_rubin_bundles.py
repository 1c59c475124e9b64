"""Which bundles a Rubin night takes, and which it refuses before any work."""

import pytest

from gzscale.config import load_config
from gzscale.errors import BundleError
from gzscale.models.shipped import shipped
from gzscale.night.origins import filters_of, location_of
from gzscale.night.plan import check


def night(rubin_sky, tmp_path, *settings):
    return load_config(str(rubin_sky / "night.yaml"), [f"output={tmp_path / 'out'}", *settings])


def test_the_simulated_night_has_three_tasks_in_six_bands(rubin_sky, tmp_path):
    config = night(rubin_sky, tmp_path)
    assert {task: location_of(config, task).rpartition("/")[2] for task in config.tasks} == {
        "morphology": "morphology-gz2.safetensors",
        "lenses": "lenses-rubin.safetensors",
        "redshifts": "redshifts-rubin.safetensors",
    }
    assert config.survey.bands == "ugrizy"
    assert [filters_of(config, task) for task in ("morphology", "lenses")] == ["sdss", "rubin"]
    assert set(check(config)["bundles"]) == set(config.tasks)


def test_an_sdss_bundle_is_refused_by_name(rubin_sky, tmp_path):
    config = night(
        rubin_sky, tmp_path, "geometries.sky.scale=0.396", f"tasks.lenses.bundle={shipped('lenses')}"
    )
    with pytest.raises(BundleError, match=r"'sdss-lenses-5'.*filters of sdss, but the cutouts are of rubin"):
        check(config)
    assert not (tmp_path / "out").exists()


def test_and_shown_knowingly_where_the_night_says_so(rubin_sky, tmp_path):
    settings = ["geometries.sky.scale=0.396", "tasks.lenses.filters=sdss", "tasks.redshifts.filters=sdss"]
    config = night(rubin_sky, tmp_path, *settings)
    assert location_of(config, "lenses") == str(shipped("lenses"))
    check(config)


def test_morphology_on_rubins_filters_has_to_be_asked_for(rubin_sky, tmp_path):
    config = night(rubin_sky, tmp_path, "tasks.morphology.filters=null")
    with pytest.raises(BundleError, match=r"'gz2-3' .*tasks\.morphology\.filters=sdss"):
        check(config)
