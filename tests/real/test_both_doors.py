"""The same galaxies as volunteers would have seen them and as flux: both must lead to the same votes."""

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from gzscale.config import GeometryConfig
from gzscale.cutouts.ingest import cut_partition
from gzscale.cutouts.store import read_cutouts
from gzscale.models.bundle import load_bundle
from gzscale.models.engine import Engine
from gzscale.models.inputs import from_flux
from gzscale.models.observation import Observation
from gzscale.models.shipped import shipped
from gzscale.storage import open_storage
from gzscale.surveys.sdss import SdssSurvey
from gzscale.tasks.morphology import OUTPUT

pytestmark = pytest.mark.real

GEOMETRIES = {
    "flux": GeometryConfig(size=96, scale="0.08 * size"),
    "jpeg": GeometryConfig(size=424, scale="0.02 * size"),
}


@pytest.fixture(scope="module")
def both(real_data, tmp_path_factory):
    """Galaxies of three fields, as large as those of Galaxy Zoo 2, cut both ways."""
    root = real_data / "sdss"
    table = pq.read_table(root / "galaxies.parquet")
    run, size, magnitude = (table[name].to_numpy() for name in ("run", "r90", "r_mag"))
    chosen = np.isin(run, [3918, 8162, 1043]) & (size > 3) & (magnitude < 20)
    rows = table.filter(pa.array(chosen)).select(["object_id", "ra", "dec", "run", "camcol", "field", "r90"])
    rows = rows.rename_columns(["object_id", "ra", "dec", "run", "camcol", "field", "size"])
    for index, name, kind in ((3, "run", pa.int32()), (4, "camcol", pa.int32()), (5, "field", pa.int32())):
        rows = rows.set_column(index, name, rows[name].cast(kind))
    rows = rows.set_column(6, "size", rows["size"].cast(pa.float32()))
    storage = open_storage(tmp_path_factory.mktemp("both"))
    result = cut_partition(SdssSurvey(str(root), "gri"), rows, GEOMETRIES, storage, "p.zarr")
    flux, jpeg = (read_cutouts(storage, "p.zarr", name, result.inventory) for name in GEOMETRIES)
    common = np.intersect1d(flux.object_id, jpeg.object_id)
    return [(cut, np.searchsorted(cut.object_id, common)) for cut in (flux, jpeg)]


def as_volunteers_saw(cutouts, chosen, quality):
    """Pictures of 424 pixels, north up, through a JPEG."""
    pictures = []
    for index in chosen:
        flux, scale = torch.from_numpy(cutouts.images[[index]]), torch.from_numpy(cutouts.scale[[index]])
        shown = from_flux(flux, scale, cutouts.bands)[0].permute(1, 2, 0).numpy()[::-1]
        buffer = io.BytesIO()
        Image.fromarray(np.floor(shown * 255.99).astype(np.uint8)).save(buffer, "JPEG", quality=quality)
        pictures.append(np.asarray(Image.open(buffer)))
    return np.stack(pictures)


def test_both_doors_lead_to_the_same_votes(both):
    (flux, chosen), (jpeg, same) = both
    whole = np.isfinite(flux.images[chosen].astype(np.float32)).all(axis=(1, 2, 3))
    chosen, same = chosen[whole], same[whole]
    assert len(chosen) >= 30
    engine = Engine(load_bundle(shipped("morphology")))
    measured = engine.run(Observation.of(flux.images[chosen], flux.bands, flux.scale[chosen]))[OUTPUT]
    (seen,) = engine.run_pictures([as_volunteers_saw(jpeg, same, 90)])
    apart = np.sqrt(np.mean(np.square(measured - seen[OUTPUT])))
    spread = np.sqrt(np.mean(np.square(measured - measured.mean(axis=0))))
    print(f"{len(chosen)} galaxies: votes differ by {apart:.4f} RMS; between galaxies by {spread:.4f}")
    assert apart < 0.03
    assert apart < 0.25 * spread
