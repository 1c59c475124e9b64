"""The lock: one night at a time, and no lock outlives its holder."""

import json
import math
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from gzscale.errors import CredentialsError, LockedError, MissingError, StorageError
from gzscale.night import lock
from gzscale.night.fingerprint import canonical_json
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


def is_free(storage):
    return lock._read(storage) is None


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
    assert is_free(storage)


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
    held = {"night": "far", "host": "another-host", "boot": 1, "pid": 1}
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
        deadline = time.monotonic() + 60
        while json.loads(storage.get(KEY))["renewed"] == before:
            assert time.monotonic() < deadline, "the lock was never renewed"
            time.sleep(0.01)


def test_of_many_that_take_over_a_void_lock_one_wins(storage):
    held = {"night": "far", "host": "another-host", "boot": 1, "pid": 1}
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
        other = {"night": "second", "host": "far", "pid": 1, "renewed": time.time()}
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
        self._storage, self.error, self.times = storage, None, math.inf

    def __getattr__(self, name):
        if self.error is not None and self.times > 0 and name in {"stat", "get", "replace"}:
            self.times -= 1
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
        deadline = time.monotonic() + 60
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
    monkeypatch.setattr(lock, "RELEASE_PAUSE", 0.0)
    refusing = Refusing(storage)
    with hold_lock(refusing, "first") as hold:
        refusing.error = StorageError("s3://b/ledger/LOCK: HTTP 503 SlowDown")
        deadline = time.monotonic() + 60
        while hold._trouble is None:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        monkeypatch.setattr(lock, "SURRENDER", 0.2)
        _wait_until_lost(hold, r"storage does not answer \(s3://b/ledger/LOCK: HTTP 503 SlowDown\)")


def _wait(hold):
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        hold.check()
        time.sleep(0.01)


def _wait_until_lost(hold, said):
    with pytest.raises(LockedError, match=said):
        _wait(hold)


def living(**changes):
    """A lock of the process that runs these tests, which it does not hold."""
    return json.loads(json.dumps(lock._token("other"))) | changes


@pytest.fixture
def child():
    process = subprocess.Popen(["sleep", "60"])
    yield process.pid
    process.kill()
    process.wait()


@pytest.mark.parametrize("proc", ["/proc", "/nowhere"])
def test_a_clock_that_is_set_makes_no_living_holder_dead(storage, monkeypatch, child, proc):
    monkeypatch.setattr(lock, "_PROC", Path(proc))
    held = living(pid=child, process_began=lock.process_began(child), renewed=0.0)
    storage.put(KEY, json.dumps(held).encode())
    if proc == "/proc":  # There it is made of the boot's time, which moves with the clock.
        monkeypatch.setattr("psutil.Process.create_time", lambda process: 1.0)
    with pytest.raises(LockedError, match="night other is running"), hold_lock(storage, "here"):
        pass
    # Its number, given to another process since.
    storage.put(KEY, json.dumps(held | {"process_began": held["process_began"] - 1}).encode())
    with hold_lock(storage, "here"):
        pass


def test_where_a_process_cannot_be_looked_at_its_renewals_tell(storage, monkeypatch, child):
    monkeypatch.setattr(lock, "process_began", lambda pid: None)
    storage.put(KEY, json.dumps(living(pid=child)).encode())
    with pytest.raises(LockedError), hold_lock(storage, "here"):
        pass
    storage.put(KEY, json.dumps(living(pid=child, renewed=time.time() - lock.EXPIRY - 1)).encode())
    with hold_lock(storage, "here"):
        pass


def test_a_lock_that_this_process_could_not_let_go_of_does_not_lock_it_out(storage, monkeypatch):
    monkeypatch.setattr(lock, "RELEASE_PAUSE", 0.0)
    refusing = Refusing(storage)
    with hold_lock(refusing, "first"):
        refusing.error = StorageError("s3://b/ledger/LOCK: HTTP 503 SlowDown")
    assert json.loads(storage.get(KEY))["night"] == "first"
    with hold_lock(storage, "second"), pytest.raises(LockedError), hold_lock(storage, "third"):
        pass
    assert is_free(storage)


def test_letting_go_is_tried_again(storage, monkeypatch):
    monkeypatch.setattr(lock, "RELEASE_PAUSE", 0.0)
    refusing = Refusing(storage)
    with hold_lock(refusing, "first"):
        refusing.error, refusing.times = StorageError("s3://b/ledger/LOCK: HTTP 503 SlowDown"), 2
    assert is_free(storage)


class AnswerLost:
    """An output that writes, loses the answer, and lets another night in before it is asked again."""

    def __init__(self, storage):
        self._storage, self.lost = storage, False

    def __getattr__(self, name):
        return getattr(self._storage, name)

    def replace(self, key, data, tag):
        done = self._storage.replace(key, data, tag)
        if not self.lost and b"released" in data:
            self.lost = True
            assert done
            lock._acquire(self._storage, lock._token("second"))
            raise StorageError("s3://b/ledger/LOCK: no answer")
        return done


def test_letting_go_again_leaves_the_lock_of_a_night_that_came_in_between_alone(storage, monkeypatch):
    monkeypatch.setattr(lock, "RELEASE_PAUSE", 0.0)
    losing = AnswerLost(storage)
    with hold_lock(losing, "first"):
        pass
    assert losing.lost
    assert json.loads(storage.get(KEY))["night"] == "second"


@pytest.mark.parametrize("other", ["second", None])
def test_a_lock_is_let_go_of_on_what_was_read(storage, monkeypatch, other):
    monkeypatch.setattr(lock, "RELEASE_PAUSE", 0.0)
    token, get = lock._token("first"), storage.get
    lock._acquire(storage, token)

    def changed_after(key):
        content = get(key)
        monkeypatch.setattr(storage, "get", get)
        storage.put(key, canonical_json(lock._token(other) if other else {**token, "renewed": 1e12}))
        return content

    monkeypatch.setattr(storage, "get", changed_after)
    lock._release(storage, token)
    # Its own, renewed while it was read, is let go of at the second try.
    assert (lock._read(storage) or {}).get("night") == other


class Meanwhile:
    """An output on which, while a lock is read there, it becomes another night's."""

    def __init__(self, storage, answer):
        self._storage, self._answer, self._read = storage, answer, False

    def __getattr__(self, name):
        return getattr(self._storage, name)

    def get(self, key):
        if self._read:
            return self._storage.get(key)
        self._read = True
        self._storage.delete(key)
        far = {"night": "third", "host": "far", "pid": 1, "renewed": time.time()}
        assert self._storage.put_new(key, json.dumps(far).encode())
        if self._answer is None:
            raise MissingError("gone")
        return self._answer


@pytest.mark.parametrize("answer", [None, b"{", b"{}", b'"x"'])
def test_a_fresh_lock_in_the_place_of_the_one_that_was_read_is_left_alone(storage, answer):
    storage.put(KEY, b"{")
    said = "night third is running"
    with pytest.raises(LockedError, match=said), hold_lock(Meanwhile(storage, answer), "here"):
        pass
    assert json.loads(storage.get(KEY))["night"] == "third"


@pytest.mark.parametrize("content", [b"{", b"{}", b"\xff", b'["night"]', b'{"night": "a", "pid": {}}'])
def test_what_is_no_lock_locks_nobody_out(storage, content):
    storage.put(KEY, content)
    with hold_lock(storage, "here"):
        assert json.loads(storage.get(KEY))["night"] == "here"


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
