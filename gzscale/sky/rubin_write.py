"""Write a synthetic Rubin sky: a Butler repository of coadds, an Object table, the truth, a night on it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from gzscale.errors import ConfigError
from gzscale.sky.jobs import parquet_bytes, run_jobs
from gzscale.sky.rubin_camera import BANDS, SEEING, background_sigma, expose
from gzscale.sky.rubin_draw import REACH, draw_patch, draw_truth
from gzscale.sky.rubin_files import coadd_bytes
from gzscale.sky.rubin_grid import PIXEL_SCALE, RIM, SKYMAP, Tract, tracts_of
from gzscale.sky.rubin_repository import COLLECTION, DATASET_TYPE, Registry, coadd_path, make_repository
from gzscale.storage import open_storage
from gzscale.surveys.rubin_coadd import NANOJANSKY
from gzscale.surveys.rubin_tree import write_patches

__all__ = ["write_rubin_sky"]

_NIGHT = """\
# A night on the synthetic Rubin sky of this folder: {objects} objects, seed {seed}.
survey:
  kind: rubin
  root: repository
  bands: ugrizy
  options: {{dataset_type: {dataset_type}, collections: [{collection}], skymap: {skymap}}}
  # The same coadds without a Butler:
  # options: {{tree: "{tree}", index: patches.parquet}}
catalog:
  path: catalog.parquet
  # The Kron radius is in pixels of 0.2 arcsec; 90 % of an exponential disk lie within 1.95 of them.
  columns: {{object_id: objectId, ra: coord_ra, dec: coord_dec, size: "0.39 * r_kronRad", ebv: ebv}}
geometries:
  galaxy: {{size: 96, scale: "0.08 * size"}}
  sky: {{size: 64, scale: 0.2}}
tasks:
  # Galaxy Zoo 2's volunteers saw SDSS's g, r and i: the bundle is shown Rubin's, laid on its own grid.
  morphology: {{geometry: galaxy, filters: sdss}}
  lenses: {{geometry: sky}}
  redshifts: {{geometry: sky}}
output: night
cluster: local
"""

_Sizes = dict[int, float]
_Job = tuple[str, Tract, int, list[dict[str, Any]], int]


def write_rubin_sky(
    out: str,
    objects: int,
    seed: int,
    workers: int,
    progress: Callable[[int, int], None] | None,
    per_patch: int,
    registry: Registry | None = None,
) -> None:
    """Simulate a Rubin sky and write it below a folder.

    ``repository/`` (a Butler repository with a ``deep_coadd`` a patch and band), ``patches.parquet`` (its
    patches, for reading it as a plain tree), ``catalog.parquet`` (an Object table), ``truth.parquet`` and,
    last, ``night.yaml``. The same objects and seed give the same bytes of everything but the registry.

    Parameters
    ----------
    out
        Folder on this machine.
    objects, seed
        Number of catalog objects, and of the sky.
    workers
        Processes.
    progress
        Called with (images written, images in all) each time that a patch is written.
    per_patch
        Catalog objects of a patch.
    registry
        The database of the repository's registry; SQLite in its folder by default.

    Raises
    ------
    ConfigError
        If the folder is a URL or holds a repository already, or lsst-daf-butler is not installed.
    """
    if "://" in out:
        raise ConfigError(f"{out}: a Butler repository is simulated into a folder of this machine")
    repository = Path(out, "repository")
    if (repository / "butler.yaml").exists():
        raise ConfigError(f"{repository}: is a Butler repository already; simulate into another folder")
    tracts = tracts_of(-(-objects // per_patch))
    truth = draw_truth(objects, seed, tracts)
    sizes: _Sizes = {}
    total = sum(len(tract.patches) for tract in tracts) * len(BANDS)
    jobs = (
        (str(repository), tract, patch, rows, seed)
        for tract in tracts
        for patch, rows in _by_patch(tract, truth)
    )
    for done, found in enumerate(run_jobs(_write_patch, jobs, min(workers, total)), 1):
        sizes.update(found)
        if progress is not None:
            progress(done * len(BANDS), total)
    make_repository(str(repository), tracts, registry)
    keys = [(tract, patch) for tract in tracts for patch in tract.patches]
    write_patches(
        [tract.number for tract, _ in keys],
        [patch for _, patch in keys],
        np.stack([tract.corners(tract.outer(patch)) for tract, patch in keys]),
        str(Path(out, "patches.parquet")),
    )
    storage = open_storage(out)
    storage.put("truth.parquet", parquet_bytes(truth))
    storage.put("catalog.parquet", parquet_bytes(_object_table(truth, sizes, seed)))
    night = _NIGHT.format(
        objects=objects,
        seed=seed,
        dataset_type=DATASET_TYPE,
        collection=COLLECTION,
        skymap=SKYMAP,
        tree=_tree(),
    )
    storage.put("night.yaml", night.encode())


def _tree() -> str:
    return (
        coadd_path(0, 0, "band")
        .replace("/0/0/", "/{tract}/{patch}/")
        .replace("/band/", "/{band}/")
        .replace("_0_0_band_", "_{tract}_{patch}_{band}_")
    )


def _by_patch(tract: Tract, truth: pa.Table) -> list[tuple[int, list[dict[str, Any]]]]:
    """Return the rows of the truth that may shine on each patch, in the table's order."""
    # Tracts next to it share pixels with it; farther ones are not even on its tangent plane.
    near = np.flatnonzero(np.abs(truth["tract"].to_numpy() - tract.number) <= 1)
    ra, dec = (truth[name].to_numpy()[near] for name in ("ra", "dec"))
    x, y = tract.wcs().all_world2pix(ra, dec, 0, quiet=True)
    found = []
    for patch in tract.patches:
        x0, y0, x1, y1 = tract.outer(patch)
        touches = (x > x0 - REACH) & (x < x1 + REACH) & (y > y0 - REACH) & (y < y1 + REACH)
        found.append((patch, truth.take(near[touches]).to_pylist()))
    return found


