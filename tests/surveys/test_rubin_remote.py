"""Coadds behind a network: a plain tree on a web server and in S3, and a Butler whose files are in S3."""

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from faults import Fault, files
from small_coadds import COLUMNS, INNER, ROWS, options, path, sky, tree

from gzscale.catalog.pixels import Partition
from gzscale.config import GeometryConfig
from gzscale.cutouts.ingest import cut_partition
from gzscale.cutouts.store import read_cutouts
from gzscale.errors import ConfigError
from gzscale.night.images import WatchedSurvey
from gzscale.night.sharing import Sharing
from gzscale.storage import open_storage
from gzscale.surveys import rubin_butler
from gzscale.surveys.base import ImageRef
from gzscale.surveys.decoded import LOCKS, DecodedImages
from gzscale.surveys.rubin import RubinSurvey
from gzscale.surveys.rubin_repository import open_repository, readable_location

GEOMETRY = {"sky": GeometryConfig(size=32, scale=0.25)}


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    """A tree of coadds in a folder, and its options."""
    folder = tmp_path_factory.mktemp("tree")
    rng = np.random.default_rng(3)
    shape = (ROWS * INNER, COLUMNS * INNER)
    tree(folder, lambda band: (rng.normal(0, 1, shape), None, None), "gr", patches=[0, 1])
    return folder, options(folder)


def contents(folder):
    return {
        str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*.*") if file.is_file()
    }


def cut(survey, folder):
    """Two objects of the first two patches, and one whose patch has no file."""
    ra, dec = sky(np.array([100.3, 300.0, 100.0]), np.array([100.8, 90.0, 300.0]))
    rows = pa.table({"object_id": [1, 2, 3], "ra": ra, "dec": dec})
    storage = open_storage(folder)
    result = cut_partition(survey, rows, GEOMETRY, storage, "p.zarr")
    return result, read_cutouts(storage, "p.zarr", "sky", result.inventory)


def on(root, given, cache):
    survey = RubinSurvey(root, "gr", given | {"index": f"{root}/patches.parquet", "cache": str(cache)})
    survey.check()
    return survey


def assert_same(found, expected):
    (result, cutouts), (other, known) = found, expected
    assert (cutouts.images.view("u2") == known.images.view("u2")).all()
    assert cutouts.sources == known.sources
    (lost,), (same,) = result.quarantine.to_pylist(), other.quarantine.to_pylist()
    assert (lost["object_id"], lost["reason"]) == (same["object_id"], "MISSING_IMAGE")
    assert "coadd {band: 'g', tract: 7, patch: 3}" in lost["detail"]


def test_a_plain_tree_is_the_same_in_a_folder_on_a_web_server_and_in_s3(local, serve, s3, tmp_path):
    folder, given = local
    expected = cut(on(str(folder), given, tmp_path / "none"), tmp_path / "local")
    assert expected[0].done == {"sky": 2}
    server = serve(files(contents(folder)))
    assert_same(cut(on(server.url, given, tmp_path / "web"), tmp_path / "out1"), expected)
    bucket = open_storage(f"{s3.url}/sky")
    for name, stored in contents(folder).items():
        bucket.put(name, stored)
    survey = on(f"{s3.url}/sky", given, tmp_path / "s3")
    assert_same(cut(survey, tmp_path / "out2"), expected)
    assert survey.state(ImageRef("coadd-r-7-0", "r", "7/0/r", "x")) != "absent"
    assert survey.state(ImageRef("coadd-r-7-3", "r", "7/3/r", "x")) == "absent"


def test_a_coadd_of_a_web_server_is_fetched_once_and_again_after_a_cut_transfer(
    local, serve, tmp_path, quick_retries
):
    folder, given = local
    server = serve(files(contents(folder)))
    survey = on(server.url, given, tmp_path / "cache")
    server.fail(Fault("truncate", method="GET", path=path(0, "r")), Fault("status", 503, path=path(0, "r")))
    ref = ImageRef("coadd-r-7-0", "r", "7/0/r", "x")
    first = survey.open(ref).pixels
    asked = [method for method, name in server.requests if path(0, "r") in name]
    again = survey.open(ref).pixels
    assert (np.isnan(first) == np.isnan(again)).all()
    assert "GET" not in [method for method, name in server.requests if path(0, "r") in name][len(asked) :]


