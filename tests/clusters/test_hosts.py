"""Two hosts, on two loopback addresses: partitions that follow each other go to the same one."""

import itertools
import socket
import time

import pytest
from distributed import Client, Scheduler, SpecCluster, Worker
from toy import ToySurvey, toy_config

from gzscale.cluster import Cluster, count_hosts
from gzscale.clusters.workers import KINDS
from gzscale.night import flight as module
from gzscale.night import origins as origin_module
from gzscale.night.accounting import close_account
from gzscale.night.dispatch import process
from gzscale.night.ledger import Ledger
from gzscale.night.plan import make_plan
from gzscale.storage import open_storage

HOSTS = ("127.0.0.1", "127.0.0.2")


def has_second_address():
    with socket.socket() as probe:
        try:
            probe.bind((HOSTS[1], 0))
        except OSError:
            return False
    return True


pytestmark = pytest.mark.skipif(not has_second_address(), reason="this system has one loopback address")


@pytest.fixture(autouse=True)
def toy(monkeypatch):
    monkeypatch.setattr(origin_module, "load_survey", lambda kind, *rest: ToySurvey(*rest))


@pytest.fixture
def cluster(tmp_path):
    options = {"nthreads": 1, "resources": dict.fromkeys(KINDS, 1), "dashboard": False}
    spec = {
        host: {"cls": Worker, "options": {**options, "host": host, "local_directory": str(tmp_path / host)}}
        for host in HOSTS
    }
    scheduler = {"cls": Scheduler, "options": {"dashboard_address": ":0", "host": HOSTS[0]}}
    with SpecCluster(spec, scheduler, silence_logs=50) as made, Client(made, set_as_default=False) as client:
        client.wait_for_workers(len(HOSTS))
        yield made, Cluster(client, "", 60, 60, lambda: "nothing")


def test_each_host_cuts_a_stretch_of_the_sky(cluster, tmp_path, monkeypatch):
    _, opened = cluster
    assert count_hosts(opened.client) == dict.fromkeys(HOSTS, 1)
    config = toy_config(tmp_path, max_objects=2)
    plan = make_plan(config, "n1")
    assert len(plan.partitions) > 12
    where = {}
    submit = opened.client.submit

    def watched(function, *arguments, **options):
        if function is module.run_cut:
            where[arguments[2]] = options["workers"]
        return submit(function, *arguments, **options)

    monkeypatch.setattr(opened.client, "submit", watched)
    tally = process(opened, config, plan, lambda outcome: None)
    assert close_account(plan, tally)["objects"].failed == 0
    order = [where[item.partition][0] for item in plan.partitions]
    assert set(order) == set(HOSTS)
    # Two equal parts, and a few pieces of what the slower one leaves.
    changes = sum(one != other for one, other in itertools.pairwise(order))
    assert changes <= 5
    done = [Ledger(open_storage(config.output)).read("cut", item.partition) for item in plan.partitions]
    assert all(done)


def test_an_outcome_lost_with_its_host_is_made_by_another(cluster, tmp_path, monkeypatch):
    made, opened = cluster
    monkeypatch.setattr(module, "HOST_GONE", 2.0)
    monkeypatch.setattr(module, "FETCH_TIMEOUT", 1.0)
    config = toy_config(tmp_path, max_objects=2)
    plan = make_plan(config, "n1")
    fetch, lost = module._outcome, []

    def lose_first(flown):
        key = flown.futures[0].key
        held = opened.client.who_has(flown.futures[:1]).get(key, ())
        if not lost and flown.host == HOSTS[1] and held and all(HOSTS[1] in worker for worker in held):
            lost.append(key)
            made.scale(1)
            while len(count_hosts(opened.client)) > 1:
                time.sleep(0.05)
        return fetch(flown)

    monkeypatch.setattr(module, "_outcome", lose_first)
    tally = process(opened, config, plan, lambda outcome: None)
    assert lost
    account = close_account(plan, tally)["objects"]
    assert account.closes
    assert account.failed == 0


def test_what_a_lost_host_had_is_done_by_another(cluster, tmp_path, monkeypatch):
    made, opened = cluster
    monkeypatch.setattr(module, "HOST_GONE", 2.0)
    config = toy_config(tmp_path, max_objects=2)
    plan = make_plan(config, "n1")
    lost = []

    def lose(outcome):
        if not lost:
            lost.append(outcome)
            made.scale(1)

    tally = process(opened, config, plan, lose)
    assert list(count_hosts(opened.client).values()) == [1]
    account = close_account(plan, tally)["objects"]
    assert account.closes
    assert account.failed == 0
