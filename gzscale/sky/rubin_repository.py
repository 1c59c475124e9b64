"""A Butler repository for a synthetic Rubin sky: skymap, tracts and patches, and the coadds' files."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gzscale.errors import ConfigError
from gzscale.sky.rubin_camera import BANDS
from gzscale.sky.rubin_grid import SKYMAP, Tract
from gzscale.surveys.tan import unit_vectors

__all__ = ["COLLECTION", "DATASET_TYPE", "RUN", "Registry", "coadd_path", "make_repository"]

DATASET_TYPE = "deep_coadd"
#: The run that holds the datasets, and the chain that users name.
RUN, COLLECTION = "simulated/coadds", "simulated"
_INSTRUMENT = "gzscale-sim"
_FORMATTER = "lsst.daf.butler.formatters.file.FileFormatter"


@dataclass(frozen=True, slots=True)
class Registry:
    """A database in which a repository's registry is made, instead of SQLite in its folder.

    Attributes
    ----------
    url
        ``postgresql://user@host:port/database``, without a password: that comes from the file that
        ``LSST_DB_AUTH`` names, by default ``~/.lsst/db-auth.yaml``, or from ``PGPASSWORD``. The database
        needs the extension ``btree_gist``.
    schema
        Of this repository alone; made where it is missing.

    Raises
    ------
    ConfigError
        If the URL is not one of PostgreSQL, or holds a password: the repository's ``butler.yaml`` would.
    """

    url: str
    schema: str

    def __post_init__(self) -> None:
        _, _, rest = self.url.partition("://")
        if not self.url.startswith("postgresql") or not rest:
            raise ConfigError("registry: expected postgresql://user@host:port/database")
        if ":" in rest.rpartition("@")[0]:
            raise ConfigError(
                "registry: the URL holds a password, which the repository's butler.yaml would show; put it "
                "into ~/.lsst/db-auth.yaml or PGPASSWORD"
            )


def coadd_path(tract: int, patch: int, band: str) -> str:
    """Return where a coadd lies below the repository's root."""
    return f"{RUN}/{DATASET_TYPE}/{tract}/{patch}/{band}/{DATASET_TYPE}_{tract}_{patch}_{band}_{SKYMAP}.fits"


def make_repository(root: str, tracts: Iterable[Tract], registry: Registry | None = None) -> None:
    """Make a Butler repository and register every coadd of some tracts, which lie in it already.

    Parameters
    ----------
    root
        Folder. One that has a registry already is an error.
    tracts
        The tracts; each patch has a coadd in every band at `coadd_path`.
    registry
        Where the registry is made; SQLite in the folder by default.

    Raises
    ------
    ConfigError
        If lsst-daf-butler is not installed, the folder is a repository already, or the database refuses.
    """
    try:
        from lsst.daf.butler import Butler, CollectionType, Config
    except ImportError as error:
        raise ConfigError(
            "a Butler repository is made with lsst-daf-butler, which is not installed: pip install "
            "'gzscale[rubin]'"
        ) from error
    if Path(root, "butler.yaml").exists():
        raise ConfigError(f"{root}: is a Butler repository already; simulate into another folder")
    tracts = list(tracts)
    database = {} if registry is None else {"registry": {"db": registry.url, "namespace": registry.schema}}
    try:
        Butler.makeRepo(root, config=Config(database))
    except Exception as error:
        # Servers that are away, passwords, extensions, schemas in use: each has a type of its own.
        Path(root, "butler.yaml").unlink(missing_ok=True)
        raise ConfigError(
            f"{root}: its registry cannot be made in {registry.url if registry else 'SQLite'}, schema "
            f"{registry.schema if registry else 'main'} ({type(error).__name__}: {error})"
        ) from error
    butler = Butler.from_config(root, writeable=True)
    with butler.transaction():
        _insert_dimensions(butler.registry, tracts)
    butler.collections.register(RUN)
    butler.collections.register(COLLECTION, CollectionType.CHAINED)
    butler.collections.redefine_chain(COLLECTION, [RUN])
    _ingest(butler, tracts)


def _insert_dimensions(registry: Any, tracts: list[Tract]) -> None:
    layout = repr([(tract.number, tract.ra, tract.dec, tract.columns, tract.rows) for tract in tracts])
    skymap = {
        "name": SKYMAP,
        "hash": hashlib.sha1(layout.encode(), usedforsecurity=False).digest(),
        "tract_max": len(tracts),
        "patch_nx_max": max(tract.columns for tract in tracts),
        "patch_ny_max": max(tract.rows for tract in tracts),
    }
    instrument = {"name": _INSTRUMENT, "class_name": "", "visit_max": 0, "exposure_max": 0, "detector_max": 0}
    registry.insertDimensionData("instrument", instrument)
    # Bands are known by the filters that have them.
    filters = [{"instrument": _INSTRUMENT, "name": f"{band}_sim", "band": band} for band in BANDS]
    registry.insertDimensionData("physical_filter", *filters)
    registry.insertDimensionData("skymap", skymap)
    registry.insertDimensionData(
        "tract",
        *(
            {
                "skymap": SKYMAP,
                "id": tract.number,
                "region": _polygon(tract.corners((0, 0, tract.width, tract.height))),
            }
            for tract in tracts
        ),
    )
    for tract in tracts:
        cells = [(patch, *tract.cell(patch)) for patch in tract.patches]
        registry.insertDimensionData(
            "patch",
            *(
                {
                    "skymap": SKYMAP,
                    "tract": tract.number,
                    "id": patch,
                    "cell_x": x,
                    "cell_y": y,
                    "region": _polygon(tract.corners(tract.outer(patch))),
                }
                for patch, x, y in cells
            ),
        )


def _ingest(butler: Any, tracts: list[Tract]) -> None:
    from lsst.daf.butler import DatasetIdGenEnum, DatasetRef, DatasetType, FileDataset

    kind = DatasetType(
        DATASET_TYPE, ("band", "skymap", "tract", "patch"), "ExposureF", universe=butler.dimensions
    )
    butler.registry.registerDatasetType(kind)
    for tract in tracts:
        datasets = []
        for patch in tract.patches:
            for band in BANDS:
                data_id = butler.registry.expandDataId(
                    band=band, skymap=SKYMAP, tract=tract.number, patch=patch
                )
                # The same data ID and run have the same identifier, whenever they are made.
                ref = DatasetRef(kind, data_id, run=RUN, id_generation_mode=DatasetIdGenEnum.DATAID_TYPE_RUN)
                path = coadd_path(tract.number, patch, band)
                datasets.append(FileDataset(path=path, refs=[ref], formatter=_FORMATTER))
        butler.ingest(*datasets, transfer=None)


def _polygon(corners: NDArray[np.float64]) -> Any:
    from lsst.sphgeom import ConvexPolygon, UnitVector3d

    return ConvexPolygon([UnitVector3d(*vector) for vector in unit_vectors(*corners.T)])
