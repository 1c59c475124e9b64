"""What a night asks of a Butler repository and does not find: refused before any work, with what there is."""

import shutil
from pathlib import Path

import pytest
import yaml
from small_coadds import options

from gzscale.config import load_config
from gzscale.errors import ConfigError
from gzscale.night.forecast import forecast
from gzscale.night.plan import check
from gzscale.surveys.rubin import RubinSurvey
from gzscale.surveys.rubin_repository import open_repository

butler_module = pytest.importorskip("lsst.daf.butler")


@pytest.fixture
def repository(rubin_sky, tmp_path):
    """A copy of the sky's repository, to be changed."""
    return Path(shutil.copytree(rubin_sky / "repository", tmp_path / "repository"))


def survey_on(root, bands="gr", **given):
    return RubinSurvey(str(root), bands, {"collections": ["simulated"]} | given)


def test_what_is_there_is_found(rubin_sky):
    survey_on(rubin_sky / "repository").check()
    survey_on(rubin_sky / "repository", skymap="gzscale_simulated", dataset_type="deep_coadd").check()


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (
            {"dataset_type": "deepCoadd_calexp"},
            r"no dataset type 'deepCoadd_calexp'.* are deep_coadd\. Set survey\.options\.dataset_type",
        ),
        ({"collections": ["LSSTComCam/DP1"]}, r"LSSTComCam/DP1.* there are simulated, simulated/coadds"),
        ({"skymap": "DC2"}, "no skymap 'DC2'; survey.options.skymap is one of gzscale_simulated"),
    ],
)
def test_what_is_not_there_is_told_with_what_is(rubin_sky, given, says):
    with pytest.raises(ConfigError, match=says):
        survey_on(rubin_sky / "repository", **given).check()


@pytest.mark.parametrize("command", [check, forecast])
def test_a_night_is_refused_before_any_work(rubin_sky, tmp_path, command):
    settings = [f"output={tmp_path / 'out'}", "survey.options.collections=[elsewhere]"]
    config = load_config(str(rubin_sky / "night.yaml"), settings)
    with pytest.raises(ConfigError, match=r"elsewhere.* there are simulated") as caught:
        command(config)
    assert caught.value.code == "CONFIG"
    assert not (tmp_path / "out").exists()


def test_a_repository_that_cannot_be_read(rubin_sky, tmp_path):
    with pytest.raises(ConfigError, match="not a Butler repository"):
        survey_on(rubin_sky / "nowhere").check()
    (tmp_path / "butler.yaml").write_text("registry: {db: 'sqlite:////nowhere/at/all.sqlite3'}\n")
    with pytest.raises(ConfigError, match="not a Butler repository"):
        survey_on(tmp_path).check()


def test_a_password_in_a_repositorys_configuration_is_not_told(tmp_path, monkeypatch):
    def refuse(root, **more):
        raise ValueError("no server for postgresql://night:swordfish@db.example.org:5432/butler")

    monkeypatch.setattr(butler_module.Butler, "from_config", refuse)
    with pytest.raises(ConfigError, match=r"postgresql://\*\*\*@db\.example\.org") as caught:
        open_repository(str(tmp_path))
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__
    assert "swordfish" not in str(caught.value)


def test_a_dataset_type_of_other_dimensions_is_refused(repository):
    butler = butler_module.Butler.from_config(str(repository), writeable=True)
    kind = butler_module.DatasetType("object", ("skymap", "tract"), "ArrowTable", universe=butler.dimensions)
    butler.registry.registerDatasetType(kind)
    with pytest.raises(ConfigError, match="'object' has the dimensions skymap, tract"):
        survey_on(repository, dataset_type="object").check()


def test_collections_without_an_image_are_refused_with_the_bands_that_have_some(repository):
    butler = butler_module.Butler.from_config(str(repository), writeable=True)
    butler.collections.register("empty")
    with pytest.raises(ConfigError, match=r"no deep_coadd .* in bands gr in empty; .* images are none"):
        survey_on(repository, collections=["empty"]).check()
    refs = butler.query_datasets("deep_coadd", collections="simulated", where="band IN ('g', 'r')")
    butler.pruneDatasets(refs, disassociate=True, unstore=True, purge=True)
    with pytest.raises(ConfigError, match=r"in bands gr in simulated; .* images are i, u, y, z\. Check"):
        survey_on(repository).check()
    survey_on(repository, bands="gi").check()


def test_a_registry_of_another_dimension_universe_is_refused(tmp_path):
    resources = Path(butler_module.__file__).parent / "configs"
    dimensions = yaml.safe_load((resources / "dimensions.yaml").read_text())
    dimensions["namespace"], dimensions["version"] = "spectrograph", 3
    kept = ("instrument", "band", "physical_filter", "detector")
    dimensions["elements"] = {name: dimensions["elements"][name] for name in kept}
    dimensions["topology"] = {"spatial": {}, "temporal": {}}
    config = butler_module.DimensionConfig(dimensions)
    butler_module.Butler.makeRepo(str(tmp_path / "other"), dimensionConfig=config)
    says = r"universe, spectrograph 3, has no skymap, tract, patch; .* band, skymap, tract, patch"
    with pytest.raises(ConfigError, match=says):
        survey_on(tmp_path / "other").check()


@pytest.mark.parametrize(
    ("more", "universe"),
    [("universe_version: 7\nuniverse_namespace: daf_butler\n", "daf_butler 7"), ("", "daf_butler 0")],
)
def test_an_export_is_told_from_a_repository(tmp_path, more, universe):
    path = tmp_path / "export.yaml"
    path.write_text(f"description: Butler Data Repository Export\nversion: 1.0.2\n{more}data: [!a b]\n")
    with pytest.raises(
        ConfigError, match=rf"export\.yaml: an export .*universe {universe}\).*`butler import`"
    ):
        survey_on(path).check()


def test_a_table_of_patches_is_looked_for_before_any_work(tmp_path):
    import pyarrow.parquet as pq

    given = options(tmp_path)
    RubinSurvey(str(tmp_path), "r", given).check()
    pq.write_table(pq.read_table(given["index"]).slice(0, 0), tmp_path / "empty.parquet")
    with pytest.raises(ConfigError, match="has no patches"):
        RubinSurvey(str(tmp_path), "r", given | {"index": str(tmp_path / "empty.parquet")}).check()
    with pytest.raises(ConfigError, match="no table of patches"):
        RubinSurvey(str(tmp_path), "r", given | {"index": str(tmp_path / "none.parquet")}).check()
