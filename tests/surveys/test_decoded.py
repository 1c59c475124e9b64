"""Decoded images that are shared: equal to the last bit, decoded once, bounded, not trusted if damaged."""

import os
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest
from small_coadds import COLUMNS, INNER, PLANES, ROWS, options, sky, tree

from gzscale.errors import ImageError, Reason
from gzscale.surveys import decoded as module
from gzscale.surveys.base import ImageRef, Shareable
from gzscale.surveys.decoded import ENDING, LOCKS, DecodedImages
from gzscale.surveys.rubin import RubinSurvey

SHAPE = (ROWS * INNER, COLUMNS * INNER)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("coadds")
    rng = np.random.default_rng(1)
    mask = np.where(rng.random(SHAPE) < 0.01, 1 << PLANES["SAT"], 0)
    mask[:9] = 1 << PLANES["NO_DATA"]
    tree(folder, lambda band: (rng.normal(0, 5, SHAPE), mask, None), "r", sip=0.3)
    return folder


@pytest.fixture
def survey(root):
    """Counts what it decodes."""
    made = RubinSurvey(str(root), "r", options(root))
    made.decoded = []
    whole = made.open_whole

    def open_whole(ref):
        made.decoded.append(ref.name)
        return whole(ref)

    made.open_whole = open_whole
    return made


def folder_of(path):
    (path / LOCKS).mkdir(parents=True)
    return path


@pytest.fixture
def images(tmp_path):
    return DecodedImages(folder_of(tmp_path / "decoded"), 10**9, 0)


def ref(patch=0):
    return ImageRef(f"coadd-r-7-{patch}", "r", f"7/{patch}/r", f"x-7-{patch}")


def entries(images):
    return sorted(images.folder.glob(f"*{ENDING}"))


def test_a_rubin_survey_can_be_shared(survey):
    assert isinstance(survey, Shareable)
    ra, dec, radius = survey.extent(ref(1))
    # The outer region of the second patch: columns 180 to 420, rows 0 to 220 of 0.2 arcsec.
    corner, middle = (np.ravel(sky(x, y)) for x, y in ((179.5, -0.5), (299.5, 109.5)))
    assert (ra, dec) == pytest.approx(tuple(middle), abs=0.5 / 3600)
    reach = np.hypot((corner[0] - ra) * np.cos(np.radians(dec)), corner[1] - dec)
    assert radius == pytest.approx(reach, rel=0.01)


def test_what_is_found_is_what_was_decoded_to_the_last_bit(survey, images):
    first, fresh = images.open(survey, ref(), "a")
    second, again = images.open(survey, ref(), "a")
    assert (fresh, again) == (True, False)
    assert survey.decoded == [ref().name]
    for name in ("pixels", "background_sigma", "flags"):
        one, other = getattr(first, name), getattr(second, name)
        assert one.dtype == other.dtype
        assert one.tobytes() == other.tobytes()
    assert np.isnan(second.pixels[:9]).all()
    assert np.any(second.flags)
    told = ("ref", "sha256", "size", "flag_names", "cards")
    assert [getattr(second, name) for name in told] == [getattr(first, name) for name in told]
    x, y = np.random.default_rng(0).uniform(0, 200, (2, 50))
    for there in (first.wcs, second.wcs):
        assert there.sip is not None
    assert np.array_equal(first.wcs.all_pix2world(x, y, 0), second.wcs.all_pix2world(x, y, 0))
    assert np.array_equal(
        first.wcs.all_world2pix(*first.wcs.all_pix2world(x, y, 0), 0),
        second.wcs.all_world2pix(*second.wcs.all_pix2world(x, y, 0), 0),
    )


def test_a_seeing_that_a_survey_tells_is_kept(survey, images, monkeypatch):
    whole, told = survey.open_whole, iter([1.234567890123, np.nan])

    def open_whole(ref):
        image = whole(ref)
        image.seeing = next(told)
        return image

    monkeypatch.setattr(survey, "open_whole", open_whole)
    for patch in (0, 1):
        first, _ = images.open(survey, ref(patch), "a")
        second, again = images.open(survey, ref(patch), "a")
        assert not again
        np.testing.assert_equal(second.seeing, first.seeing)


def test_who_writes_into_what_is_found_changes_nothing_for_others(survey, images):
    images.open(survey, ref(), "a")
    found, _ = images.open(survey, ref(), "a")
    found.pixels[:] = 0
    again, fresh = images.open(survey, ref(), "a")
    assert not fresh
    assert again.pixels.any()


