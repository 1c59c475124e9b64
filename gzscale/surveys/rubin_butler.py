"""Coadd images of a Butler repository: tracts, patches and files, looked up a tract at a time."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import numpy as np

from gzscale.errors import ConfigError, StorageError
from gzscale.surveys.rubin_find import Dataset
from gzscale.surveys.rubin_repository import (
    check_repository,
    open_repository,
    readable_location,
    without_secrets,
)
from gzscale.surveys.rubin_skymap import Regions, join_regions, make_regions

__all__ = ["ButlerSource"]

#: Tracts whose patches and datasets are remembered.
MAX_TRACTS = 256
#: What is asked for. Names of values are no names of dimensions: the Butler takes a bare name that is bound
#: for its value, so that ``tract = :tract`` would hold for every tract.
_OF_SKYMAP = "skymap = :named_skymap"
_OF_TRACT = f"{_OF_SKYMAP} AND tract = :numbered_tract"
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
        self._datasets: dict[int, dict[tuple[int, str], Dataset]] = {}

    @property
    def skymap(self) -> str:
        """The skymap's name."""
        with _asking(self.root):
            return _skymap(self.root, self._dataset_type, self._collections, self._skymap, self.bands)

    def check(self) -> None:
        """Find that what the settings name exists.

        Raises
        ------
        ConfigError
            If the repository, the collections, the dataset type or the skymap do not exist, or have no image.
        """
        if not len(self.tracts()):
            raise ConfigError(
                f"{self.root}: skymap {self.skymap!r} has no tracts; check survey.options.skymap"
            )

    def tracts(self) -> Regions:
        """Return every tract of the skymap.

        Raises
        ------
        ConfigError
            If the repository, the collections, the dataset type or the skymap do not exist.
        """
        with _asking(self.root):
            return _tracts(self.root, self.skymap)

    def patches(self, tracts: Sequence[int]) -> Regions:
        """Return the patches of some tracts."""
        with _asking(self.root):
            return join_regions([_patches(self.root, self.skymap, tract) for tract in tracts])

    def datasets(self, tract: int) -> Mapping[tuple[int, str], Dataset]:
        """Return the coadd images of a tract by patch and band; of several runs, the first collection's."""
        with _asking(self.root):
            if tract not in self._datasets:
                while len(self._datasets) >= MAX_TRACTS:
                    self._datasets.pop(next(iter(self._datasets)))
                self._datasets[tract] = self._query(tract)
            return self._datasets[tract]

    def describe(self, tract: int, patch: int, band: str) -> str:
        """Name a dataset by its type and data ID."""
        return (
            f"{self._dataset_type} {{band: {band!r}, skymap: {self.skymap!r}, tract: {tract}, "
            f"patch: {patch}}} in {', '.join(self._collections)}"
        )

    def _query(self, tract: int) -> dict[tuple[int, str], Dataset]:
        butler = open_repository(self.root)
        refs = butler.query_datasets(
            self._dataset_type,
            collections=self._collections,
            where=_OF_TRACT,
            bind=_bound(self.skymap, tract),
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


def _bound(skymap: str, tract: int | None = None) -> dict[str, Any]:
    """Return the values of `_OF_SKYMAP`, or with a tract those of `_OF_TRACT`."""
    return {"named_skymap": skymap} | ({} if tract is None else {"numbered_tract": tract})


@contextmanager
def _asking(root: str) -> Iterator[None]:
    """Let one thread ask the registry; what its database raises becomes a `StorageError`."""
    with _lock:
        try:
            yield
        except Exception as error:
            if not type(error).__module__.startswith("sqlalchemy."):
                raise
            # Without the statement, its parameters, and a chain that would show them.
            cause = without_secrets(str(getattr(error, "orig", None) or error))
            raise StorageError(
                f"{root}: its registry could not be asked ({type(error).__name__}: {cause}); "
                "look at its database server, then run the same command again"
            ) from None


@lru_cache(maxsize=8)
def _skymap(
    root: str, dataset_type: str, collections: tuple[str, ...], skymap: str | None, bands: str
) -> str:
    """Return the skymap's name, once it is found that everything asked for is there."""
    return check_repository(open_repository(root), root, dataset_type, collections, skymap, bands)


@lru_cache(maxsize=8)
def _tracts(root: str, skymap: str) -> Regions:
    records = open_repository(root).query_dimension_records(
        "tract", where=_OF_SKYMAP, bind=_bound(skymap), explain=False, limit=None
    )
    records.sort(key=lambda record: record.id)
    return _regions(records, [record.id for record in records], [-1] * len(records))


@lru_cache(maxsize=MAX_TRACTS)
def _patches(root: str, skymap: str, tract: int) -> Regions:
    records = open_repository(root).query_dimension_records(
        "patch",
        where=_OF_TRACT,
        bind=_bound(skymap, tract),
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


def _location(place: Any) -> str:
    uri = place.primaryURI
    if uri is None:
        return ""
    return str(uri.ospath) if uri.isLocal else readable_location(str(uri))
