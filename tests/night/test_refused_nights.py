"""Whole nights whose S3 credentials expire: they stop, release nothing, and go on once these are renewed."""

import bz2
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from faults import DENIED, EXPIRED
from small_frames import frame, path, sky
from toy import toy_config
from whole_nights import account_of, commits, newer, released, stored

from flows import nightly as flow
from gzscale.cli import main
from gzscale.errors import CredentialsError, StorageError
from gzscale.night import plan as planning
from gzscale.night import reach
from gzscale.night.verify import verify
from gzscale.storage import open_storage
from gzscale.surveys.sdss_ids import Release, encode_objid

FIELDS = range(100, 108, 2)
EACH = 3

pytestmark = pytest.mark.s3


@pytest.fixture(autouse=True)
def new_worker():
    """The worker lives in this process: what it was asked before is forgotten."""
    reach.check_reach.cache_clear()


@pytest.fixture
def survey(s3, tmp_path):
    """A night's configuration over frames in S3, a partition a field or so."""
    frames = open_storage(f"{s3.url}/sky")
    ids, ra, dec = [], [], []
    for field in FIELDS:
        for band in "gri":
            frames.put(path(field, band), bz2.compress(frame(field=field, band=band)))
        for number in range(EACH):
            place = sky(90.0 + 30 * number, 140.0 + 10 * number, field)
            ids.append(int(encode_objid(Release.DR8, 301, 1234, 3, field, number)[()]))
            ra.append(float(place[0]))
            dec.append(float(place[1]))
    size = pa.array(np.full(len(ids), 4.0, np.float32))
    options = {"cache": str(tmp_path / "cache")}
    config = toy_config(
        tmp_path,
        survey={"kind": "sdss", "root": frames.root, "bands": "gri", "options": options},
        output=f"{s3.url}/night",
        max_objects=EACH,
    )
    pq.write_table(pa.table({"id": ids, "ra": ra, "dec": dec, "r90": size}), tmp_path / "catalog.parquet")
    return config


class Gate:
    """In front of S3: refuses whatever is about a part of it, from a number of requests of a kind on."""

    def __init__(self, backend, part, refusal):
        self._backend, self._part, self._refusal = backend, part, refusal
        self.open, self.left, self.counts = True, None, lambda method, path: False

    def close_after(self, count, counts):
        self.left, self.counts = count, counts

    def __call__(self, method, path, headers, body):
        if self.left is not None and self.counts(method, path):
            self.left -= 1
            self.open = self.left >= 0
        if not self.open and self._part in path.replace("%2F", "/"):
            return self._refusal[0], {"Content-Type": "application/xml"}, self._refusal[1]
        return self._backend(method, path, headers, body)

    def renew(self):
        self.open, self.left = True, None


@pytest.fixture
def gate(faulty_s3, monkeypatch):
    """Make one; the relay is all tests'."""

    def make(part, refusal=(400, EXPIRED)):
        made = Gate(faulty_s3.backend, part, refusal)
        monkeypatch.setattr(faulty_s3, "backend", made)
        return made

    return make


def undisturbed(run, survey, tmp_path):
    config = survey.model_copy(update={"output": str(tmp_path / "undisturbed")})
    done = run(config, "n1")
    assert done.exit_code == 0, done.output
    assert account_of(config.output)["done"] == len(FIELDS) * EACH
    return released(config.output)


@pytest.mark.slow
@pytest.mark.parametrize("refusal", [(400, EXPIRED), (403, DENIED)], ids=["expired", "denied"])
def test_a_survey_s_credentials_that_expire_end_the_night(s3, survey, gate, run, tmp_path, refusal):
    gate = gate("/sky", refusal)
    gate.close_after(7, lambda method, path: method == "GET" and "/sky/" in path and ".fits" in path)
    done = run(survey, "n1")
    assert done.exit_code == 2, done.output
    assert "gzscale: CREDENTIALS: worker tcp://" in done.output
    made = commits(survey.output)
    assert 0 < len(made) < len(FIELDS)
    assert stored(survey.output, "releases") == {}
    told = CliRunner().invoke(main, ["status", survey.output, "--json"])
    assert told.exit_code == 1
    account = json.loads(told.stdout)
    assert (account["state"], account["release"], account["quarantined"]) == ("failed", "", {})
    assert account["done"] + account["pending"] == account["planned"] == len(FIELDS) * EACH
    (failure,) = account["failures"]
    assert failure["error"].startswith("CredentialsError: worker tcp://")
    remedy = "renew them and run the same command" if refusal[1] == EXPIRED else "what they may do"
    assert remedy in failure["error"]

    gate.renew()
    done = run(survey, "n2")
    assert done.exit_code == 0, done.output
    assert newer(commits(survey.output), made) == commits(survey.output).keys() - made.keys()
    assert verify(survey.output) == []
    assert released(survey.output) == undisturbed(run, survey, tmp_path)


@pytest.mark.slow
def test_an_output_s_credentials_that_expire_end_the_night(s3, survey, gate, run, tmp_path):
    gate = gate("/night")
    gate.close_after(2, lambda method, path: method == "PUT" and "/night/predictions/" in path)
    done = run(survey, "n1")
    assert done.exit_code == 2, done.output
    assert "gzscale: CREDENTIALS: " in done.output
    assert "the credentials have expired: renew them and run the same command" in done.output
    assert "start the workers anew" in done.output
    gate.renew()
    made = commits(survey.output)
    assert 0 < len(made) < len(FIELDS)
    assert stored(survey.output, "releases") == {}
    # The lock could not be removed; a process that has ended holds none.
    open_storage(survey.output).delete("ledger/LOCK")
    done = run(survey, "n2")
    assert done.exit_code == 0, done.output
    assert newer(commits(survey.output), made) == commits(survey.output).keys() - made.keys()
    assert released(survey.output) == undisturbed(run, survey, tmp_path)


def test_one_frame_that_may_not_be_read_quarantines_its_objects(s3, survey, gate, run):
    gate("/" + path(FIELDS[2], "r"), (403, DENIED)).open = False
    done = run(survey, "n1")
    assert done.exit_code == 0, done.output
    account = account_of(survey.output)
    assert account["done"] == (len(FIELDS) - 1) * EACH
    assert account["quarantined"] == {"UNREACHABLE_IMAGE": EACH}


def test_credentials_that_are_refused_from_the_start_end_the_night_before_any_work(s3, survey, gate, run):
    gate("/sky", (403, EXPIRED.replace(b"ExpiredToken", b"InvalidAccessKeyId"))).open = False
    done = run(survey, "n1")
    assert done.exit_code == 2, done.output
    assert "gzscale: CREDENTIALS: " in done.output
    assert "storage knows no such credentials" in done.output
    assert commits(survey.output) == {}


def test_prefect_tries_a_stage_again_for_storage_and_not_for_credentials():
    class Failed:
        def __init__(self, error):
            self.error = error

        def result(self, raise_on_failure):
            return self.error

    assert flow._can_pass(None, None, Failed(StorageError("HTTP 503")))
    assert not flow._can_pass(None, None, Failed(CredentialsError("HTTP 400 ExpiredToken")))


def test_images_that_the_main_process_may_not_look_at_are_looked_at_by_workers(ran, monkeypatch):
    config = ran.config
    assert planning.is_done(config, planning.check(config)) is not None

    def refuse(*arguments):
        raise CredentialsError("s3://survey: all denied")

    monkeypatch.setattr(planning, "is_current", refuse)
    assert planning.is_done(config, planning.check(config)) is None
