"""SDSS: corrected frames of the imaging survey, from a copy of the SAS tree or the public server."""

from __future__ import annotations

import contextlib
import json
import math
import os
import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa
from astropy.io.fits.verify import VerifyError
from numpy.typing import NDArray

from gzscale.errors import ConfigError, ImageError, Reason, StorageError
from gzscale.storage import open_storage, sha256_hex
from gzscale.surveys.base import Coverage, Image, ImageRef
from gzscale.surveys.fitsfile import read_first_header
from gzscale.surveys.footprints import Footprints, footprints_of, read_footprints
from gzscale.surveys.options import transfer_of
from gzscale.surveys.sdss_find import Exposure, FrameSource, find_exposures
from gzscale.surveys.sdss_frame import FrameId, astropy_wcs, check_header, decode_frame
from gzscale.surveys.sdss_masks import blank_masked
from gzscale.surveys.sdss_options import take_settings
from gzscale.surveys.sdss_paths import fill, frame_names, mask_names, path_pattern
from gzscale.surveys.seeing import star_width
from gzscale.surveys.tan import TanFrame

__all__ = ["SdssSurvey"]

#: Rows and columns of the background's standard deviation: cells of about 62 x 64 pixels.
SIGMA_GRID = (24, 32)
#: Frames whose WCS is remembered.
MAX_KNOWN = 65_536
#: The band whose header stands for its exposure, best first.
_REFERENCE = "rigzu"
#: Square degrees of a frame, 2048 x 1489 pixels of 0.396 arcsec.
FRAME_AREA = 0.0369
#: Objects that half a frame has on average, from which on it is kept for the next partition: to decode it
#: takes half a second of a core, to keep and map it a twentieth.
SHARED_FROM = 0.3
#: Damage that another transfer may mend.
_MENDABLE = frozenset({Reason.CHECKSUM, Reason.TRUNCATED_IMAGE, Reason.EMPTY_IMAGE, Reason.BAD_IMAGE})


