"""Workers say whether they reach what the night reads and writes, with their own paths and credentials."""

import os
import threading
from pathlib import Path

import pytest
from distributed import Client, LocalCluster
from faults import DENIED, EXPIRED, Fault
from toy import toy_config

from gzscale.clusters.workers import KINDS, PREDICT
from gzscale.errors import ClusterError, CredentialsError, StorageError, WorkerError
from gzscale.night.reach import ask_workers, check_reach, reach
from gzscale.storage import open_storage


class Workers:
    """A client of workers, each of which answers with a given function."""

    def __init__(self, *answers, kinds=KINDS):
        self._answers = {f"tcp://w{number}": answer for number, answer in enumerate(answers)}
        self._resources = dict.fromkeys(kinds, 1)

    def scheduler_info(self, n_workers):
        return {"workers": {address: {"resources": self._resources} for address in self._answers}}

    def run(self, ask, *arguments, workers, on_error):
        return {address: self._answers[address](ask, *arguments) for address in workers}


def like_this_process(ask, *arguments):
    return ask(*arguments)


def without_its_folders(ask, *arguments):
    return ask(*[f"/mnt/elsewhere{folder}" for folder in arguments])


@pytest.fixture
def config(tmp_path):
    """A night that was planned, over a tree of frames."""
    Path(tmp_path, "out", "ledger", "rows").mkdir(parents=True)
    Path(tmp_path, "frames").mkdir()
    return toy_config(tmp_path, survey={"kind": "toy", "root": str(tmp_path / "frames"), "bands": "gri"})


def test_workers_that_reach_what_this_process_reaches(config):
    ask_workers(Workers(like_this_process, like_this_process), config)


def test_a_worker_without_the_folders_is_named(config):
    with pytest.raises(ClusterError) as caught:
        ask_workers(Workers(like_this_process, without_its_folders), config)
    told = str(caught.value)
    assert "worker tcp://w1: output: /mnt/elsewhere/" in told
    assert "worker tcp://w1: survey.root: /mnt/elsewhere/" in told
    assert "tcp://w0" not in told
    assert "mount the same folders where workers run" in told


def test_of_many_workers_some_are_named(config):
    with pytest.raises(ClusterError, match="; and 7 more; this night's main process"):
        ask_workers(Workers(*[without_its_folders] * 5), config)


def test_a_root_that_nobody_reaches_is_the_survey_s_own_matter(config):
    survey = config.survey.model_copy(update={"root": "memory"})
    ask_workers(Workers(like_this_process), config.model_copy(update={"survey": survey}))


def test_a_worker_that_cuts_nothing_does_without_the_survey(config):
    def output_only(ask, output, root):
        return ask(output, f"/mnt/elsewhere{root}")

    ask_workers(Workers(output_only, kinds=[PREDICT]), config)
    with pytest.raises(ClusterError, match=r"survey\.root"):
        ask_workers(Workers(output_only), config)


def test_a_worker_that_cannot_be_asked(config):
    said = r"tcp://w0 cannot say what it reaches \(ModuleNotFoundError: No module named.*install the same"
    with pytest.raises(ClusterError, match=said):
        ask_workers(Workers(lambda *arguments: ModuleNotFoundError("No module named 'gzscale'")), config)


def test_a_worker_that_comes_later_is_let_go_if_it_lacks_the_output(config, tmp_path):
    check_reach(config.output)
    with pytest.raises(WorkerError, match=r"does not reach the output.*there is no such file or folder"):
        check_reach(str(tmp_path / "none"))


def test_a_worker_that_comes_later_and_cuts_is_let_go_if_it_lacks_the_survey(config, tmp_path):
    check_reach(config.output, config.survey.root)
    with pytest.raises(WorkerError, match=r"does not reach the survey\.root.*no such file or folder"):
        check_reach(config.output, str(tmp_path / "none"))


def test_later_workers_are_asked_for_a_root_that_this_process_reaches_or_is_refused(config, monkeypatch):
    elsewhere = config.model_copy(
        update={"survey": config.survey.model_copy(update={"root": "/mnt/elsewhere"})}
    )
    assert ask_workers(Workers(like_this_process), config)
    assert not ask_workers(Workers(like_this_process), elsewhere)
    refused = {"survey.root": CredentialsError("s3://sky: no credentials")}
    monkeypatch.setattr("gzscale.night.reach.reach", lambda *places: refused)
    assert ask_workers(Workers(reaching), config)


def reaching(ask, *arguments):
    return {}


