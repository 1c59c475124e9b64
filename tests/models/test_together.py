"""Several bundles over one observation, and an engine as it is on a GPU, whose device is stood in for."""

import contextlib
import dataclasses
import functools
import gc
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from small_bundles import flux_bundle

from gzscale.models import engine as engine_module
from gzscale.models import together as together_module
from gzscale.models.batches import Known, Sizes
from gzscale.models.engine import Engine, run_together
from gzscale.models.layout import Layout
from gzscale.models.observation import Observation
from gzscale.models.replay import Replay
from gzscale.models.transfer import Transfer


@pytest.fixture(autouse=True)
def _nothing_known(monkeypatch):
    monkeypatch.setattr(engine_module, "_KNOWN", Known())


class Turns:
    """A device's turn that tells whether somebody has it."""

    depth = 0

    @contextlib.contextmanager
    def turn(self, device):
        self.depth += 1
        yield
        self.depth -= 1


@pytest.fixture
def turns(monkeypatch):
    made = Turns()
    for module in (engine_module, together_module):
        monkeypatch.setattr(module, "device_turn", made.turn)
    return made


def as_on_a_gpu(made, captured=None):
    """Let an engine on the CPU do what it does on a GPU: try batches, capture, divide what is left."""
    engine = Engine(made, "cpu")

    def capture(function, example):
        if captured is not None:
            captured.append(len(example))
        return function

    engine._is_settled, engine._least = False, 16
    engine._replay = Replay(capture)
    return engine


@pytest.mark.parametrize("objects", [None, np.array([20, 3, 3, 7, 11])])
def test_the_same_bytes_as_one_after_the_other(bundle, measured, objects):
    # Without z, which the last one can do without.
    seen = dataclasses.replace(
        measured, images=measured.images[:, :4], bands="ugri", noise=measured.noise[:, :4]
    )
    made = [bundle, flux_bundle(), flux_bundle("ugriz", "ir")]
    expected = [Engine(one, "cpu").run(seen, objects) for one in made]
    found = run_together([Engine(one, "cpu") for one in made], seen, objects)
    for alone, together in zip(expected, found, strict=True):
        assert alone.keys() == together.keys()
        for name in alone:
            assert alone[name].tobytes() == together[name].tobytes()


def test_the_same_pixels_whether_one_is_odd_and_another_even(bundle, measured):
    odd = flux_bundle(crop=27)
    made = [bundle, flux_bundle(), odd]
    for some in (made[1:], made):
        expected = [Engine(one, "cpu").run(measured) for one in some]
        for alone, together in zip(
            expected, run_together([Engine(one, "cpu") for one in some], measured), strict=True
        ):
            for name in alone:
                assert alone[name].tobytes() == together[name].tobytes()


def test_one_observation_is_read_once(bundle, measured, monkeypatch):
    filled = []
    fill = Layout.fill

    def counting(layout, arrays, observation, rows):
        filled.append(layout.bands)
        fill(layout, arrays, observation, rows)

    monkeypatch.setattr(Layout, "fill", counting)
    run_together([Engine(bundle, "cpu"), Engine(flux_bundle(), "cpu")], measured)
    assert filled == ["irg"]


def test_batches_of_different_sizes(bundle, measured):
    made = [bundle, flux_bundle()]
    expected = [Engine(one, "cpu").run(measured) for one in made]
    engines = [Engine(made[0], "cpu", batch=5), Engine(made[1], "cpu", batch=16)]
    for alone, together in zip(expected, run_together(engines, measured), strict=True):
        for name in alone:
            np.testing.assert_allclose(alone[name], together[name], atol=1e-6)


def test_the_batch_is_found_once_in_a_process(bundle, measured, monkeypatch):
    shipped = dataclasses.replace(bundle, sha256="abc")
    tried = []

    def measure(size):
        tried.append(size)
        return float(min(size, 64)), b"same"

    first = as_on_a_gpu(shipped)
    monkeypatch.setattr(first, "_measure", measure)
    first.run(measured)
    first.run(measured)
    # The first is what the others are compared with.
    assert (first.batch, tried) == (64, [16, 32, 64, 128])
    assert Engine(shipped, "cpu").sizes == first.sizes == Sizes((16, 32, 64))


def test_larger_batches_that_round_otherwise_are_not_used(bundle, measured, monkeypatch):
    shipped, captured = dataclasses.replace(bundle, sha256="abc"), []
    first = as_on_a_gpu(shipped, captured)
    monkeypatch.setattr(first, "_measure", lambda size: (1.0, b"least" if size < 32 else b"other"))
    first.run(measured)
    assert (first.sizes, captured) == (Sizes((16,)), [16])
    assert Engine(shipped, "cpu").sizes == Sizes((16,))


def test_what_is_left_is_done_in_parts_and_each_shape_is_captured_once(bundle, measured):
    captured = []
    expected = Engine(bundle, "cpu").run(measured)["vote_fractions"]
    runner = as_on_a_gpu(bundle, captured)
    runner._is_settled, runner.sizes = True, Sizes((4, 16, 32))
    for _ in range(2):
        np.testing.assert_allclose(runner.run(measured)["vote_fractions"], expected, atol=1e-6)
    # 21 objects: at least four blocks are to be had of fours alone.
    assert captured == [4]


