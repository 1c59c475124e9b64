"""The state of images: what tells a later night that one of them has changed."""

from __future__ import annotations

import pyarrow as pa
from numpy import float64
from numpy.typing import NDArray

from gzscale.errors import ImageError, Reason
from gzscale.surveys.base import Coverage, Image, ImageRef, Survey

__all__ = ["WatchedSurvey", "image_state"]

_UNREACHABLE = "unreachable"


def image_state(survey: Survey, ref: ImageRef) -> str:
    """Return what changes when an image does; ``unreachable`` where the server does not say."""
    try:
        return survey.state(ref)
    except ImageError:
        return _UNREACHABLE


class WatchedSurvey:
    """A survey that notes the state of each image before it is opened.

    An image that its server did not deliver is noted as unreachable, whatever its
    state, so that the next night tries it again.

    Parameters
    ----------
    survey
        What does the work.

    Attributes
    ----------
    states
        ``name|band|path|exposure`` of each opened image -> its state.
    """

    def __init__(self, survey: Survey) -> None:
        self._survey = survey
        self.kind = survey.kind
        self.bands = survey.bands
        self.pixel_scale = survey.pixel_scale
        self.states: dict[str, str] = {}

    def find(self, rows: pa.Table, radius: NDArray[float64]) -> Coverage:
        """See `Survey.find`."""
        return self._survey.find(rows, radius)

    def open(self, ref: ImageRef) -> Image:
        """See `Survey.open`."""
        packed = f"{ref.name}|{ref.band}|{ref.path}|{ref.exposure}"
        self.states[packed] = image_state(self._survey, ref)
        try:
            return self._survey.open(ref)
        except ImageError as error:
            if error.reason is Reason.UNREACHABLE_IMAGE:
                self.states[packed] = _UNREACHABLE
            raise

    def state(self, ref: ImageRef) -> str:
        """See `Survey.state`."""
        return self._survey.state(ref)
