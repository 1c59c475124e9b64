"""What all workers are asked: no longer than is waited for, and without those that are lost meanwhile."""

import threading

import pytest

from gzscale.clusters import asking
from gzscale.clusters.asking import ask_all, register
from gzscale.clusters.workers import CUT, PREDICT
from gzscale.errors import ClusterError, StorageError

ANSWERING = {"a": {"resources": {CUT: 1}}, "b": {"resources": {PREDICT: 1}}, "c": {"resources": {CUT: 1}}}


class Client:
    """Answers as told, to a question and to plugins, one after the other; some workers are there."""

    def __init__(self, *answers, there="abc"):
        self.answers, self.there = list(answers), there

    def scheduler_info(self, n_workers):
        return {"workers": {address: ANSWERING[address] for address in self.there}}

    def run(self, question, *arguments, workers, on_error):
        assert (workers, on_error) == (["a", "b", "c"], "return")
        return self._answer()

    def register_plugin(self, plugin):
        return self._answer()

    def _answer(self):
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer() if callable(answer) else answer


def ask(client):
    return ask_all(client, ANSWERING, "what they run", len, "abc")


def test_a_worker_that_is_lost_meanwhile_is_left_out(monkeypatch):
    gone = {"a": OSError("closed"), "b": 2, "c": 3}
    assert ask(Client(gone, there="bc")) == {"b": 2, "c": 3}
    monkeypatch.setattr(asking, "GONE", 0.0)
    assert ask(Client(gone)) == gone  # It is there, and in trouble.
    refused = {"a": StorageError("HTTP 403"), "b": 2, "c": 3}
    assert ask(Client(refused, there="bc")) == refused
    with pytest.raises(ClusterError, match="all 1 workers for PREDICT were lost while they were asked what"):
        ask(Client({"a": 1, "b": OSError("closed"), "c": 3}, there="ac"))


@pytest.mark.parametrize("do", [ask, lambda client: register(client, "plugin", "what they run")])
def test_workers_that_never_answer_are_not_waited_for(monkeypatch, do):
    monkeypatch.setattr(asking, "ANSWER_TIMEOUT", 0.05)
    never = threading.Event()
    with pytest.raises(ClusterError, match="have not said for 0 s what they run; look whether a folder"):
        do(Client(lambda: never.wait(10)))
    never.set()


def test_what_goes_wrong_is_told_as_the_cluster_s():
    with pytest.raises(ClusterError, match="do not answer: ValueError: no such function"):
        ask(Client(ValueError("no such function")))


def test_a_plugin_is_registered_again_where_a_worker_was_lost_meanwhile(monkeypatch):
    monkeypatch.setattr(asking, "GONE", 0.0)
    client = Client(OSError("closed"), None, "left")
    register(client, "plugin", "what they run")
    assert client.answers == ["left"]
    with pytest.raises(ClusterError, match="OSError: closed"):
        register(Client(*[OSError("closed")] * 3), "plugin", "what they run")
    client = Client(ValueError("a plugin of that name"), None)
    with pytest.raises(ClusterError, match="of that name"):
        register(client, "plugin", "what they run")
    assert client.answers == [None]