def test_a_survey_that_only_workers_have_credentials_for(config, monkeypatch):
    refused = {"survey.root": CredentialsError("s3://sky: no credentials")}
    monkeypatch.setattr("gzscale.night.reach.reach", lambda *places: refused)
    with pytest.raises(CredentialsError, match=r"worker tcp://w1: survey\.root: s3://sky: no credentials"):
        ask_workers(Workers(reaching, like_this_process), config)
    # What else is wrong there is not this process's trouble, too.
    other = {"survey.root": StorageError("s3://sky: HTTP 404 NoSuchBucket")}
    with pytest.raises(ClusterError, match=r"worker tcp://w0: survey\.root: .*NoSuchBucket; mount"):
        ask_workers(Workers(lambda *arguments: other), config)


def test_an_output_that_this_process_is_refused(config, monkeypatch):
    refused = {"output": CredentialsError("s3://night: no credentials")}
    monkeypatch.setattr("gzscale.night.reach.reach", lambda *places: refused)
    with pytest.raises(CredentialsError, match="s3://night"):
        ask_workers(Workers(reaching), config)


class Dying(Workers):
    """Of these workers the first ones die when they are asked."""

    def __init__(self, deaths, *answers):
        super().__init__(*[dying] * deaths, *answers)
        self._deaths, self._asked = deaths, False

    def scheduler_info(self, n_workers):
        workers = list(super().scheduler_info(n_workers)["workers"].items())
        return {"workers": dict(workers[self._deaths if self._asked else 0 :])}

    def run(self, *arguments, **options):
        self._asked = True
        return super().run(*arguments, **options)


def dying(*arguments):
    return OSError("Timed out trying to connect")


def test_a_worker_that_dies_while_it_is_asked_is_no_end_of_the_night(config):
    ask_workers(Dying(2, like_this_process), config)
    with pytest.raises(ClusterError, match="all 2 workers for CUT were lost while they were asked"):
        ask_workers(Dying(2), config)


def test_a_worker_that_is_there_and_does_not_answer(config, monkeypatch):
    monkeypatch.setattr("gzscale.clusters.asking.GONE", 0.1)
    with pytest.raises(
        ClusterError, match=r"worker tcp://w0 cannot say what it reaches \(OSError: Timed out"
    ):
        ask_workers(Workers(dying, like_this_process), config)


def test_workers_that_never_answer_are_not_waited_for(config, monkeypatch):
    monkeypatch.setattr("gzscale.clusters.asking.ANSWER_TIMEOUT", 0.05)
    answer = threading.Event()
    with pytest.raises(ClusterError, match="have not said for 0 s whether they reach"):
        ask_workers(Workers(lambda *arguments: answer.wait(10)), config)
    answer.set()


@pytest.mark.s3
def test_a_bucket_that_may_not_be_listed_is_reached(s3, faulty_s3):
    for name in ("night/ledger/rows/1", "sky/frame"):
        open_storage(s3.url).put(name, b"1")
    places = f"{s3.url}/night", f"{s3.url}/sky"
    faulty_s3.fail(Fault("status", 403, DENIED, path="prefix=sky", lasting=True))
    assert reach(*places) == {}
    faulty_s3.fail(Fault("status", 400, EXPIRED, path="prefix=sky", lasting=True))
    assert isinstance(reach(*places)["survey.root"], CredentialsError)
    faulty_s3.fail(Fault("status", 403, DENIED, path="prefix=night", lasting=True))
    assert list(reach(*places)) == ["output"]
    faulty_s3.fail()
    assert "another endpoint?" in str(reach(f"{s3.url}/other", places[1])["output"])


@pytest.mark.s3
@pytest.mark.slow
def test_a_worker_with_old_credentials_of_its_own(s3, faulty_s3, monkeypatch, tmp_path):
    relay = faulty_s3.backend

    def knowing(method, path, headers, body):
        if "Credential=OLD/" in headers.get("Authorization", ""):
            return 400, {"Content-Type": "application/xml"}, EXPIRED
        return relay(method, path, headers, body)

    monkeypatch.setattr(faulty_s3, "backend", knowing)
    open_storage(s3.url).put("night/ledger/rows/1", b"1")
    config = toy_config(tmp_path, output=f"{s3.url}/night")
    # Its environment is that of the time when somebody started it.
    environment = {key: value for key, value in os.environ.items() if key.startswith("AWS_")}
    environment["AWS_ACCESS_KEY_ID"] = "OLD"
    with (
        LocalCluster(
            n_workers=1,
            threads_per_worker=1,
            resources={PREDICT: 1},
            dashboard_address=None,
            silence_logs=50,
            env=environment,
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
        pytest.raises(CredentialsError, match=r"worker tcp://.*: output: s3://.*start the workers anew"),
    ):
        ask_workers(client, config)
    assert list(reach(config.output, config.survey.root)) == ["survey.root"]
