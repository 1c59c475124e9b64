"""The lock: one night at a time, and no lock outlives its holder."""

import json
import subprocess
import sys
import threading
import time

import pytest

from gzscale.errors import CredentialsError, LockedError, StorageError
from gzscale.night import lock
from gzscale.night.lock import KEY, hold_lock
from gzscale.storage import open_storage

HOLD = """
import sys, time
from gzscale.night.lock import hold_lock
from gzscale.storage import open_storage
with hold_lock(open_storage(sys.argv[1]), "first"):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def storage(tmp_path):
    return open_storage(tmp_path)


def test_the_second_one_is_refused_by_name(storage):
    with (
        hold_lock(storage, "first"),
        pytest.raises(LockedError, match="night first is running"),
        hold_lock(storage, "second"),
    ):
        pass


def test_it_is_free_again_afterwards(storage):
    with pytest.raises(ZeroDivisionError), hold_lock(storage, "first"):
        _ = 1 / 0
    with hold_lock(storage, "second"):
        assert json.loads(storage.get(KEY))["night"] == "second"
    assert storage.stat(KEY) is None


def test_a_killed_process_holds_nothing(storage):
    process = subprocess.Popen([sys.executable, "-c", HOLD, storage.root], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(LockedError), hold_lock(storage, "second"):
            pass
    finally:
        process.kill()
        process.wait()
    with hold_lock(storage, "second"):
        assert json.loads(storage.get(KEY))["night"] == "second"


@pytest.mark.parametrize(("age", "free"), [(lock.EXPIRY + 1, True), (lock.EXPIRY / 2, False)])
def test_another_machine_s_lock_is_void_when_it_is_not_renewed(storage, age, free):
    held = {"night": "far", "host": "another-host", "boot": 1, "pid": 1, "process_started": 1.0}
    storage.put(KEY, json.dumps(held | {"renewed": time.time() - age}).encode())
    if free:
        with hold_lock(storage, "here"):
            assert json.loads(storage.get(KEY))["night"] == "here"
    else:
        with pytest.raises(LockedError, match="another-host"), hold_lock(storage, "here"):
            pass


def test_it_is_renewed_while_it_is_held(storage, monkeypatch):
    monkeypatch.setattr(lock, "RENEWAL", 0.02)
    with hold_lock(storage, "first"):
        before = json.loads(storage.get(KEY))["renewed"]
        deadline = time.monotonic() + 10
        while json.loads(storage.get(KEY))["renewed"] == before:
            assert time.monotonic() < deadline, "the lock was never renewed"
            time.sleep(0.01)


def test_of_many_that_take_over_a_void_lock_one_wins(storage):
    held = {"night": "far", "host": "another-host", "boot": 1, "pid": 1, "process_started": 1.0}
    storage.put(KEY, json.dumps(held | {"renewed": 0.0}).encode())
    won, lost = [], []
    done, gate = threading.Event(), threading.Barrier(6)

    def attempt(number):
        gate.wait()
        try:
            with hold_lock(storage, f"night-{number}"):
                won.append(number)
                done.wait(20)
        except LockedError:
            lost.append(number)
        if len(lost) == 5:
            done.set()

    threads = [threading.Thread(target=attempt, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(won) == 1
    assert len(lost) == 5


def test_a_holder_whose_lock_was_taken_is_told(storage, monkeypatch):
    monkeypatch.setattr(lock, "RENEWAL", 0.02)
    with hold_lock(storage, "first") as hold:
        hold.check()
        other = {"night": "second", "host": "far", "pid": 1, "process_started": 1.0, "renewed": time.time()}
        storage.put(KEY, json.dumps(other).encode())
        _wait_until_lost(hold, "night second on far has taken")
    assert json.loads(storage.get(KEY))["night"] == "second"


def test_a_holder_that_cannot_renew_stops_before_another_takes_over(storage, monkeypatch):
    assert lock.SURRENDER < lock.EXPIRY
    monkeypatch.setattr(lock, "SURRENDER", 0.05)
    with hold_lock(storage, "first") as hold:  # RENEWAL is twenty seconds
        _wait_until_lost(hold, "storage does not answer")


class Refusing:
    """An output that fails to answer once it is told with what."""

    def __init__(self, storage):
        self._storage, self.error = storage, None

    def __getattr__(self, name):
        if self.error is not None and name in {"stat", "get", "replace"}:
            raise self.error
        return getattr(self._storage, name)


def test_a_lock_that_cannot_be_renewed_for_its_credentials_says_so_soon(storage, monkeypatch):
    monkeypatch.setattr(lock, "RENEWAL", 0.02)
    refusing = Refusing(storage)
    with hold_lock(refusing, "first") as hold:
        refusing.error = CredentialsError("s3://b/ledger/LOCK: HTTP 400 ExpiredToken; renew them")
        with pytest.raises(
            CredentialsError, match=r"lock is not renewed.*credentials.*ExpiredToken; renew them"
        ):
            _wait(hold)
        refusing.error = None
        deadline = time.monotonic() + 10
        while hold._trouble is not None:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        hold.check()


def test_one_refusal_alone_ends_no_night(storage):
    refusal = CredentialsError("s3://b/ledger/LOCK: HTTP 403 AccessDenied")
    hold = lock.Hold(storage)
    for failure in (refusal, StorageError("HTTP 503"), refusal):
        hold.failed(failure)
        hold.check()
    hold.renewed()
    hold.failed(refusal)
    hold.check()
    hold.failed(refusal)
    with pytest.raises(CredentialsError, match="lock is not renewed"):
        hold.check()


def test_a_lock_that_cannot_be_renewed_tells_why(storage, monkeypatch):
    monkeypatch.setattr(lock, "RENEWAL", 0.02)
    monkeypatch.setattr(lock, "SURRENDER", 0.2)
    refusing = Refusing(storage)
    with hold_lock(refusing, "first") as hold:
        refusing.error = StorageError("s3://b/ledger/LOCK: HTTP 503 SlowDown")
        _wait_until_lost(hold, r"storage does not answer \(s3://b/ledger/LOCK: HTTP 503 SlowDown\)")


def _wait(hold):
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        hold.check()
        time.sleep(0.01)


def _wait_until_lost(hold, said):
    with pytest.raises(LockedError, match=said):
        _wait(hold)


def test_a_process_of_another_container_is_not_looked_for_here(storage, monkeypatch):
    # The same host name and boot, but another table of processes, in which number 999999999 is alive.
    mine = json.loads(json.dumps(lock._token("far")))
    held = mine | {"processes": "boot pid:[1]", "pid": 999_999_999, "renewed": time.time()}
    storage.put(KEY, json.dumps(held).encode())
    with pytest.raises(LockedError, match="night far is running"), hold_lock(storage, "here"):
        pass
    # In this table it is dead, and the lock void at once.
    storage.put(KEY, json.dumps(held | {"processes": lock.process_table()}).encode())
    with hold_lock(storage, "here"):
        assert json.loads(storage.get(KEY))["night"] == "here"
