"""What a training for Rubin starts from, and that it learns nobody else's cutouts."""

import json
from dataclasses import asdict

import numpy as np
import pytest
from click.testing import CliRunner
from small_lenses import SETTINGS
from toy_stamps import write_store

from gzscale.cli import main
from gzscale.errors import BundleError, ConfigError
from gzscale.models.bundle import load_bundle
from gzscale.models.inputs import LSST_REDDENING
from gzscale.models.shipped import shelf
from gzscale.sky import blocks, samples
from gzscale.sky.stamps import read_stamps
from gzscale.training import lens_recipe, redshifts
from gzscale.training.lens_examples import Mix, make_examples
from gzscale.training.redshift_command import train_redshift_bundle


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rubin-sample")
    samples.write_sample(str(folder), blocks.Request("rubin", 192, 7), workers=1)
    return folder


def test_a_lens_finder_for_rubin(sample, tmp_path):
    output = tmp_path / "lenses.safetensors"
    command = ["train", "lenses", "--survey", "rubin", "--images", str(sample), "-o", str(output)]
    done = CliRunner().invoke(main, [*command, *(part for pair in SETTINGS for part in ("--set", pair))])
    assert done.exit_code == 0, done.output
    bundle = load_bundle(output)
    assert (bundle.filters, bundle.bands) == ("rubin", "griz")
    assert (bundle.geometry.size, bundle.geometry.scale) == (64, 0.2)
    assert bundle.inputs.reddening == tuple(LSST_REDDENING[band] for band in "griz")
    # 100,000 electrons in a visit of 30 s; magnitude 28.13 gives one a second.
    assert bundle.calibration["saturation"]["r"] == pytest.approx(
        1e5 / 30 / 10 ** (0.4 * (28.13 - 22.5)), rel=1e-3
    )


def test_arcs_have_the_photons_of_a_year(sample):
    stamps, _ = read_stamps([str(sample)], "griz", survey="rubin")
    assert stamps.deflector.any()
    assert (stamps.magnitude[stamps.deflector] < 21.5).all()
    assert (stamps.magnitude[stamps.deflector] > 19.8).any()
    examples = make_examples(
        stamps, "griz", Mix(lenses=8, radii=(0.5, 4.0)), np.random.default_rng(1), "rubin"
    )
    # Visits a year: 8 in g, 18.4 in r; seconds; electrons a second at magnitude 22.5.
    expected = [8 * 30 * 10 ** (0.4 * (28.30 - 22.5)), 18.4 * 30 * 10 ** (0.4 * (28.13 - 22.5))]
    assert examples.electrons[:2].tolist() == pytest.approx(expected)
    assert np.nanmin(examples.radius) >= 0.5


def test_a_sample_of_another_survey_is_refused(sample):
    with pytest.raises(ConfigError, match="a sample of rubin, but what is learnt is to be of sdss"):
        read_stamps([str(sample)], "gri")


def test_cutouts_of_another_scale_are_refused(tmp_path):
    write_store(tmp_path, 550)
    lines = train_redshift_bundle(
        str(tmp_path / "labels.parquet"), str(tmp_path), "sky", str(tmp_path / "z"), "z-1", survey="rubin"
    )
    with pytest.raises(BundleError, match=r"0\.396 arcsec a pixel; 0\.2 are needed"):
        list(lines)


@pytest.mark.parametrize(("place", "survey"), enumerate(["sdss", "rubin"]))
def test_a_shipped_lens_finder_is_remade_by_its_survey_s_recipe(place, survey):
    recipe = json.loads(json.dumps(asdict(lens_recipe.RECIPES[survey])))
    told = load_bundle(shelf("lenses")[place]).training["recipe"]
    # Images that are kept apart are named on the command line.
    for part in ("mix", "pace", "views"):
        assert {name: recipe[part][name] for name in told[part]} == told[part]
    for name in ("survey", "bands", "extent", "size", "network", "members"):
        assert recipe[name] == told.get(name, recipe[name])


def test_recipes_fit_the_networks_that_they_name():
    recipe = redshifts.RECIPES["rubin"]
    assert len(recipe.bands) == recipe.network["bands"] == 6
    assert recipe.bands[2] == recipe.required[-1] == "r"
    assert np.diff(recipe.edges) == pytest.approx(np.full(200, 0.0075))
    assert lens_recipe.RECIPES["rubin"].extent == pytest.approx(64 * 0.2)
    # What was so before there was a second survey.
    assert redshifts.RECIPES["sdss"] == redshifts.Recipe()