def test_in_a_night_files_are_fetched_ahead_unless_they_are_there_decoded(local, serve, tmp_path):
    folder, given = local
    server = serve(files(contents(folder)))
    survey = on(server.url, given, tmp_path / "cache")
    (tmp_path / "decoded" / LOCKS).mkdir(parents=True)
    decoded = DecodedImages(tmp_path / "decoded", 10**9, 0)
    watched = WatchedSurvey(survey, server.url, Sharing(survey, decoded, "origin", Partition(0, 0), 10))
    assert watched.transfers == survey.transfers > 1

    def fetched():
        watched.fetch(ref)
        kept = [file for file in (tmp_path / "cache" / "files").rglob("*") if file.is_file()]
        for file in kept:
            file.unlink()
        return len(kept)

    ref = ImageRef("coadd-r-7-0", "r", "7/0/r", "x-7-0")
    assert fetched() == 1
    decoded.open(survey, ref, f"origin\n{survey.state(ref)}")
    fetched()
    assert fetched() == 0


def test_a_table_of_patches_that_a_server_does_not_have_is_refused(local, serve, tmp_path):
    folder, given = local
    server = serve(files(contents(folder)))
    survey = RubinSurvey(server.url, "r", given | {"index": f"{server.url}/none.parquet"})
    with pytest.raises(ConfigError, match=r"none\.parquet: there is no table of patches"):
        survey.check()


@pytest.fixture
def remote_repository(rubin_sky, s3, tmp_path, monkeypatch):
    """A repository in S3, its registry on this machine: SQLite, where a site would have PostgreSQL."""
    butler_module = pytest.importorskip("lsst.daf.butler")
    pytest.importorskip("boto3")
    monkeypatch.delenv("S3_ENDPOINT_URL", raising=False)
    from lsst.resources import s3utils

    s3utils._get_s3_client.cache_clear()
    here = Path(shutil.copytree(rubin_sky / "repository", tmp_path / "here"))
    bucket = open_storage(f"{s3.url}/repository")
    for file in (here / "simulated").rglob("*_r_*.fits"):
        bucket.put(str(file.relative_to(here)), file.read_bytes())
    config = butler_module.Config(str(here / "butler.yaml"))
    config["root"] = f"{s3.url}/repository"
    config[".datastore.root"] = f"{s3.url}/repository"
    config[".registry.db"] = f"sqlite:///{here}/gen3.sqlite3"
    config.dumpToUri(f"{s3.url}/repository/butler.yaml")
    yield f"{s3.url}/repository", here
    open_repository.cache_clear()
    for remembered in (rubin_butler._skymap, rubin_butler._tracts, rubin_butler._patches):
        remembered.cache_clear()
    s3utils._get_s3_client.cache_clear()


def test_a_butler_whose_files_are_in_s3(remote_repository, rubin_sky, tmp_path):
    root, here = remote_repository
    truth = pq.read_table(rubin_sky / "truth.parquet").slice(0, 6)
    rows = pa.table({name: truth[name] for name in ("object_id", "ra", "dec")})
    found = []
    for place in (str(here), root):
        given = {"collections": ["simulated"], "cache": str(tmp_path / "cache")}
        survey = RubinSurvey(place, "r", given)
        survey.check()
        storage = open_storage(tmp_path / place.partition(":")[0].strip("/"))
        result = cut_partition(survey, rows, GEOMETRY, storage, "p.zarr")
        assert result.done == {"sky": 6}
        found.append(read_cutouts(storage, "p.zarr", "sky", result.inventory))
    assert (found[0].images.view("u2") == found[1].images.view("u2")).all()
    assert survey._source.datasets(0)[(0, "r")].location.startswith(
        f"{root}/simulated/coadds/deep_coadd/0/0/r"
    )


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("s3://embargo@bucket/coadd.fits", "S3 profile, .* AWS_PROFILE"),
        ("gs://bucket/coadd.fits", "read from file, http, https and s3"),
        ("https://example.org/coadd.fits?X-Amz-Signature=swordfish", "signed URLs, which expire"),
    ],
)
def test_files_where_none_are_read_are_refused_with_what_to_do(url, says):
    with pytest.raises(ConfigError, match=says) as caught:
        readable_location(url)
    assert "survey.options.tree" in str(caught.value)
    assert "swordfish" not in str(caught.value)
    for location in ("s3://bucket/a@b/coadd.fits", "https://example.org/coadd.fits"):
        assert readable_location(location) == location


def test_a_butler_server_that_cannot_be_reached_is_told_from_a_folder(serve):
    pytest.importorskip("lsst.daf.butler")
    server = serve(lambda *request: (404, {}, b""))
    with pytest.raises(ConfigError, match=r"http://127.* (not a Butler repository|needs a package)"):
        RubinSurvey(f"{server.url}/api/butler/repo/dp1", "r", {"collections": ["LSSTComCam/DP1"]}).check()
