"""Work done ahead on threads: bounded, in order, and its errors are told."""

import threading
import time

import pytest

from gzscale.models.ahead import ahead, through_ring


def preparing():
    """Return the threads of this module's subject; files before may have left others that are just ending."""
    return [thread for thread in threading.enumerate() if thread.name.startswith("prepare")]


def test_reading_ahead_is_bounded_and_ends():
    made = []

    def items():
        for number in range(100):
            made.append(number)
            yield number

    found = ahead(items(), depth=2)
    assert next(found) == 0
    assert preparing()
    found.close()
    assert len(made) <= 6
    assert not preparing()


def test_an_error_while_reading_ahead_is_raised():
    def items():
        yield 1
        raise OSError("lost")

    found = ahead(items())
    assert next(found) == 1
    with pytest.raises(OSError, match="lost"):
        next(found)


def test_a_ring_keeps_the_order_whatever_takes_long():
    slots = [[], [], []]

    def fill(slot, item):
        time.sleep(0.02 if item % 3 == 0 else 0)
        slot[:] = [item]

    assert [slot[0] for slot in through_ring(range(10), slots, fill, threads=3)] == list(range(10))


def test_a_slot_is_not_filled_while_it_is_in_use():
    slots, filled = [[], []], []

    def fill(slot, item):
        filled.append(item)
        slot[:] = [item]

    ring = through_ring(range(6), slots, fill, threads=2)
    for number in range(6):
        slot = next(ring)
        time.sleep(0.01)
        assert slot == [number]
        assert len(filled) <= number + 2
    assert next(ring, None) is None


def test_fewer_items_than_slots_and_none():
    def fill(slot, item):
        slot[:] = [item]

    assert [slot[0] for slot in through_ring([7], [[], [], []], fill, 2)] == [7]
    assert list(through_ring([], [[]], fill, 1)) == []


def test_an_error_while_a_slot_is_filled_is_raised_in_its_turn():
    def fill(slot, item):
        if item == 1:
            raise OSError("lost")
        slot[:] = [item]

    ring = through_ring(range(9), [[], [], []], fill, 2)
    assert next(ring) == [0]
    with pytest.raises(OSError, match="lost"):
        next(ring)
    assert not preparing()


def test_leaving_a_ring_early_ends_its_threads():
    ring = through_ring(range(100), [[], []], lambda slot, item: None, 2)
    next(ring)
    ring.close()
    assert not preparing()
