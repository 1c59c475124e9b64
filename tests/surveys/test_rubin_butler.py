"""A Butler repository as a survey: what is asked, what is found, and what is not there."""

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gzscale.config import GeometryConfig, load_config
from gzscale.cutouts.ingest import cut_partition
from gzscale.cutouts.store import read_cutouts
from gzscale.night.origins import survey_of
from gzscale.sky.rubin_camera import BANDS
from gzscale.sky.rubin_grid import Tract
from gzscale.sky.rubin_repository import coadd_path, make_repository
from gzscale.storage import open_storage
from gzscale.surveys import rubin_butler
from gzscale.surveys.rubin import RubinSurvey
from gzscale.surveys.rubin_butler import ButlerSource
from gzscale.surveys.rubin_repository import open_repository

butler_module = pytest.importorskip("lsst.daf.butler")

OPTIONS = {"collections": ["simulated"]}
GEOMETRY = {"sky": GeometryConfig(size=32, scale=0.2)}


@pytest.fixture
def repository(rubin_sky, tmp_path):
    """A copy of the sky's repository, to be changed."""
    return Path(shutil.copytree(rubin_sky / "repository", tmp_path / "repository"))


def rows_of(sky):
    truth = pq.read_table(sky / "truth.parquet")
    return pa.table({name: truth[name] for name in ("object_id", "ra", "dec")})


def where(patch):
    return f"skymap = 'gzscale_simulated' AND tract = 0 AND patch = {patch} AND band = 'r'"


def source(root, skymap=None, kind="deep_coadd", collections=("simulated",)):
    return ButlerSource(str(root), skymap, kind, collections, "gr")


@pytest.fixture(scope="module")
def three_tracts(tmp_path_factory):
    """A repository of three tracts of one and two patches, with files that hold nothing."""
    root = tmp_path_factory.mktemp("tracts") / "repository"
    tracts = [Tract(n, 53.0 + n / 4, -28.0, 1, 1 + n % 2, n == 0, n == 2) for n in range(3)]
    for tract in tracts:
        for patch in tract.patches:
            for band in BANDS:
                path = root / coadd_path(tract.number, patch, band)
                path.parent.mkdir(parents=True)
                path.write_bytes(b"coadd")
    make_repository(str(root), tracts)
    return root, tracts


def test_each_tract_has_its_own_patches_and_files(three_tracts):
    root, tracts = three_tracts
    asked = source(root)
    assert asked.tracts().tract.tolist() == [0, 1, 2]
    for tract in tracts:
        patches = asked.patches([tract.number])
        assert patches.tract.tolist() == [tract.number] * len(tract.patches)
        assert patches.patch.tolist() == list(tract.patches)
        found = asked.datasets(tract.number)
        assert found.keys() == {(patch, band) for patch in tract.patches for band in "gr"}
        for (patch, band), dataset in found.items():
            assert dataset.location.endswith(coadd_path(tract.number, patch, band))


def test_objects_find_the_patches_that_the_truth_has_them_in(rubin_sky):
    survey = RubinSurvey(str(rubin_sky / "repository"), "ugrizy", OPTIONS)
    truth = pq.read_table(rubin_sky / "truth.parquet")
    cover = survey.find(rows_of(rubin_sky), np.full(truth.num_rows, 5 / 3600))
    assert not cover.lost
    own = cover.pair_rank == 0
    for band in "ugrizy":
        mine = {
            int(row): cover.images[image].path
            for row, image in zip(cover.pair_object[own], cover.pair_image[own], strict=True)
            if cover.images[image].band == band
        }
        expected = zip(truth["tract"].to_pylist(), truth["patch"].to_pylist(), strict=True)
        assert [mine[row] for row in range(truth.num_rows)] == [f"{t}/{p}/{band}" for t, p in expected]
    assert [ref.band for ref in cover.images] == sorted("ugrizy" * 2, key="ugrizy".index)
    assert cover.images[0].exposure.startswith("gzscale_simulated-0-")


def test_both_ways_in_give_the_same_cutouts(rubin_sky, tmp_path):
    name = "deep_coadd_{tract}_{patch}_{band}_gzscale_simulated.fits"
    tree = f"simulated/coadds/deep_coadd/{{tract}}/{{patch}}/{{band}}/{name}"
    index = str(rubin_sky / "patches.parquet")
    root, rows = str(rubin_sky / "repository"), rows_of(rubin_sky)
    found = []
    for place, options in (("butler", OPTIONS), ("tree", {"tree": tree, "index": index})):
        storage = open_storage(tmp_path / place)
        survey = RubinSurvey(root, "gr", options)
        result = cut_partition(survey, rows, GEOMETRY, storage, "p.zarr")
        assert result.done == {"sky": 50}
        found.append(read_cutouts(storage, "p.zarr", "sky", result.inventory))
    one, two = found
    assert (one.images.view("u2") == two.images.view("u2")).all()
    assert (one.noise == two.noise).all()
    assert (one.flags == two.flags).all()


