"""Which partition a host takes next."""

import itertools
import random

import pytest

from gzscale.night.shares import Shares


def take_all(shares, hosts, pick):
    taken = {host: [] for host in hosts}
    while True:
        host = pick()
        number = shares.take(host)
        if number is None:
            return taken
        taken[host].append(number)


def jumps(numbers):
    return sum(second != first + 1 for first, second in itertools.pairwise(numbers))


def test_one_host_takes_all_in_order():
    shares = Shares(5, [""])
    assert [shares.take("") for _ in range(7)] == [0, 1, 2, 3, 4, None, None]


def test_hosts_begin_at_equal_parts():
    shares = Shares(9, ["a", "b", "c"])
    assert [shares.take(host) for host in "abcabc"] == [0, 3, 6, 1, 4, 7]


@pytest.mark.parametrize("seed", range(5))
def test_each_is_taken_once_and_mostly_after_its_neighbour(seed):
    # Hosts of different speed.
    dice = random.Random(seed)
    hosts = ["a", "b", "c", "d"]
    taken = take_all(Shares(1000, hosts), hosts, lambda: dice.choices(hosts, [1, 2, 3, 10])[0])
    assert sorted(itertools.chain(*taken.values())) == list(range(1000))
    assert all(taken.values())
    assert sum(jumps(numbers) for numbers in taken.values()) < 40


def test_who_comes_later_gets_half_and_what_a_host_leaves_is_taken():
    shares = Shares(100, ["a"])
    assert [shares.take("a") for _ in range(20)] == list(range(20))
    assert shares.take("b") == 60
    # Host a is gone.
    assert sorted(take_all(shares, ["b"], lambda: "b")["b"]) == [*range(20, 60), *range(61, 100)]


def test_nothing_is_nothing():
    assert Shares(0, []).take("a") is None
