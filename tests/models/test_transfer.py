"""Blocks on their way to a GPU, whose streams and events are stood in for: who waits for whom, and when."""

import contextlib
import threading
import weakref
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from gzscale.models import transfer
from gzscale.models.layout import Layout
from gzscale.models.observation import Observation
from gzscale.models.transfer import CudaTransfer, Transfer

LAYOUT = Layout("gr", 6, 4, False)


class Stage:
    """Streams and events that do nothing but say what was asked of them, in order."""

    def __init__(self):
        self.told, self.lock = [], threading.Lock()
        self.current = "compute"

    def tell(self, *words):
        with self.lock:
            self.told.append(words)


@pytest.fixture
def stage(monkeypatch):
    made = Stage()

    class Event:
        def __init__(self, blocking=False):
            self.recorded = 0

        def record(self, stream):
            self.recorded += 1
            made.tell("record", id(self), stream.name)

        def synchronize(self):
            made.tell("synchronize", id(self), self.recorded)

    class Stream:
        def __init__(self, device=None, name="copies"):
            self.name = name

        def wait_event(self, event):
            made.tell("wait", id(event), self.name)

        def wait_stream(self, stream):
            made.tell("wait_stream", stream.name, self.name)

        def record_event(self):
            event = Event()
            event.record(self)
            return event

    @contextlib.contextmanager
    def on(stream):
        before, made.current = made.current, stream.name
        yield
        made.current = before

    compute = Stream(name="compute")
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", on)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device=None: compute)
    monkeypatch.setattr(CudaTransfer, "_place", Transfer._place)
    return made


@pytest.fixture
def seen():
    rng = np.random.default_rng(3)
    return Observation.of(rng.normal(size=(23, 2, 6, 6)).astype(np.float16), "gr", np.arange(1.0, 24.0))


def through(ring, seen, rows=3):
    """Send an observation and return the scales that arrive; the last block may be short."""

    def fill(slot, start):
        part = slice(start, min(start + rows, len(seen)))
        slot.count = slot.rows = part.stop - start
        LAYOUT.fill(tuple(array[: slot.rows] for array in slot.arrays), seen, part)

    found = []
    for slot in ring.stream(range(0, len(seen), rows), fill):
        (scale,) = ring.send(slot, lambda tensors: [tensors[1].clone()])
        found += scale.tolist()
        ring.done(slot)
    return found


def test_everything_arrives_in_order(seen, stage):
    expected = seen.scale.tolist()
    assert through(Transfer(LAYOUT, seen.images.dtype, 3), seen) == expected
    ring = CudaTransfer(LAYOUT, seen.images.dtype, 3, torch.device("cpu"))
    # It is kept for the next partition.
    assert through(ring, seen) == expected
    assert through(ring, seen) == expected


def test_a_slot_waits_for_its_last_use_on_both_sides(seen, stage):
    ring = CudaTransfer(LAYOUT, seen.images.dtype, 3, torch.device("cpu"))
    through(ring, seen)
    assert stage.told[0] == ("wait_stream", "compute", "copies")
    for number in range(ring.depth):
        copied, used = id(ring._copied[number]), id(ring._used[number])
        about = [words for words in stage.told if words[1] in (copied, used)]
        round_trip = [
            ("wait", used, "copies"),
            ("record", copied, "copies"),
            ("record", used, "compute"),
        ]
        uses = len(range(number, 8, ring.depth))
        # The host's memory is written again only after as many copies have ended as were begun.
        waits = [("synchronize", copied, turn) for turn in range(uses)]
        assert [words for words in about if words[0] == "synchronize"] == waits
        assert [words for words in about if words[0] != "synchronize"] == uses * round_trip


def test_inputs_are_made_beside_the_computing_and_waited_for(seen, stage):
    ring = CudaTransfer(LAYOUT, seen.images.dtype, 3, torch.device("cpu"))
    slot = ring.slots[0]
    slot.count = slot.rows = 3
    LAYOUT.fill(slot.arrays, seen, slice(3))
    where = []
    ring.send(slot, lambda tensors: where.append(stage.current) or [tensors[1]])
    assert where == ["copies"]
    last, before = stage.told[-1], stage.told[-2]
    assert last == ("wait", before[1], "compute")
    assert before[0] == "record"


def test_a_ring_at_rest_keeps_nothing_that_was_made_of_it(seen, stage):
    ring = CudaTransfer(LAYOUT, seen.images.dtype, 3, torch.device("cpu"))
    slot = ring.slots[0]
    slot.count = slot.rows = 3
    LAYOUT.fill(slot.arrays, seen, slice(3))
    (inputs,) = ring.send(slot, lambda tensors: [tensors[1].clone()])
    kept = weakref.ref(inputs)
    del inputs
    assert kept() is not None
    ring.rest()
    assert kept() is None


GPU = torch.device("cuda", 0)


