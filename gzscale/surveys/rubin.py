"""Rubin: deep coadds of LSST, from a Butler repository or a plain tree of files."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from astropy.io import fits
from numpy.typing import NDArray

from gzscale.errors import ImageError, Reason, StorageError
from gzscale.surveys.base import Coverage, Image, ImageRef
from gzscale.surveys.fetch import Fetcher
from gzscale.surveys.options import transfer_of
from gzscale.surveys.rubin_butler import ButlerSource
from gzscale.surveys.rubin_coadd import coadd_wcs, decode_coadd
from gzscale.surveys.rubin_find import Dataset, PatchOverlaps, PatchSource, find_patches
from gzscale.surveys.rubin_options import FLAGS, take_settings
from gzscale.surveys.rubin_photocalib import archived_zero_point
from gzscale.surveys.rubin_planes import WHOLE_FROM, Window, open_planes, windows_of
from gzscale.surveys.rubin_tree import TreeSource
from gzscale.surveys.stored import FileBytes

__all__ = ["RubinSurvey"]

#: A coadd file of DC2 has 100 to 200 MB.
MAX_FILE_BYTES = 1_000_000_000
#: Side of the cells by which a coadd is decoded where few objects are wanted, in pixels.
DECODE_CELL = 64
#: How far a coadd's WCS may put the middle of its patch from the image's middle: share of its side.
_OFF_CENTRE = 0.05
#: Damage that another transfer may mend.
_MENDABLE = frozenset({Reason.CHECKSUM, Reason.TRUNCATED_IMAGE, Reason.EMPTY_IMAGE, Reason.BAD_IMAGE})


class RubinSurvey:
    """The deep coadds of LSST; see `gzscale.surveys.base.Survey`.

    Parameters
    ----------
    root
        A Butler repository (folder, ``butler.yaml`` or URL), or with ``tree`` the folder or URL (file, http,
        https, s3) of a tree of coadds.
    bands
        Letters out of ``ugrizy``.
    options
        For a Butler: ``collections``, searched in their order; ``dataset_type`` ("deep_coadd", that of DP1;
        "deepCoadd_calexp" before); ``skymap``, needed where the repository has several.
        For a tree: ``tree``, the path template below the root with {tract}, {patch} and {band}; ``index``, a
        table of patches (`gzscale.surveys.rubin_tree.write_patches`).
        For both: ``blank`` (["NO_DATA"]), mask planes whose pixels become NaN; ``flags``, mask planes that
        become the cutouts' flags (by default those of `gzscale.surveys.rubin_options.FLAGS` that a mask
        declares); ``zero_point``, AB magnitude of one unit, for coadds whose file has no calibration;
        ``cache``, ``cache_cap`` and ``concurrency`` as for SDSS.

    Raises
    ------
    ConfigError
        If a band or an option is unknown, or a value does not fit.
    """

    kind = filters = "rubin"
    pixel_scale = 0.2
    #: DC2's files have 100 to 200 MB; a Rice-compressed patch of 4,000 x 4,000 pixels takes a second.
    image_bytes = 1.0e8
    image_seconds = 1.0
    #: Pixels and flags of 4,100 x 4,100.
    decoded_bytes = 8.4e7

    def __init__(self, root: str, bands: str, options: Mapping[str, Any] | None = None) -> None:
        self.root = root.removeprefix("file://").rstrip("/") or "/"
        self.bands = bands
        self.options = dict(options or {})
        settings = take_settings(bands, self.options)
        self._blank = tuple(settings["blank"])
        self._need_flags = settings["flags"] is not None
        self._flags = tuple(settings["flags"] if self._need_flags else FLAGS)
        self._zero_point = settings["zero_point"]
        self._transfer = transfer_of(settings, MAX_FILE_BYTES)
        self._type = "coadd" if settings["tree"] else str(settings["dataset_type"])
        self._source: PatchSource
        if settings["tree"]:
            self._source = TreeSource(self.root, settings["tree"], settings["index"], bands)
        else:
            self._source = ButlerSource(
                self.root, settings["skymap"], self._type, settings["collections"], bands
            )
        self._lock = threading.Lock()
        self._wanted: dict[tuple[int, int], NDArray[np.float64]] = {}

    def __reduce__(self) -> tuple[type[RubinSurvey], tuple[str, str, dict[str, Any]]]:
        return type(self), (self.root, self.bands, self.options)

    def __repr__(self) -> str:
        return f"RubinSurvey({self.root!r}, {self.bands!r}, {self._type})"

    # ---- Survey

    def check(self) -> None:
        """Find that what the settings name exists; see `gzscale.surveys.base.Checked`.

        Raises
        ------
        ConfigError
            If the repository, a collection, the dataset type, the skymap or the table of patches does not
            exist, or there is no image in any band; with what there is instead.
        """
        self._source.check()

    def find(self, rows: pa.Table, radius: NDArray[np.float64]) -> Coverage:
        """Find every coadd that a stamp around each object may overlap; see `Survey.find`.

        Asks the registry three times for each tract, whatever the number of objects. What is found is
        remembered until the next call, so that `open` decodes no more of a coadd than is wanted.

        Raises
        ------
        ConfigError
            If the repository, collection, dataset type, skymap or table of patches does not exist.
        """
        ra, dec = (rows[name].to_numpy().astype(np.float64) for name in ("ra", "dec"))
        radius = np.asarray(radius, dtype=np.float64)
        skymap = self._source.skymap
        overlaps = find_patches(ra, dec, radius, self._source, self.bands, skymap)
        self._remember(overlaps, ra, dec, radius)
        refs, absent, pairs = self._images(overlaps, skymap)
        return Coverage(
            images=tuple(refs),
            pair_object=overlaps.row[pairs[0]],
            pair_image=pairs[1],
            lost=overlaps.lost,
            absent=tuple(absent),
            pair_rank=overlaps.rank[pairs[0]],
        )

    def foresee(self, rows: pa.Table, radius: NDArray[np.float64]) -> list[ImageRef] | None:
        """Return the coadds that a partition will open; see `gzscale.surveys.base.Foreseeing`."""
        return list(self.find(rows, radius).images)

    def open(self, ref: ImageRef) -> Image:
        """Fetch, decode and calibrate one coadd; see `Survey.open`.

        Of a coadd on which the last `find` placed few objects only the tiles near them are decoded; the
        other pixels are NaN.

        Raises
        ------
        ImageError
            With the reason why the coadd cannot be used; the message names the dataset.
        """
        return self._open(ref, whole=False)

    @property
    def transfers(self) -> int:
        """How many files are fetched at one time; see `gzscale.surveys.base.Fetching`."""
        return self._transfer.fetcher(self.root).transfers

    def fetch(self, ref: ImageRef) -> None:
        """Fetch a coadd's file where it is not on this host; see `gzscale.surveys.base.Fetching`."""
        tract, patch, band = _coordinates(ref)
        with contextlib.suppress(ImageError, StorageError):
            dataset = self._source.datasets(tract).get((patch, band))
            if dataset is not None and dataset.location:
                fetcher, names = self._fetcher(dataset)
                fetcher.fetch(names)

    def state(self, ref: ImageRef) -> str:
        """Return what changes when the stored coadd does, or ``"absent"``; see `Survey.state`.

        Raises
        ------
        ImageError
            UNREACHABLE_IMAGE if the server does not say.
        """
        tract, patch, band = _coordinates(ref)
        dataset = self._source.datasets(tract).get((patch, band))
        if dataset is None or not dataset.location:
            return "absent"
        fetcher, names = self._fetcher(dataset)
        entry = fetcher.stat(names)
        return "absent" if entry is None else f"{dataset.version}:{entry.tag}"

    # ---- Shareable

    def extent(self, ref: ImageRef) -> tuple[float, float, float]:
        """Return a circle around a coadd's patch; see `gzscale.surveys.base.Shareable`."""
        tract, patch, _ = _coordinates(ref)
        patches = self._source.patches([tract])
        row = int(np.flatnonzero(patches.patch == patch)[0])
        ra, dec = _position(patches.centre[row])
        return ra, dec, float(np.degrees(patches.reach[row]))

    def wants_whole(self, density: float, radius: float) -> bool:
        """Tell whether stamps at random places would touch as much of a coadd as `windows_of` takes whole."""
        side = 2 * radius + DECODE_CELL * self.pixel_scale / 3600
        return -np.expm1(-density * side**2) >= WHOLE_FROM

    def open_whole(self, ref: ImageRef) -> Image:
        """Open a coadd and decode all of it; see `gzscale.surveys.base.Shareable`."""
        return self._open(ref, whole=True)

    def wcs_of(self, cards: str, name: str, shape: tuple[int, int]) -> Any:
        """Return the WCS of a coadd whose cards were kept; see `gzscale.surveys.base.Shareable`."""
        return coadd_wcs(fits.Header.fromstring(cards), name, shape)

    # ---- steps

    def _open(self, ref: ImageRef, whole: bool) -> Image:
        tract, patch, band = _coordinates(ref)
        name = self._source.describe(tract, patch, band)
        dataset = self._source.datasets(tract).get((patch, band))
        if dataset is None or not dataset.location:
            raise ImageError(
                Reason.MISSING_IMAGE, f"{name}: no such dataset; check survey.options.collections"
            )
        fetcher, names = self._fetcher(dataset)
        try:
            for attempt in (0, 1):
                try:
                    with fetcher.view(names) as (key, stored):
                        return self._decode(ref, stored, f"{fetcher.root}/{key}", whole)
                except ImageError as error:
                    # The cached copy may be what is damaged: fetch it once more.
                    if attempt or error.reason not in _MENDABLE or not fetcher.discard(names):
                        raise
        except ImageError as error:
            raise ImageError(error.reason, f"{name}: {error}") from error
        raise AssertionError("a coadd is either decoded or refused")

    def _images(
        self, overlaps: PatchOverlaps, skymap: str
    ) -> tuple[list[ImageRef], list[ImageRef], tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """Return the images of all bands, those that are absent, and the pairs as (pair, image)."""
        own = np.zeros(len(overlaps.patch), dtype=bool)
        own[overlaps.place[overlaps.rank == 0]] = True
        order = np.lexsort((overlaps.row, overlaps.place))
        begins = np.searchsorted(overlaps.place[order], np.arange(len(overlaps.patch) + 1))
        refs: list[ImageRef] = []
        absent: list[ImageRef] = []
        pair, image = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
        for band in self.bands:
            for place, (tract, patch) in enumerate(
                zip(overlaps.tract.tolist(), overlaps.patch.tolist(), strict=True)
            ):
                ref = ImageRef(
                    name=f"{self._type}-{band}-{tract}-{patch}",
                    band=band,
                    path=f"{tract}/{patch}/{band}",
                    exposure=f"{skymap}-{tract}-{patch}",
                )
                # What an object's own patch lacks is opened, so that the failure is told.
                if not own[place] and (patch, band) not in self._source.datasets(tract):
                    absent.append(ref)
                    continue
                mine = order[begins[place] : begins[place + 1]]
                pair.append(mine)
                image.append(np.full(len(mine), len(refs), np.int64))
                refs.append(ref)
        return refs, absent, (np.concatenate(pair), np.concatenate(image))

    def _remember(
        self,
        overlaps: PatchOverlaps,
        ra: NDArray[np.float64],
        dec: NDArray[np.float64],
        radius: NDArray[np.float64],
    ) -> None:
        order = np.argsort(overlaps.place, kind="stable")
        cuts = np.searchsorted(overlaps.place[order], np.arange(1, len(overlaps.patch)))
        parts = np.split(overlaps.row[order], cuts) if len(overlaps.patch) else []
        keys = zip(overlaps.tract.tolist(), overlaps.patch.tolist(), strict=True)
        with self._lock:
            self._wanted = {
                key: np.stack([ra[rows], dec[rows], radius[rows]])
                for key, rows in zip(keys, parts, strict=True)
            }

    def _decode(self, ref: ImageRef, stored: FileBytes, name: str, whole: bool) -> Image:
        tract, patch, _ = _coordinates(ref)
        planes = open_planes(stored, name)
        wcs = coadd_wcs(planes.headers["IMAGE"], name, planes.shape)
        self._check_place(wcs, planes.shape, tract, patch, name)
        windows = None if whole else self._windows(wcs, planes.shape, (tract, patch))
        archived = archived_zero_point(stored, planes.primary, planes.headers["IMAGE"], name)
        zero_point = self._zero_point if archived is None else archived
        coadd = decode_coadd(planes, windows, self._blank, self._flags, zero_point, self._need_flags)
        return Image(
            ref=ref,
            pixels=coadd.pixels,
            wcs=wcs,
            background_sigma=coadd.background_sigma,
            sha256=stored.sha256,
            size=len(stored),
            flags=coadd.flags,
            flag_names=self._flags,
            cards=planes.headers["IMAGE"].tostring(),
        )

    def _check_place(self, wcs: Any, shape: tuple[int, int], tract: int, patch: int, name: str) -> None:
        """Check that an image is that of the patch: its WCS puts the patch's middle at its own."""
        patches = self._source.patches([tract])
        row = np.flatnonzero(patches.patch == patch)
        if not len(row):
            return
        ra, dec = _position(patches.centre[row[0]])
        found = np.ravel(wcs.all_world2pix(ra, dec, 0, quiet=True))
        off = np.abs(found - (np.array(shape[::-1]) - 1) / 2)
        if not np.all(off <= _OFF_CENTRE * np.array(shape[::-1])):
            raise ImageError(
                Reason.BAD_WCS,
                f"{name}: its WCS puts the middle of the patch at pixel {found[0]:.1f}, {found[1]:.1f} of "
                f"{shape[1]} x {shape[0]}; another patch's image under this name, or another skymap",
            )

    def _windows(self, wcs: Any, shape: tuple[int, int], key: tuple[int, int]) -> list[Window] | None:
        with self._lock:
            wanted = self._wanted.get(key)
        if wanted is None:
            return None
        ra, dec, radius = wanted
        x, y = wcs.all_world2pix(ra, dec, 0, quiet=True)
        scale = np.sqrt(abs(np.linalg.det(wcs.pixel_scale_matrix)))
        return windows_of(shape, DECODE_CELL, x, y, radius / scale + 2)

    def _fetcher(self, dataset: Dataset) -> tuple[Fetcher, tuple[str, ...]]:
        """Return what reads a dataset's file, and the names that it may have."""
        root, name = self.root, dataset.location.removeprefix(f"{self.root}/")
        if name == dataset.location:
            root, _, name = dataset.location.rpartition("/")
        twin = name.removesuffix(".fz") if name.endswith(".fz") else f"{name}.fz"
        return self._transfer.fetcher(root or "/"), (name, twin)


def _position(vector: NDArray[np.float64]) -> tuple[float, float]:
    x, y, z = vector
    return float(np.degrees(np.arctan2(y, x)) % 360.0), float(np.degrees(np.arctan2(z, np.hypot(x, y))))


def _coordinates(ref: ImageRef) -> tuple[int, int, str]:
    tract, patch, band = ref.path.split("/")
    return int(tract), int(patch), band
