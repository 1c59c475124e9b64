"""The state of images: what tells a later night that one of them has changed."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pyarrow as pa
from numpy import float64
from numpy.typing import NDArray

from gzscale.errors import ImageError, Reason
from gzscale.night.sharing import Sharing
from gzscale.surveys.base import Coverage, Fetching, Image, ImageRef, Survey

__all__ = ["LostSurvey", "WatchedSurvey", "image_state", "is_unchanged"]

_UNREACHABLE = "unreachable"
#: In the place of images' states: nothing was looked at, so that the next night does.
_LOST = "lost"


def image_state(survey: Survey, ref: ImageRef) -> str:
    """Return what changes when an image does; ``unreachable`` where the server does not say."""
    try:
        return survey.state(ref)
    except ImageError:
        return _UNREACHABLE


def is_unchanged(survey: Survey, images: Mapping[str, str]) -> bool:
    """Tell whether images are in the states in which a night has read them.

    An image whose server does not answer now, but did then, counts as unchanged: an outage
    must not undo what is done.

    Parameters
    ----------
    survey
        What knows the states.
    images
        As in `WatchedSurvey.states`.
    """
    if _LOST in images.values():
        return False
    for packed, then in images.items():
        now = image_state(survey, ImageRef(*packed.split("|")))
        if now != then and not (now == _UNREACHABLE and then != "absent"):
            return False
        if then == now == _UNREACHABLE:
            return False
    return True


class WatchedSurvey:
    """A survey that notes the state of each image before it is opened, and of those that are absent.

    An image that its server did not deliver is noted as unreachable, whatever its
    state, so that the next night tries it again. What is said of images names them
    relative to the survey's root, so that released tables do not depend on where it lies.

    Parameters
    ----------
    survey
        What does the work.
    root
        The survey's root.
    sharing
        Where the images come from that other partitions need, too; None to open each here.

    Attributes
    ----------
    states
        ``name|band|path|exposure`` of each image that was looked for -> its state.
    opened, taken
        Name of each image that was to be opened, each time that it was, and of those that were found decoded.
    bytes_read
        Length of the files of each image that was opened.
    """

    def __init__(self, survey: Survey, root: str, sharing: Sharing | None = None) -> None:
        self._survey = survey
        self._sharing = sharing
        self._root = root.rstrip("/") + "/"
        self.kind = survey.kind
        self.bands = survey.bands
        self.pixel_scale = survey.pixel_scale
        self.states: dict[str, str] = {}
        self.opened: list[str] = []
        self.taken: list[str] = []
        self.bytes_read: list[int] = []
        # States that were found as files were fetched, and the lock of each image that was to be.
        self._ahead: dict[str, str] = {}
        self._turns: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
        self._lock = threading.Lock()

    def find(self, rows: pa.Table, radius: NDArray[float64]) -> Coverage:
        """See `Survey.find`."""
        found = self._survey.find(rows, radius)
        self.states |= {_packed(ref): "absent" for ref in found.absent}
        if self._sharing is not None:
            self._sharing.choose(found.images, rows, radius)
        lost = {row: (reason, self._relative(detail)) for row, (reason, detail) in found.lost.items()}
        return replace(found, lost=lost)

    def open(self, ref: ImageRef) -> Image:
        """See `Survey.open`."""
        packed = _packed(ref)
        # One whose file is on its way comes when that is there, and asks for nothing again.
        with self._turn(packed):
            self.states[packed] = state = self._ahead.pop(packed, "") or image_state(self._survey, ref)
        decoded = True
        try:
            if self._sharing is not None and state != _UNREACHABLE:
                image, decoded = self._sharing.open(ref, state)
            else:
                image = self._survey.open(ref)
            if decoded:
                self.bytes_read.append(image.size)
            return image
        except ImageError as error:
            if error.reason is Reason.UNREACHABLE_IMAGE:
                self.states[packed] = _UNREACHABLE
            raise ImageError(error.reason, self._relative(str(error))) from error
        finally:
            (self.opened if decoded else self.taken).append(ref.name)

    @property
    def transfers(self) -> int:
        """See `Fetching`."""
        return self._survey.transfers if isinstance(self._survey, Fetching) else 0

    def fetch(self, ref: ImageRef) -> None:
        """See `Fetching`; what is there decoded is not fetched, nor what is being opened.

        The state is found before the file, for `open`: what it reads is as new as that, or newer.
        """
        if not isinstance(self._survey, Fetching):
            return
        packed = _packed(ref)
        with self._turn(packed):
            if packed in self.states:
                return
            state = image_state(self._survey, ref)
            if state == _UNREACHABLE:
                return
            self._ahead[packed] = state
            if self._sharing is None or not self._sharing.holds(ref, state):
                self._survey.fetch(ref)

    def state(self, ref: ImageRef) -> str:
        """See `Survey.state`."""
        return self._survey.state(ref)

    def _turn(self, packed: str) -> threading.Lock:
        with self._lock:
            return self._turns[packed]

    def _relative(self, detail: str) -> str:
        return detail.replace(self._root, "")


class LostSurvey:
    """A survey that answers of every object that its partition is given up; opens nothing.

    What is committed from it is current for no later night, which tries the partition again.

    Parameters
    ----------
    survey
        The night's survey.
    reason, detail
        Why the partition is given up.

    Attributes
    ----------
    states, opened, taken, bytes_read
        As in `WatchedSurvey`.
    """

    def __init__(self, survey: Survey, reason: Reason, detail: str) -> None:
        self.kind = survey.kind
        self.bands = survey.bands
        self.pixel_scale = survey.pixel_scale
        self.states = {"": _LOST}
        self.opened: list[str] = []
        self.taken: list[str] = []
        self.bytes_read: list[int] = []
        self._verdict = (reason, detail)

    def find(self, rows: pa.Table, radius: NDArray[float64]) -> Coverage:
        """See `Survey.find`."""
        nothing = np.empty(0, np.int64)
        return Coverage((), nothing, nothing, dict.fromkeys(range(rows.num_rows), self._verdict))

    def open(self, ref: ImageRef) -> Image:
        """Refuse: no image was found, so that none is asked for."""
        raise ImageError(self._verdict[0], self._verdict[1])

    def state(self, ref: ImageRef) -> str:
        """See `Survey.state`."""
        return _LOST


def _packed(ref: ImageRef) -> str:
    return f"{ref.name}|{ref.band}|{ref.path}|{ref.exposure}"