class Ring:
    """A ring that was made, of nothing."""

    def __init__(self):
        self.rested = 0

    def rest(self):
        self.rested += 1


@pytest.fixture
def made(monkeypatch):
    """The rings that are made, whose device is stood in for."""
    found = []
    monkeypatch.setattr(transfer, "CudaTransfer", lambda *arguments: found.append(arguments) or Ring())
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: found.append("waited"))
    transfer.forget()
    yield found
    transfer.forget()


def borrowed(layout=LAYOUT, rows=8):
    return transfer.borrow(GPU, layout, np.dtype(np.float16), rows)


def test_a_ring_of_a_gpu_is_kept_until_it_is_forgotten(made):
    with borrowed() as first:
        assert not first.rested
    assert first.rested == 1
    with borrowed(Layout("gr", 6, 4, False)) as again, borrowed(rows=16) as larger:
        assert again is first
        assert larger is not first
    transfer.forget()
    with borrowed() as later:
        assert later is not first
    assert len(made) == 3


def test_rings_of_several_tasks_are_kept_side_by_side(made):
    for _ in range(2):
        for side in (2, 4, 6):
            for measured in (False, True):
                with borrowed(Layout("gr", 6, side, measured)):
                    pass
    assert len(made) == 6


def test_a_ring_is_one_borrower_s_at_a_time_and_a_third_one_waits(made):
    had = threading.Event()

    def third():
        with borrowed():
            had.set()

    waiting = threading.Thread(target=third)
    with borrowed() as one:
        with borrowed() as other:
            assert one is not other
            waiting.start()
            assert not had.wait(0.1)
        assert had.wait(60)
    waiting.join(60)
    assert len(made) == 2


@pytest.fixture
def room(made, monkeypatch):
    """Memory for so many rings at once, and who finds that there is none for another."""
    rings, wanting = weakref.WeakSet(), threading.Semaphore(0)

    def make(*arguments):
        if len(rings) >= room.most:
            wanting.release()
            raise torch.OutOfMemoryError("no memory for so many")
        ring = Ring()
        rings.add(ring)
        return ring

    monkeypatch.setattr(transfer, "CudaTransfer", make)
    room = SimpleNamespace(most=1, wanting=wanting)
    return room


def in_thread(function):
    """Run a function on a thread; return the thread and what the function returned or raised."""
    said = []

    def run():
        try:
            said.append(function())
        except Exception as error:
            said.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread, said


def numbered():
    with borrowed() as ring:
        return id(ring)


def test_without_memory_for_a_second_ring_the_one_that_is_out_is_waited_for(room):
    with borrowed() as ring:
        thread, said = in_thread(numbered)
        assert room.wanting.acquire(timeout=60)
        thread.join(0.05)
        assert not said
    thread.join(60)
    assert said == [id(ring)]


def test_where_the_one_that_is_out_is_let_go_of_another_is_made(room):
    with contextlib.suppress(OSError), borrowed():
        thread, said = in_thread(numbered)
        assert room.wanting.acquire(timeout=60)
        room.most = 2
        raise OSError("lost")
    thread.join(60)
    assert len(said) == 1
    assert isinstance(said[0], int)


def test_without_memory_for_any_ring_nobody_waits(room):
    room.most = 0
    with pytest.raises(torch.OutOfMemoryError), borrowed():
        pass
    room.most = 1
    with borrowed(), pytest.raises(torch.OutOfMemoryError), borrowed(rows=16):
        pass  # Of another kind: who has that one may wait for this borrower.


def test_what_is_no_want_of_memory_is_told_at_once(room, monkeypatch):
    def broken(*arguments):
        raise torch.AcceleratorError("CUDA error: an illegal memory access")

    with borrowed():
        monkeypatch.setattr(transfer, "CudaTransfer", broken)
        with pytest.raises(torch.AcceleratorError, match="illegal"), borrowed():
            pass


def test_a_ring_of_which_something_may_be_in_flight_is_waited_for_and_not_lent_again(made):
    with pytest.raises(OSError, match="lost"), borrowed() as first:
        raise OSError("lost")
    assert made[1:] == ["waited"]
    with borrowed() as second:
        assert second is not first


def test_what_was_asked_can_be_waited_for(seen, stage):
    ring = CudaTransfer(LAYOUT, seen.images.dtype, 3, torch.device("cpu"))
    wait = ring.mark()
    assert stage.told[-1][::2] == ("record", "compute")
    wait()
    assert stage.told[-1] == ("synchronize", stage.told[-2][1], 1)
    assert Transfer(LAYOUT, seen.images.dtype, 3).mark()() is None


def test_memory_is_pinned_from_the_start(monkeypatch):
    asked = []
    monkeypatch.setattr(torch, "empty_like", lambda like, **how: asked.append((like.shape, like.dtype, how)))
    CudaTransfer._place(None, np.empty((2, 3), np.float16))
    assert asked == [((2, 3), torch.float16, {"pin_memory": True})]
