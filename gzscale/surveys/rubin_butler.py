"""Coadd images of a Butler repository: tracts, patches and files, looked up a tract at a time."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from gzscale.errors import ConfigError
from gzscale.surveys.rubin_find import Dataset
from gzscale.surveys.rubin_skymap import Regions, join_regions, make_regions

if TYPE_CHECKING:  # lsst.daf.butler takes three seconds to import
    from lsst.daf.butler import Butler

__all__ = ["ButlerSource"]

#: Tracts whose patches and datasets are remembered.
MAX_TRACTS = 256
#: One Butler a repository is shared by the threads of a process; it is not made for concurrent use.
_lock = threading.RLock()


class ButlerSource:
    """Tracts, patches and datasets of one skymap, dataset type and chain of collections.

    Nothing is asked before it is needed. A tract costs three queries (patches, datasets, locations), whatever
    the number of objects; what was read of it is remembered for the life of this object.

    Parameters
    ----------
    root
        Folder, ``butler.yaml``, URL or alias of the repository: whatever `Butler.from_config` takes.
    skymap
        The skymap's name, or None where the repository has only one.
    dataset_type
        ``deep_coadd``, ``deepCoadd_calexp`` ...
    collections
        Collections, searched in this order.
    bands
        Bands of interest.
    """

    def __init__(
        self, root: str, skymap: str | None, dataset_type: str, collections: Sequence[str], bands: str
    ) -> None:
        self.root = root
        self.bands = bands
        self._skymap = skymap
        self._dataset_type = dataset_type
        self._collections = tuple(collections)
        self._checked = False
        self._datasets: dict[int, dict[tuple[int, str], Dataset]] = {}

    @property
    def skymap(self) -> str:
        """The skymap's name."""
        with _lock:
            self._check()
            assert self._skymap is not None
            return self._skymap

    def tracts(self) -> Regions:
        """Return every tract of the skymap.

        Raises
        ------
        ConfigError
            If the repository, the collections, the dataset type or the skymap do not exist.
        """
        with _lock:
            return _tracts(self.root, self.skymap)

    def patches(self, tracts: Sequence[int]) -> Regions:
        """Return the patches of some tracts."""
        with _lock:
            return join_regions([_patches(self.root, self.skymap, tract) for tract in tracts])

    def datasets(self, tract: int) -> Mapping[tuple[int, str], Dataset]:
        """Return the coadd images of a tract by patch and band; of several runs, the first collection's."""
        with _lock:
            if tract not in self._datasets:
                while len(self._datasets) >= MAX_TRACTS:
                    self._datasets.pop(next(iter(self._datasets)))
                self._datasets[tract] = self._query(tract)
            return self._datasets[tract]

    def describe(self, tract: int, patch: int, band: str) -> str:
        """Name a dataset by its type and data ID."""
        return (
            f"{self._dataset_type} {{band: {band!r}, skymap: {self._skymap!r}, tract: {tract}, "
            f"patch: {patch}}} in {', '.join(self._collections)}"
        )

    def _query(self, tract: int) -> dict[tuple[int, str], Dataset]:
        butler = _butler(self.root)
        refs = butler.query_datasets(
            self._dataset_type,
            collections=self._collections,
            where="skymap = :skymap AND tract = :tract",
            bind={"skymap": self.skymap, "tract": tract},
            explain=False,
            limit=None,
        )
        refs = [ref for ref in refs if str(ref.dataId["band"]) in self.bands]
        # A dataset that the registry has and the datastore has not is missing when it is opened.
        places = butler.get_many_uris(refs, predict=True, allow_missing=True)
        return {
            (int(ref.dataId["patch"]), str(ref.dataId["band"])): Dataset(_location(place), str(ref.id))
            for ref, place in sorted(places.items(), key=lambda item: str(item[0].id))
        }

    def _check(self) -> None:
        """Find that what the settings name exists, once."""
        if self._checked:
            return
        butler = _butler(self.root)
        from lsst.daf.butler import MissingCollectionError, MissingDatasetTypeError

        names = [
            record.name for record in butler.query_dimension_records("skymap", explain=False, limit=None)
        ]
        try:
            butler.collections.query_info(self._collections)
            dimensions = set(butler.get_dataset_type(self._dataset_type).dimensions.required)
        except MissingCollectionError as error:
            there = ", ".join(sorted(butler.collections.query("*"))[:20]) or "none"
            raise ConfigError(
                f"{self.root}: {error} survey.options.collections names what is not there; there are {there}"
            ) from error
        except MissingDatasetTypeError as error:
            there = ", ".join(sorted(_coadd_types(butler))[:20]) or "none"
            raise ConfigError(
                f"{self.root}: the repository has no dataset type {self._dataset_type!r}; dataset types by "
                f"tract, patch and band are {there}. Set survey.options.dataset_type"
            ) from error
        if dimensions != {"band", "skymap", "tract", "patch"}:
            raise ConfigError(
                f"{self.root}: dataset type {self._dataset_type!r} has the dimensions "
                f"{', '.join(sorted(dimensions))}; a coadd image has band, skymap, tract and patch"
            )
        if self._skymap is None and len(names) == 1:
            self._skymap = names[0]
        if self._skymap not in names:
            raise ConfigError(
                f"{self.root}: no skymap {self._skymap!r}; survey.options.skymap is one of {', '.join(names)}"
            )
        self._checked = True


