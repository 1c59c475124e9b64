"""What is asked of workers: every answer that would spoil a night is refused, naming worker and remedy."""

from __future__ import annotations

import dataclasses
import time

import pytest

from gzscale.clusters import health
from gzscale.clusters.health import Demands, WorkerReport, own_versions
from gzscale.clusters.workers import KINDS
from gzscale.errors import ClusterError
from gzscale.night.compute import compute_kind


class Workers:
    """A client whose workers answer what they are told to."""

    def __init__(self, *answers):
        self.answers = {f"tcp://10.0.0.{place}:40000": answer for place, answer in enumerate(answers)}

    def scheduler_info(self, n_workers):
        assert n_workers == -1
        resources = dict.fromkeys(KINDS, 1)
        workers = enumerate(self.answers)
        return {"workers": {at: {"name": f"cut-{place}", "resources": resources} for place, at in workers}}

    def run(self, function, workers, on_error):
        assert function is health.report
        assert on_error == "return"
        return {at: self.answers[at] for at in workers}


def check_workers(workers, scratch_free, wants_gpu):
    return health.check_workers(workers, Demands(own_versions(), scratch_free, wants_gpu))


def answer(**changes):
    good = WorkerReport(own_versions(), time.time(), "/scratch", 10**10, "cpu float32")
    return dataclasses.replace(good, **changes)


def test_good_workers_say_what_they_compute_with():
    workers = Workers(answer(), answer(compute=""))
    assert check_workers(workers, 10**9, wants_gpu=False) == "cpu float32"


@pytest.mark.parametrize(
    ("bad", "wants_gpu", "said"),
    [
        (
            {"versions": {**own_versions(), "code": "0" * 12}},
            False,
            "cut-1 at .*code 000000000000.*other code.*install",
        ),
        ({"versions": {**own_versions(), "torch": "1.0"}}, False, "torch 1.0, here"),
        ({"versions": {**own_versions(), "numba": "0.1"}}, False, "numba 0.1, here"),
        ({"versions": {}}, False, "gzscale none"),
        # The time is that of the import, some minutes before the test of a long run.
        ({"clock": time.time() - 36000}, False, r"3[67]\d{3}\.\d s off, 5 s allowed.*synchronise"),
        ({"clock": time.time() + 3600}, False, "s off.*another time"),
        ({"free": 10**8}, False, "0.10 GB free in /scratch, 1.00 GB needed.*`scratch`"),
        ({"compute": "cpu bfloat16"}, False, "2 ways .cpu bfloat16, cpu float32."),
        ({}, True, "none that works.*nvidia-smi"),
    ],
)
def test_a_worker_that_would_spoil_the_night_is_named(bad, wants_gpu, said):
    with pytest.raises(ClusterError, match=said):
        check_workers(Workers(answer(), answer(**bad)), 10**9, wants_gpu)


def test_builds_of_one_version_for_cores_and_for_gpus_are_the_same_code(monkeypatch):
    real = health.importlib.metadata.version

    def report(torch, numpy=""):
        versions = {"torch": torch, "numpy": numpy}
        monkeypatch.setattr(
            health.importlib.metadata, "version", lambda name: versions.get(name) or real(name)
        )
        return answer(versions=own_versions())

    cutting, predicting, other = report("2.13.0+cpu"), report("2.13.0"), report("2.13.1+cpu")
    demands = Demands(cutting.versions, 10**9, False)
    workers = Workers(dataclasses.replace(cutting, compute=""), predicting)
    assert health.check_workers(workers, demands) == "cpu float32"
    with pytest.raises(ClusterError, match=r"torch 2\.13\.1, here 2\.13\.0"):
        health.check_workers(Workers(cutting, other), demands)
    patched = report("2.13.0", real("numpy") + "+site1")
    with pytest.raises(ClusterError, match=r"numpy .*\+site1, here"):
        health.check_workers(Workers(cutting, patched), demands)


def test_a_worker_that_cannot_run_the_question_has_no_gzscale_of_ours():
    with pytest.raises(ClusterError, match=r"cut-0 .*ModuleNotFoundError.*install the same gzscale"):
        check_workers(Workers(ModuleNotFoundError("gzscale"), answer()), 10**9, wants_gpu=False)


def test_of_many_bad_workers_three_are_named():
    with pytest.raises(ClusterError, match="and 7 more: has too little scratch"):
        check_workers(Workers(*[answer(free=0)] * 10), 10**9, wants_gpu=False)


def test_where_none_predicts_there_is_no_kind():
    with pytest.raises(ClusterError, match=r"0 ways .none"):
        check_workers(Workers(answer(compute="")), 10**9, wants_gpu=False)


def test_a_real_worker_s_answer():
    class State:
        total_resources = {"PREDICT": 1}  # noqa: RUF012

    class Worker:
        local_directory = "/tmp"
        state = State

    told = health.report(Worker())
    assert told.compute == compute_kind()
    assert told.versions == own_versions()
    assert abs(told.clock - time.time()) < 5
    assert told.free > 0