def test_an_engine_goes_with_its_last_name(bundle, measured):
    runner = as_on_a_gpu(bundle, [])
    # As a CUDA graph, which knows nothing of the function.
    runner._replay._capture = lambda function, example: functools.partial(
        lambda said, _: said, function(example)
    )
    runner._is_settled = True
    runner.run(measured)
    gone = weakref.ref(runner)
    gc.disable()
    try:
        del runner
        assert gone() is None
    finally:
        gc.enable()


def test_one_size_is_captured_at_a_time_while_they_are_tried(bundle):
    runner = as_on_a_gpu(bundle)
    for size in (8, 16):
        runner._measure(size)
        assert [shape[0] for shape in runner._replay._captured] == [size]


def test_a_device_is_measured_with_what_the_network_takes(bundle):
    for made in (bundle, flux_bundle()):
        runner = as_on_a_gpu(made)
        rate, said = runner._measure(8)
        assert rate > 0
        again, same = runner._measure(16)
        assert again > 0
        assert len(said) * 2 == len(same)


def test_pictures_are_divided_as_cutouts_are(bundle):
    made = np.random.default_rng(4)
    blocks = [made.integers(0, 255, (n, 32, 32, 3), dtype=np.uint8) for n in (21, 3)]
    expected = list(Engine(bundle, "cpu").run_pictures(iter(blocks)))
    captured = []
    runner = as_on_a_gpu(bundle, captured)
    runner._is_settled, runner.sizes = True, Sizes((4, 16, 32))
    for alone, parted in zip(expected, runner.run_pictures(iter(blocks)), strict=True):
        np.testing.assert_allclose(alone["vote_fractions"], parted["vote_fractions"], atol=1e-6)
    assert captured == [16, 4]


def test_only_whose_turn_it_is_settles_and_predicts(bundle, measured, turns, monkeypatch):
    depths = []
    runner = as_on_a_gpu(bundle)
    batch = runner._batch
    monkeypatch.setattr(runner, "_batch", lambda inputs: depths.append(turns.depth) or batch(inputs))
    monkeypatch.setattr(runner, "_measure", lambda size: (depths.append(turns.depth) or 1.0, b"same"))
    runner.run(measured)
    pictures = np.zeros((3, 32, 32, 3), np.uint8)
    for _ in runner.run_pictures(iter([pictures])):
        # Whoever asks for pictures may take long over them.
        assert turns.depth == 0
    assert depths
    assert min(depths) == 1


def test_one_partition_is_filled_while_another_is_computed_with(bundle, measured, monkeypatch):
    turn, next_is_filled = threading.RLock(), threading.Event()
    for module in (engine_module, together_module):
        monkeypatch.setattr(module, "device_turn", lambda device: turn)
    fill, later = Layout.fill, dataclasses.replace(measured)

    def telling(layout, arrays, observation, rows):
        fill(layout, arrays, observation, rows)
        if observation is later:
            next_is_filled.set()

    monkeypatch.setattr(Layout, "fill", telling)
    first, second = Engine(bundle, "cpu"), Engine(bundle, "cpu")
    rows, began, seen = first.rows, threading.Event(), []

    def slow(*arguments):
        began.set()
        seen.append(next_is_filled.wait(60))
        return rows(*arguments)

    monkeypatch.setattr(first, "rows", slow)
    seconds = {}
    with ThreadPoolExecutor(2) as pool:
        one = pool.submit(first.run, measured)
        assert began.wait(60)
        (other,) = pool.submit(run_together, [second], later, None, seconds).result(120)
        (found,) = (one.result(120),)
    assert seen == [True]
    assert seconds["wait"] > 0
    assert found["vote_fractions"].tobytes() == other["vote_fractions"].tobytes()


def test_the_device_is_waited_for_out_of_turn(bundle, measured, turns, monkeypatch):
    asked, depths = [], []

    def mark(ring):
        asked.append(turns.depth)
        return lambda: depths.append(turns.depth)

    monkeypatch.setattr(Transfer, "mark", mark)
    Engine(bundle, "cpu").run(measured)
    # Before the first and after the last.
    assert asked == [1, 1]
    assert depths == [0, 0]


def test_nothing_to_do(bundle, monkeypatch):
    nothing = Observation.of(np.empty((0, 3, 32, 32), np.float16), "gri", np.empty(0))
    # Nor is a batch searched for, nor memory pinned.
    monkeypatch.setattr(engine_module, "find_sizes", None)
    monkeypatch.setattr(together_module, "borrow", None)
    found = run_together([as_on_a_gpu(bundle), as_on_a_gpu(flux_bundle())], nothing)
    pictures = np.empty((0, 32, 32, 3), np.uint8)
    (seen,) = as_on_a_gpu(bundle).run_pictures([pictures])
    assert seen["vote_fractions"].shape == (0, 37)
    assert list(as_on_a_gpu(bundle).run_pictures([])) == []
    assert [tuple(outputs[name].shape for name in outputs) for outputs in found] == [((0, 37),), ((0, 7),)]