def test_the_registry_is_asked_by_tract_not_by_object(rubin_sky, monkeypatch):
    root = str(rubin_sky / "repository")
    butler = open_repository(root)
    asked = []
    for name in ("query_datasets", "query_dimension_records", "get_many_uris"):
        real = getattr(butler, name)
        monkeypatch.setattr(
            butler,
            name,
            lambda *args, _real=real, _name=name, **more: asked.append(_name) or _real(*args, **more),
        )
    rubin_butler._skymap.cache_clear()
    rubin_butler._tracts.cache_clear()
    rubin_butler._patches.cache_clear()
    survey = RubinSurvey(root, "gr", OPTIONS)
    rows = pa.concat_tables([rows_of(rubin_sky)] * 40)
    survey.find(rows, np.full(rows.num_rows, 5 / 3600))
    survey.find(rows, np.full(rows.num_rows, 5 / 3600))
    # Skymaps, tracts, the patches of the one tract, its datasets and their files.
    assert sorted(asked) == ["get_many_uris", "query_datasets", *["query_dimension_records"] * 3]


def cut(survey, rows, folder):
    result = cut_partition(survey, rows, GEOMETRY, open_storage(folder), "p.zarr")
    assert result.done["sky"] + result.quarantine.num_rows == rows.num_rows
    return result


def test_a_dataset_whose_file_is_gone_names_it(repository, rubin_sky, tmp_path):
    survey = RubinSurvey(str(repository), "r", OPTIONS)
    lost = survey._source.datasets(0)[(0, "r")].location
    Path(lost).unlink()
    result = cut(survey, rows_of(rubin_sky), tmp_path / "out")
    assert 0 < result.done["sky"] < 50
    for row in result.quarantine.to_pylist():
        assert row["reason"] == "MISSING_IMAGE"
        assert "deep_coadd {band: 'r', skymap: 'gzscale_simulated', tract: 0, patch: 0}" in row["detail"]
        assert lost in row["detail"]


def test_a_dataset_that_is_not_registered_names_what_was_looked_for(repository, rubin_sky, tmp_path):
    butler = butler_module.Butler.from_config(str(repository), writeable=True)
    refs = butler.query_datasets("deep_coadd", collections="simulated", where=where(1))
    butler.pruneDatasets(refs, disassociate=True, unstore=True, purge=True)
    survey = RubinSurvey(str(repository), "r", OPTIONS)
    result = cut(survey, rows_of(rubin_sky), tmp_path / "out")
    details = {row["detail"] for row in result.quarantine.to_pylist() if row["reason"] == "MISSING_IMAGE"}
    assert len(details) == 1
    assert "tract: 0, patch: 1} in simulated: no such dataset" in details.pop()


def test_a_dataset_made_anew_has_another_state(repository):
    from gzscale.surveys.base import ImageRef

    ref = ImageRef("deep_coadd-r-0-0", "r", "0/0/r", "x")
    before = RubinSurvey(str(repository), "r", OPTIONS).state(ref)
    butler = butler_module.Butler.from_config(str(repository), writeable=True)
    old = butler.query_datasets("deep_coadd", collections="simulated", where=where(0))[0]
    butler.collections.register("again")
    butler.collections.redefine_chain("simulated", ["again", "simulated/coadds"])
    again = butler_module.DatasetRef(old.datasetType, old.dataId, run="again")
    path = shutil.copy(butler.getURI(old).ospath, repository.parent / "again.fits")
    formatter = "lsst.daf.butler.formatters.file.FileFormatter"
    butler.ingest(butler_module.FileDataset(path, [again], formatter=formatter), transfer="direct")
    survey = RubinSurvey(str(repository), "r", OPTIONS)
    assert survey.state(ref) != before
    # Outside the repository, and read all the same.
    assert survey._source.datasets(0)[(0, "r")].location == str(repository.parent / "again.fits")
    assert survey.open(ref).pixels.shape == (1000, 1050)


def test_the_simulated_night_is_configured_for_it(rubin_sky):
    survey = survey_of(load_config(str(rubin_sky / "night.yaml")))
    assert survey.kind == "rubin"
    assert survey.root == str(rubin_sky / "repository")


def test_a_repository_can_be_named_by_its_alias(rubin_sky, tmp_path, monkeypatch):
    index = tmp_path / "repositories.yaml"
    index.write_text(f"dp0: {rubin_sky / 'repository'}\n")
    monkeypatch.setenv("DAF_BUTLER_REPOSITORY_INDEX", str(index))
    # As a configuration file beside it would have it.
    assert len(source(tmp_path / "dp0").tracts()) == 1