def _write_patch(job: _Job) -> _Sizes:
    """Draw, expose and write one patch in all bands; the unit of work of a process."""
    root, tract, patch, rows, seed = job
    box = tract.outer(patch)
    planes, sizes = draw_patch(tract, patch, rows)
    x, y = np.arange(box[0], box[2]), np.arange(box[1], box[3])
    seen = ((x >= RIM) & (x < tract.width - RIM))[None, :] & ((y >= RIM) & (y < tract.height - RIM))[:, None]
    storage = open_storage(root)
    header = tract.header(box)
    for band, source in planes.items():
        image, mask, variance = expose(source, band, box, seen, (seed, tract.number))
        data_id: dict[str, str | int] = {
            "band": band,
            "skymap": SKYMAP,
            "tract": tract.number,
            "patch": patch,
        }
        storage.put(
            coadd_path(tract.number, patch, band), coadd_bytes(image, mask, variance, header, data_id)
        )
    return sizes


def _object_table(truth: pa.Table, sizes: _Sizes, seed: int) -> pa.Table:
    """Return what Rubin's Object table would say of the objects, in its columns' names and units.

    Fluxes are the true ones with the noise of an aperture of two Kron radii.
    """
    rng = np.random.Generator(np.random.PCG64([seed, truth.num_rows, 1]))
    kron = np.array([sizes[number] for number in truth["object_id"].to_pylist()], np.float32)
    star = np.array(truth["kind"].to_pylist()) == "star"
    columns: dict[str, tuple[NDArray[Any], str]] = {
        "objectId": (truth["object_id"].to_numpy(), ""),
        "coord_ra": (truth["ra"].to_numpy(), "deg"),
        "coord_dec": (truth["dec"].to_numpy(), "deg"),
        "tract": (truth["tract"].to_numpy(), ""),
        "patch": (truth["patch"].to_numpy(), ""),
        # No dust of our Galaxy is in front of this sky: its extinction is known, and 0.
        "ebv": (np.zeros(len(star)), "mag"),
        "refExtendedness": (np.where(star, 0.0, 1.0).astype(np.float32), ""),
        "r_kronRad": (kron, "pixel"),
    }
    for band in BANDS:
        flux = 10 ** (0.4 * (22.5 - truth[f"mag_{band}"].to_numpy())) / NANOJANSKY
        pixels = np.pi * (2 * kron) ** 2 + 2.266 * (SEEING[band] / PIXEL_SCALE) ** 2
        error = background_sigma(band) * np.sqrt(pixels)
        columns[f"{band}_cModelFlux"] = flux + error * rng.standard_normal(len(flux)), "nJy"
        columns[f"{band}_cModelFluxErr"] = error, "nJy"
    fields = [
        pa.field(name, pa.array(values).type, metadata={"unit": unit} if unit else None)
        for name, (values, unit) in columns.items()
    ]
    return pa.table([pa.array(values) for values, _ in columns.values()], schema=pa.schema(fields))