@lru_cache(maxsize=8)
def _butler(root: str) -> Butler:
    """Open a repository to read; one a process."""
    try:
        from lsst.daf.butler import Butler
    except ImportError as error:
        raise ConfigError(
            "a Butler repository is read with lsst-daf-butler, which is not installed: pip install "
            "'gzscale[rubin]', or set survey.options.tree to read a plain tree of coadds"
        ) from error
    try:
        name = root.rstrip("/").rpartition("/")[2]
        # A configuration's relative paths are made absolute, and so is the alias of a repository.
        alias = "://" not in root and not os.path.exists(root) and name in Butler.get_known_repos()
        return Butler.from_config(name if alias else root, writeable=False)
    except Exception as error:
        # Wrong paths, other schemas, unreachable databases: each has a type of its own.
        raise ConfigError(
            f"{root}: not a Butler repository that can be read ({type(error).__name__}: {error}); "
            "check survey.root"
        ) from error


@lru_cache(maxsize=8)
def _tracts(root: str, skymap: str) -> Regions:
    records = _butler(root).query_dimension_records(
        "tract", where="skymap = :skymap", bind={"skymap": skymap}, explain=False, limit=None
    )
    records.sort(key=lambda record: record.id)
    return _regions(records, [record.id for record in records], [-1] * len(records))


@lru_cache(maxsize=MAX_TRACTS)
def _patches(root: str, skymap: str, tract: int) -> Regions:
    records = _butler(root).query_dimension_records(
        "patch",
        where="skymap = :skymap AND tract = :tract",
        bind={"skymap": skymap, "tract": tract},
        explain=False,
        limit=None,
    )
    records.sort(key=lambda record: record.id)
    return _regions(records, [tract] * len(records), [record.id for record in records])


def _regions(records: Sequence[Any], tract: list[int], patch: list[int]) -> Regions:
    """Turn dimension records, whose regions are convex polygons of sphgeom, into regions."""
    vertices = []
    for record in records:
        corners: list[Any] = getattr(record.region, "getVertices", list)()
        vertices.append(np.array([[v.x(), v.y(), v.z()] for v in corners]).reshape(-1, 3))
    try:
        return make_regions(tract, patch, vertices)
    except ValueError as error:
        raise ConfigError(f"the registry's region of {error} is not a convex polygon") from error


def _coadd_types(butler: Butler) -> list[str]:
    found = butler.registry.queryDatasetTypes("*")
    return [item.name for item in found if {"tract", "patch", "band"} <= set(item.dimensions.required)]


def _location(place: Any) -> str:
    uri = place.primaryURI
    if uri is None:
        return ""
    return str(uri.ospath) if uri.isLocal else str(uri)
