"""Images opened ahead of the one in use, and their files fetched ahead of that."""

import threading
from dataclasses import dataclass, field

import numpy as np
import pytest
from astropy.wcs import WCS

from gzscale.errors import ImageError, Reason
from gzscale.surveys.ahead import open_ahead
from gzscale.surveys.base import Fetching, Image, ImageRef, Survey

REFS = [ImageRef(f"image-{number:02d}", "r", f"{number}", "one") for number in range(12)]
BROKEN = REFS[5]


@dataclass
class Slow:
    """A survey whose fetches end only when as many are on their way as it fetches at one time."""

    transfers: int = 4
    kind: str = "slow"
    bands: str = "r"
    pixel_scale: float = 0.4
    fetched: list[str] = field(default_factory=list)
    opened: list[str] = field(default_factory=list)
    most: int = 0

    def __post_init__(self):
        self._under_way = 0
        self._lock = threading.Lock()
        self._gate = threading.Barrier(self.transfers or 1)
        self._there = {ref: threading.Event() for ref in REFS}

    def fetch(self, ref):
        with self._lock:
            self.fetched.append(ref.name)
            self._under_way += 1
            self.most = max(self.most, self._under_way)
        self._gate.wait(timeout=20)
        with self._lock:
            self._under_way -= 1
        self._there[ref].set()
        raise RuntimeError("what goes wrong here is for open to tell")

    def open(self, ref):
        assert not self.transfers or self._there[ref].wait(20)
        self.opened.append(ref.name)
        if ref == BROKEN:
            raise ImageError(Reason.BAD_IMAGE, f"{ref.name}: broken")
        return ref.name

    def find(self, rows, radius): ...

    def state(self, ref): ...


def test_files_are_fetched_together_and_images_come_in_order():
    survey = Slow()
    assert isinstance(survey, Survey)
    assert isinstance(survey, Fetching)
    got = list(open_ahead(survey, REFS))
    assert [ref for ref, _ in got] == REFS
    assert [image for _, image in got if not isinstance(image, ImageError)] == [
        ref.name for ref in REFS if ref != BROKEN
    ]
    assert isinstance(dict(got)[BROKEN], ImageError)
    # The gate has let four through at a time: fewer never pass it, more never come.
    assert survey.most == 4
    assert sorted(survey.fetched) == [ref.name for ref in REFS]


def test_what_lies_here_is_not_fetched():
    survey = Slow(transfers=0)
    assert len(list(open_ahead(survey, REFS))) == len(REFS)
    assert survey.fetched == []


def test_no_more_is_opened_or_fetched_than_is_due():
    survey = Slow(transfers=4)
    images = open_ahead(survey, REFS, threads=1, ahead=2)
    next(images)
    # Three are to be opened and four more to be fetched; the last three of these wait for a fourth.
    assert all(survey._there[ref].wait(20) for ref in REFS[:4])
    survey._gate.abort()
    images.close()
    assert set(survey.opened) <= {ref.name for ref in REFS[:3]}
    assert set(survey.fetched) <= {ref.name for ref in REFS[: 3 + 4]}
    assert set(survey.fetched) >= {ref.name for ref in REFS[:4]}


def test_any_other_error_is_raised():
    class Wrong(Slow):
        def open(self, ref):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(open_ahead(Wrong(transfers=1), REFS))


@dataclass
class Large(Slow):
    """A survey whose images are as large as is said."""

    side: int = 10

    def open(self, ref):
        self.opened.append(ref.name)
        self._there[ref].set()
        pixels = np.broadcast_to(np.float32(0), (self.side, self.side))
        return Image(ref, pixels, WCS(), np.ones((1, 1), np.float32), "", 0)


@pytest.mark.parametrize(("side", "opened"), [(10, 4), (4000, 3)])
def test_of_large_images_one_waits_beside_the_one_in_use(side, opened):
    survey = Large(transfers=0, side=side)
    images = open_ahead(survey, REFS)
    next(images)
    next(images)
    assert all(survey._there[ref].wait(20) for ref in REFS[:opened])
    images.close()
    assert len(survey.opened) == opened