class SdssSurvey:
    """The SDSS imaging survey; see `gzscale.surveys.base.Survey`.

    Parameters
    ----------
    root
        Folder or URL (file, http, https, s3) of a SAS tree: ``https://data.sdss.org/sas/dr17``.
    bands
        Letters out of ``ugriz``.
    options
        ``rerun`` (301); ``index``, a footprint index or ``window_flist.fits``; ``cache``, a folder for
        what is fetched, with ``cache_cap`` ("20GB") and ``concurrency`` (8 transfers at a time); ``tree``,
        the path template below the root; ``masks``, a path template of fpM files, of which the
        ``mask_planes`` (["SATUR"]) become NaN. Without ``masks`` nothing is blanked: a galaxy's
        saturated core or an interpolated column is worth more to a network than a hole.

    Raises
    ------
    ConfigError
        If a band or an option is unknown, or a value does not fit.
    """

    kind = filters = "sdss"
    pixel_scale = 0.396
    #: As measured on real frames, bzip2-compressed.
    image_bytes = 3.5e6
    image_seconds = 0.46
    decoded_bytes = 12.2e6

    def __init__(self, root: str, bands: str, options: Mapping[str, Any] | None = None) -> None:
        self.root = root.removeprefix("file://") if root.startswith("file://") else root
        self.bands = bands
        self.options = dict(options or {})
        settings = take_settings(bands, self.options)
        self._rerun = int(settings["rerun"])
        self._tree = str(settings["tree"])
        self._index_path = settings["index"]
        self._masks = settings["masks"]
        self._mask_planes = tuple(settings["mask_planes"])
        self._fetcher = transfer_of(settings).fetcher(self.root)
        self._lock = threading.Lock()
        self._known: OrderedDict[Exposure, TanFrame | str | None] = OrderedDict()
        self._index: Footprints | None = None

    def __reduce__(self) -> tuple[type[SdssSurvey], tuple[str, str, dict[str, Any]]]:
        return type(self), (self.root, self.bands, self.options)

    def __repr__(self) -> str:
        return f"SdssSurvey({self.root!r}, {self.bands!r}, rerun {self._rerun})"

    # ---- Survey

    def find(self, rows: pa.Table, radius: NDArray[np.float64]) -> Coverage:
        """Find every frame that a stamp around each object may overlap; see `Survey.find`.

        Reads the headers of frames, of a bzip2 file the first block.
        """
        missing: set[Exposure] = set()

        def frames(exposures: Iterable[Exposure]) -> dict[Exposure, TanFrame | str | None]:
            found = self._frames(exposures)
            missing.update(exposure for exposure, frame in found.items() if frame is None)
            return found

        source = FrameSource(frames=frames, index=self._footprints())
        overlaps = find_exposures(rows, radius, source)
        refs = [(self._ref(exposure, band), exposure) for band in self.bands for exposure in overlaps.rows]
        order = {band: i for i, band in enumerate(self.bands)}
        refs.sort(key=lambda item: (order[item[0].band], item[0].name))
        by_exposure = {
            exposure: np.unique(np.concatenate(parts)) for exposure, parts in overlaps.rows.items()
        }
        objects = [by_exposure[exposure] for _, exposure in refs]
        empty = np.zeros(0, dtype=np.int64)
        return Coverage(
            images=tuple(ref for ref, _ in refs),
            pair_object=np.concatenate([empty, *objects]),
            pair_image=np.repeat(np.arange(len(refs), dtype=np.int64), [len(part) for part in objects]),
            lost=dict(sorted(overlaps.lost.items())),
            absent=tuple(
                self._ref(exposure, band)
                for exposure in sorted(missing - set(overlaps.rows))
                for band in self.bands
            ),
        )

    def foresee(self, rows: pa.Table, radius: NDArray[np.float64]) -> list[ImageRef] | None:
        """Return the frames that the rows name; see `gzscale.surveys.base.Foreseeing`.

        Neighbouring frames that stamps reach into come on top: headers tell which, and are not read.
        """
        locators = ("run", "camcol", "field")
        if not set(locators) <= set(rows.column_names):
            return None
        named = set(zip(*(rows[name].to_pylist() for name in locators), strict=True))
        return [
            self._ref(exposure, band) for exposure in named if None not in exposure for band in self.bands
        ]

    def open(self, ref: ImageRef) -> Image:
        """Fetch, decode and calibrate one frame; see `Survey.open`.

        Raises
        ------
        ImageError
            With the reason why the frame cannot be used.
        """
        names = frame_names(ref.path)
        wanted = _frame_id(ref)
        for attempt in (0, 1):
            key, stored = self._fetcher.read(names)
            try:
                frame = decode_frame(stored, self._url(key), wanted)
                break
            except ImageError as error:
                # The cached copy may be what is damaged: fetch it once more.
                if attempt or error.reason not in _MENDABLE or not self._fetcher.discard(names):
                    raise
        if self._masks is not None:
            self._blank(frame.pixels, wanted)
        sigma = frame.noise.background_sigma(SIGMA_GRID)
        return Image(
            ref=ref,
            pixels=frame.pixels,
            wcs=astropy_wcs(frame.tan),
            background_sigma=sigma,
            sha256=sha256_hex(stored),
            size=len(stored),
            cards=json.dumps([frame.tan.crval, frame.tan.crpix, frame.tan.cd]),
            seeing=star_width(frame.pixels, float(np.median(sigma))) * self.pixel_scale,
        )

    @property
    def transfers(self) -> int:
        """How many files are fetched at one time; see `gzscale.surveys.base.Fetching`."""
        return self._fetcher.transfers

    def fetch(self, ref: ImageRef) -> None:
        """Fetch a frame's file, and its mask's; see `gzscale.surveys.base.Fetching`."""
        with contextlib.suppress(ImageError, StorageError):
            self._fetcher.fetch(frame_names(ref.path))
            if self._masks is not None:
                self._fetcher.fetch(mask_names(self._mask_path(_frame_id(ref))))

    def inverse_variance(self, ref: ImageRef) -> NDArray[np.float32]:
        """Return the inverse variance of every pixel of a frame; see `NoiseModel.inverse_variance`."""
        key, stored = self._fetcher.read(frame_names(ref.path))
        frame = decode_frame(stored, self._url(key), _frame_id(ref))
        return frame.noise.inverse_variance(frame.pixels)

    def state(self, ref: ImageRef) -> str:
        """Return what changes when the stored frame does, or ``"absent"``; see `Survey.state`.

        Raises
        ------
        ImageError
            UNREACHABLE_IMAGE if the server does not say.
        """
        entry = self._fetcher.stat(frame_names(ref.path))
        if entry is None:
            return "absent"
        state = entry.tag if entry.key == ref.path else f"{os.path.basename(entry.key)}:{entry.tag}"
        if self._masks is None:
            return state
        mask = self._fetcher.stat(mask_names(self._mask_path(_frame_id(ref))))
        return f"{state}, mask {mask.tag if mask else 'absent'}"

    # ---- Shareable

    def extent(self, ref: ImageRef) -> tuple[float, float, float]:
        """Return a circle around a frame; all of the sky while its header is not known."""
        frame = _frame_id(ref)
        with self._lock:
            tan = self._known.get((frame.run, frame.camcol, frame.field))
        if not isinstance(tan, TanFrame):
            return 0.0, 0.0, 180.0
        return (*tan.centre(), tan.scale * math.hypot(*tan.shape) / 2)

    def wants_whole(self, density: float, radius: float) -> bool:
        """Tell whether another partition is likely enough to need a frame of which it has a half."""
        return density * FRAME_AREA / 2 >= SHARED_FROM

    def open_whole(self, ref: ImageRef) -> Image:
        """Open a frame: it is always decoded whole."""
        return self.open(ref)

    def wcs_of(self, cards: str, name: str, shape: tuple[int, int]) -> Any:
        """Return the WCS of a frame whose ``cards`` were kept."""
        crval, crpix, cd = (tuple(numbers) for numbers in json.loads(cards))
        return astropy_wcs(TanFrame(crval, crpix, cd, shape))

    # ---- footprints

    def scan(self) -> Footprints:
        """Build the footprint index of every frame below a local or S3 root, from one header an exposure.

        Raises
        ------
        ConfigError
            If the root cannot be listed (HTTP): use SDSS's ``window_flist.fits`` there.
        """
        if self.root.startswith("http"):
            raise ConfigError(
                f"{self.root}: an HTTP tree cannot be listed; use SDSS's window_flist.fits as "
                "survey.options.index"
            )
        pattern = path_pattern(self._tree)
        prefix = os.path.dirname(self._tree.partition("{")[0])
        exposures = set()
        for entry in open_storage(self.root).list(prefix):
            match = pattern.fullmatch(entry.key)
            if (
                match is not None
                and int(match["rerun"] if "rerun" in match.groupdict() else self._rerun) == self._rerun
            ):
                exposures.add((int(match["run"]), int(match["camcol"]), int(match["field"])))
        frames = self._frames(sorted(exposures))
        return footprints_of({key: frame for key, frame in frames.items() if isinstance(frame, TanFrame)})

    def _footprints(self) -> Footprints | None:
        if self._index is None and self._index_path:
            with self._lock:
                if self._index is None:
                    self._index = read_footprints(str(self._index_path))
        return self._index

    # ---- frames

    def _ref(self, exposure: Exposure, band: str) -> ImageRef:
        run, camcol, field = exposure
        return ImageRef(
            name=f"frame-{band}-{run:06d}-{camcol}-{field:04d}",
            band=band,
            path=fill(self._tree, self._rerun, exposure, band),
            exposure=f"{self._rerun}-{run}-{camcol}-{field}",
        )

    def _url(self, key: str) -> str:
        return f"{self.root.rstrip('/')}/{key}"

    def _frames(self, exposures: Iterable[Exposure]) -> dict[Exposure, TanFrame | str | None]:
        """Return frame, absence or trouble of some exposures; headers are read on threads and remembered."""
        wanted = sorted(set(exposures))
        with self._lock:
            found = {exposure: self._known[exposure] for exposure in wanted if exposure in self._known}
        unknown = [exposure for exposure in wanted if exposure not in found]
        if unknown:
            threads = self._fetcher.concurrency if self._fetcher.remote else min(2, os.cpu_count() or 1)
            with ThreadPoolExecutor(min(threads, len(unknown)), thread_name_prefix="header") as pool:
                found |= dict(zip(unknown, pool.map(self._frame, unknown), strict=True))
            with self._lock:
                for exposure in unknown:
                    # What is absent or broken today may be mended before the next call.
                    if isinstance(found[exposure], TanFrame):
                        self._known[exposure] = found[exposure]
                while len(self._known) > MAX_KNOWN:
                    self._known.popitem(last=False)
        return found

    def _frame(self, exposure: Exposure) -> TanFrame | str | None:
        trouble: str | None = None
        for band in sorted(self.bands, key=_REFERENCE.index):
            ref = self._ref(exposure, band)
            names = frame_names(ref.path)

            def read(count: int, names: tuple[str, ...] = names) -> bytes:
                return self._fetcher.read_start(names, count)[1]

            try:
                return check_header(
                    read_first_header(read, self._url(ref.path)), self._url(ref.path), _frame_id(ref)
                )
            except ImageError as error:
                if error.reason is Reason.MISSING_IMAGE:
                    continue
                trouble = str(error)
                if error.reason is Reason.UNREACHABLE_IMAGE:
                    break
            except (ValueError, KeyError, TypeError, IndexError, VerifyError) as error:
                trouble = f"{self._url(ref.path)}: its header cannot be read ({error})"
        return trouble

    def _mask_path(self, wanted: FrameId) -> str:
        exposure = (wanted.run, wanted.camcol, wanted.field)
        return fill(str(self._masks), self._rerun, exposure, wanted.band)

    def _blank(self, pixels: NDArray[np.float32], wanted: FrameId) -> None:
        try:
            key, stored = self._fetcher.read(mask_names(self._mask_path(wanted)))
        except ImageError as error:
            # "Where the masks are there": a frame without one is used as it is.
            if error.reason is Reason.MISSING_IMAGE:
                return
            raise
        blank_masked(pixels, stored, self._url(key), self._mask_planes)


def _frame_id(ref: ImageRef) -> FrameId:
    _, run, camcol, field = ref.exposure.split("-")
    return FrameId(int(run), int(camcol), int(field), ref.band)
