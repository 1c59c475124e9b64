"""A Butler whose registry is in PostgreSQL: made, asked, and refused without showing a password."""

import json
import logging
import os
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from postgres_server import DATABASE, USER, running_server

from gzscale.cli import main
from gzscale.config import load_config
from gzscale.errors import ConfigError, StorageError
from gzscale.night.origins import survey_of
from gzscale.night.plan import check
from gzscale.sky.rubin_grid import tracts_of
from gzscale.sky.rubin_repository import Registry, make_repository
from gzscale.sky.write import write_sky
from gzscale.surveys import rubin_butler
from gzscale.surveys.rubin import RubinSurvey
from gzscale.surveys.rubin_repository import open_repository

pytest.importorskip("lsst.daf.butler")

OPTIONS = {"collections": ["simulated"]}


def forget():
    """As another process would: no repository is open, nothing is remembered."""
    open_repository.cache_clear()
    for remembered in (rubin_butler._skymap, rubin_butler._tracts, rubin_butler._patches):
        remembered.cache_clear()


@pytest.fixture(scope="module")
def server():
    with running_server() as found:
        yield found


@pytest.fixture(autouse=True)
def no_credentials(monkeypatch, tmp_path):
    for name in ("PGPASSWORD", "LSST_DB_AUTH", "LSST_DB_AUTH_CREDENTIALS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PGPASSFILE", str(tmp_path / "none"))
    forget()
    yield
    forget()


@pytest.fixture
def credentials(server, tmp_path, monkeypatch):
    """The file of credentials that LSST's tools share."""
    path = tmp_path / "db-auth.yaml"
    entry = {"url": f"postgresql://127.0.0.1:{server.port}/{DATABASE}"}
    path.write_text(json.dumps([entry | {"username": USER, "password": server.password}]))
    path.chmod(0o600)
    monkeypatch.setenv("LSST_DB_AUTH", str(path))
    return path


@pytest.fixture
def repository(server, credentials, rubin_sky, tmp_path):
    """The coadds of the simulated sky, registered in a schema of their own."""
    return register(rubin_sky, tmp_path / "repository", 2, Registry(server.url, f"sky{tmp_path.name}"))


def register(rubin_sky, root, patches, registry):
    shutil.copytree(rubin_sky / "repository" / "simulated", root / "simulated", copy_function=os.link)
    make_repository(str(root), tracts_of(patches), registry)
    return root


def everything_of(root, rows):
    survey = RubinSurvey(str(root), "gr", OPTIONS)
    survey.check()
    cover = survey.find(rows, np.full(rows.num_rows, 5 / 3600))
    return cover, survey


def test_both_registries_find_the_same(repository, rubin_sky):
    truth = pq.read_table(rubin_sky / "truth.parquet")
    rows = pa.table({name: truth[name] for name in ("object_id", "ra", "dec")})
    here, survey = everything_of(repository, rows)
    there, _ = everything_of(rubin_sky / "repository", rows)
    assert here.images == there.images
    for name in ("pair_object", "pair_image", "pair_rank"):
        assert (getattr(here, name) == getattr(there, name)).all()
    assert survey.open(here.images[0]).pixels.shape == (1000, 1050)
    assert not list(repository.glob("*.sqlite3"))
    assert "password" not in (repository / "butler.yaml").read_text()


def test_two_repositories_of_one_database_have_schemas_of_their_own(server, repository, rubin_sky, tmp_path):
    other = register(rubin_sky, tmp_path / "other", 1, Registry(server.url, "another"))
    assert len(RubinSurvey(str(repository), "r", OPTIONS)._source.patches([0])) == 2
    assert len(RubinSurvey(str(other), "r", OPTIONS)._source.patches([0])) == 1
    with pytest.raises(ConfigError, match=r"registry cannot be made .*schema another"):
        make_repository(str(tmp_path / "again"), tracts_of(1), Registry(server.url, "another"))
    assert not (tmp_path / "again" / "butler.yaml").exists()


def test_a_password_may_come_from_the_environment(repository, credentials, server, monkeypatch):
    monkeypatch.delenv("LSST_DB_AUTH")
    credentials.unlink()
    monkeypatch.setenv("PGPASSWORD", server.password)
    forget()
    RubinSurvey(str(repository), "r", OPTIONS).check()


def test_a_wrong_password_is_refused_before_any_work_and_shown_nowhere(
    repository, credentials, server, rubin_sky, tmp_path, caplog
):
    wrong = "correct-horse-battery"
    credentials.write_text(credentials.read_text().replace(server.password, wrong))
    forget()
    settings = [f"survey.root={repository}", f"output={tmp_path / 'out'}"]
    with (
        caplog.at_level(logging.DEBUG),
        pytest.raises(ConfigError, match="password authentication") as caught,
    ):
        check(load_config(str(rubin_sky / "night.yaml"), settings))
    assert wrong not in str(caught.value) + caplog.text
    assert not (tmp_path / "out").exists()


def test_a_server_that_goes_away_is_a_storage_error_that_names_the_repository(
    repository, credentials, monkeypatch
):
    survey = RubinSurvey(str(repository), "r", OPTIONS)
    survey.check()
    import psycopg2

    # The database ends every connection, as when its server is started anew, and takes no new ones.
    monkeypatch.setattr(psycopg2, "connect", _refuse(psycopg2.OperationalError))
    open_repository(str(repository))._registry._db._engine.dispose()
    with pytest.raises(StorageError, match=r"repository: its registry could not be asked .*is it running"):
        survey._source.datasets(0)


def _refuse(kind):
    def refuse(*args, **more):
        raise kind("connection refused: is it running there?")

    return refuse


def test_a_registry_is_told_by_its_url(tmp_path):
    with pytest.raises(ConfigError, match="holds a password") as caught:
        Registry("postgresql://someone:swordfish@example.org/butler", "s")
    assert "swordfish" not in str(caught.value)
    with pytest.raises(ConfigError, match="expected postgresql"):
        Registry("mysql://someone@example.org/butler", "s")
    with pytest.raises(ConfigError, match="'sdss' has no registry"):
        write_sky(str(tmp_path), "sdss", 1, 1, registry=Registry("postgresql://a@b/c", "s"))


def test_simulate_registers_its_sky_there(server, credentials, tmp_path):
    sky = tmp_path / "sky"
    given = ["--survey", "rubin", "--objects", "6", "--registry", server.url, "--schema", "simulated_sky"]
    done = CliRunner().invoke(main, ["simulate", str(sky), *given])
    assert done.exit_code == 0, done.output
    assert not list(sky.rglob("*.sqlite3"))
    config = load_config(str(sky / "night.yaml"))
    check(config)
    truth = pq.read_table(sky / "truth.parquet")
    rows = pa.table({name: truth[name] for name in ("object_id", "ra", "dec")})
    cover = survey_of(config).find(rows, np.full(6, 5 / 3600))
    assert {ref.band for ref in cover.images} == set("ugrizy")
    assert set(cover.pair_object) == set(range(6))
