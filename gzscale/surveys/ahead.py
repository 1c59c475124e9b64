"""Images opened ahead of the one in use: files come over the network while others are decoded."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from gzscale.errors import ImageError
from gzscale.surveys.base import Fetching, Image, ImageRef, Survey

__all__ = ["open_ahead"]

#: Decoded images that wait together have no more bytes than this, or one waits: an SDSS frame has 12 MB,
#: a coadd of 4,000 x 4,000 pixels 64 MB.
WAITING_BYTES = 64_000_000


def open_ahead(
    survey: Survey, refs: Sequence[ImageRef], threads: int = 2, ahead: int = 2
) -> Iterator[tuple[ImageRef, Image | ImageError]]:
    """Open images in order on threads, a bounded number ahead of the one in use.

    Where the survey is `Fetching`, the files of as many more are fetched as it fetches at one time: they wait
    on disk, so that a server's latency is hidden without more decoded images in memory.

    Parameters
    ----------
    survey
        The survey that opens them.
    refs
        The images, in the order in which they are yielded.
    threads
        Decoding threads (bz2 and decompression release the GIL).
    ahead
        How many decoded images may wait at most, beside the one in use; one if they are large.

    Yields
    ------
    tuple[ImageRef, Image | ImageError]
        Each image, or the error that makes it unusable. Other errors are raised.
    """

    def attempt(ref: ImageRef) -> Image | ImageError:
        try:
            return survey.open(ref)
        except ImageError as error:
            return error

    fetched, pool = _Fetched(survey, refs), ThreadPoolExecutor(threads, "decode")
    waiting: deque[tuple[ImageRef, Future[Image | ImageError]]] = deque()
    allowed = 1
    try:
        for number, ref in enumerate(refs):
            fetched.reach(number)
            waiting.append((ref, pool.submit(attempt, ref)))
            while len(waiting) > allowed:
                done, image = _next(waiting)
                allowed = max(1, min(ahead, WAITING_BYTES // max(1, _bytes_of(image))))
                yield done, image
                del image
        while waiting:
            yield _next(waiting)
    finally:
        # Nothing new is begun on either, then what is under way ends.
        fetched.stop()
        pool.shutdown(cancel_futures=True)
        fetched.join()


def _next(waiting: deque[tuple[ImageRef, Future[Image | ImageError]]]) -> tuple[ImageRef, Image | ImageError]:
    ref, future = waiting.popleft()
    return ref, future.result()


def _bytes_of(image: Image | ImageError) -> int:
    return image.pixels.nbytes if isinstance(image, Image) else 0


class _Fetched:
    """Files that are fetched before their images are opened, a bounded number ahead."""

    def __init__(self, survey: Survey, refs: Sequence[ImageRef]) -> None:
        self._survey = survey if isinstance(survey, Fetching) and survey.transfers else None
        self._refs = refs
        self._begun = 0
        self._pool = ThreadPoolExecutor(self._survey.transfers, "fetch") if self._survey else None

    def reach(self, number: int) -> None:
        """Begin with the files of an image and of those behind it that may be on their way with it."""
        if self._survey is None or self._pool is None:
            return
        end = min(number + 1 + self._survey.transfers, len(self._refs))
        for ref in self._refs[self._begun : end]:
            self._pool.submit(self._survey.fetch, ref)
        self._begun = max(self._begun, end)

    def stop(self) -> None:
        """Begin with no further file."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)

    def join(self) -> None:
        """Wait for the files that are on their way."""
        if self._pool is not None:
            self._pool.shutdown()