def test_another_image_or_origin_is_another_entry(survey, images):
    for place, origin in ((0, "a"), (1, "a"), (0, "b")):
        assert images.open(survey, ref(place), origin)[1]
    assert len(entries(images)) == 3
    assert images.find(survey, ref(1), "b") is None
    assert images.find(survey, ref(1), "a") is not None


@pytest.mark.parametrize("damage", ["flip", "description", "cut", "empty", "other", "foreign"])
def test_what_is_damaged_or_foreign_is_decoded_anew(survey, images, damage):
    true, _ = images.open(survey, ref(), "a")
    images.open(survey, ref(1), "a")
    first, other = (images.folder / f"{module._key(ref(place), 'a')}{ENDING}" for place in (0, 1))
    content = bytearray(first.read_bytes())
    if damage == "flip":
        content[len(content) // 2] ^= 1
    elif damage == "description":
        content[40] ^= 1
    elif damage == "cut":
        content = content[: len(content) // 2]
    elif damage == "empty":
        content = bytearray()
    elif damage == "other":
        content = other.read_bytes()
    else:
        content = b"SIMPLE  =                    T" + bytes(5000)
    first.write_bytes(content)
    image, fresh = images.open(survey, ref(), "a")
    assert fresh
    assert image.pixels.tobytes() == true.pixels.tobytes()
    assert not images.open(survey, ref(), "a")[1]


def test_what_was_not_used_for_longest_goes_first(survey, images):
    images.open(survey, ref(0), "a")
    size = entries(images)[0].stat().st_size
    small = DecodedImages(images.folder, int(2.6 * size), 0)
    small.open(survey, ref(1), "a")
    assert not small.open(survey, ref(0), "a")[1]
    small.open(survey, ref(2), "a")
    assert sum(path.stat().st_size for path in entries(images)) <= small.cap
    assert small.find(survey, ref(1), "a") is None
    assert small.find(survey, ref(0), "a") is not None


def test_without_room_each_is_decoded(survey, images, monkeypatch):
    for cap, reserve in ((1000, 0), (10**9, 10**18)):
        tight = DecodedImages(images.folder, cap, reserve)
        assert [tight.open(survey, ref(), "a")[1] for _ in range(2)] == [True, True]
    assert not entries(images)


def test_a_disk_that_fills_up_while_an_entry_is_written_costs_only_time(survey, images, monkeypatch):
    def full(file, *rest):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(module, "_pack", full)
        assert images.open(survey, ref(), "a")[0].pixels.any()
    assert [path.name for path in images.folder.iterdir()] == [LOCKS]
    assert images.open(survey, ref(), "a")[1]


def test_a_folder_that_is_gone_costs_only_time(survey, tmp_path):
    gone = DecodedImages(tmp_path / "gone", 10**9, 0)
    assert [gone.open(survey, ref(), "a")[1] for _ in range(2)] == [True, True]


def test_an_image_that_cannot_be_opened_is_an_error_each_time(root, images):
    survey = RubinSurvey(str(root), "r", options(root))
    for _ in range(2):
        with pytest.raises(ImageError) as caught:
            images.open(survey, ref(77), "a")
        assert caught.value.reason is Reason.MISSING_IMAGE


def test_who_needs_an_image_while_it_is_decoded_waits_for_it(survey, images):
    begun, go = threading.Event(), threading.Event()
    whole = survey.open_whole

    def slow(one):
        begun.set()
        assert go.wait(20)
        return whole(one)

    survey.open_whole = slow
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(images.open(survey, ref(), "a")[1])) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    assert begun.wait(20)
    go.set()
    for thread in threads:
        thread.join(20)
    assert sorted(found) == [False, False, False, True]
    assert len(survey.decoded) == 1


_DIE = """
import fcntl, os, sys
folder, key = sys.argv[1:]
lock = open(f"{folder}/locks/{key[:3]}", "a")
fcntl.flock(lock, fcntl.LOCK_EX)
open(f"{folder}/{key}.1-1.part", "wb").write(b"x" * 1000)
print("held", flush=True)
sys.stdin.read()
"""


def test_a_process_that_dies_at_decoding_blocks_nobody(survey, images):
    key = module._key(ref(), "a")
    command = [sys.executable, "-c", _DIE, str(images.folder), key]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"held\n"
        os.kill(process.pid, signal.SIGKILL)
    assert images.open(survey, ref(), "a")[1]
    assert not images.open(survey, ref(), "a")[1]
