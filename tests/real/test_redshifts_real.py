"""The shipped redshift bundle and what colours tell, held against real galaxies."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gzscale.catalog.redshift_columns import RedshiftFlag
from gzscale.config import GeometryConfig
from gzscale.cutouts.ingest import cut_partition
from gzscale.cutouts.store import read_cutouts
from gzscale.models.bundle import load_bundle
from gzscale.models.engine import Engine
from gzscale.models.observation import Observation
from gzscale.models.shipped import shipped
from gzscale.storage import open_storage
from gzscale.surveys.sdss import SdssSurvey
from gzscale.tasks.redshifts import RedshiftsTask, grid
from gzscale.tasks.seen import look
from gzscale.training.colours import neighbours
from gzscale.training.labels import folds
from gzscale.training.photoz_metrics import score_pdfs

pytestmark = pytest.mark.real


def test_simulated_colours_tell_redshifts_as_well_as_real_ones(real_data):
    """Of 4,964 real galaxies in five folds; 30 % either way."""
    table = pd.read_csv(real_data / "tables" / "sdss-dr14-specz-10k.csv")
    edges = grid({"limit": 0.4, "bins": 180})
    table = table[(table["class"] == "GALAXY") & table["redshift"].between(0.002, 0.3999)]
    magnitudes = table[list("ugriz")].to_numpy()
    features = np.column_stack([magnitudes[:, :-1] - magnitudes[:, 1:], magnitudes[:, 2]])
    redshift = table["redshift"].to_numpy()
    fold = folds([str(row) for row in range(len(table))])
    found = np.empty((len(table), 180))
    for number in range(5):
        known, asked = fold != number, fold == number
        found[asked] = neighbours(features[known], redshift[known], features[asked], edges)
    real = score_pdfs(found, edges, redshift)["sigma_mad"]
    simulated = load_bundle(shipped("redshifts")).scores["neighbours_sigma_mad"]
    print(f"colours only, nearest neighbours: sigma_MAD {real:.4f} real, {simulated:.4f} simulated")
    assert 0.7 < simulated / real < 1.3


@pytest.fixture(scope="module")
def galaxies(real_data, tmp_path_factory):
    """Cutouts of galaxies in a real field, and their magnitudes."""
    root = real_data / "sdss"
    table = pq.read_table(root / "galaxies.parquet")
    table = table.filter(pa.array(table["run"].to_numpy() == 3918))
    rows = table.select(["object_id", "ra", "dec", "run", "camcol", "field"])
    for place, name in ((3, "run"), (4, "camcol"), (5, "field")):
        rows = rows.set_column(place, name, rows[name].cast(pa.int32()))
    storage = open_storage(tmp_path_factory.mktemp("redshifts"))
    geometries = {"sky": GeometryConfig(size=64, scale=0.396)}
    result = cut_partition(SdssSurvey(str(root), "ugriz"), rows, geometries, storage, "p.zarr")
    cutouts = read_cutouts(storage, "p.zarr", "sky", result.inventory)
    magnitude = dict(zip(table["object_id"].to_pylist(), table["r_mag"].to_pylist(), strict=True))
    return cutouts, np.array([magnitude[number] for number in cutouts.object_id.tolist()])


def test_real_galaxies_get_redshifts_with_flags(galaxies):
    cutouts, magnitude = galaxies
    bundle = load_bundle(shipped("redshifts"))
    observed = Observation.of(cutouts.images, cutouts.bands, cutouts.scale, cutouts.noise)
    values, finite = RedshiftsTask().table(Engine(bundle).run(observed), bundle.calibration, look(observed))
    assert finite.all()
    assert (values["z_flags"] & RedshiftFlag.EXTINCTION_UNKNOWN).all()
    bright = (magnitude < 18.5) & ~np.ma.getmaskarray(values["z_median"])
    median = values["z_median"][bright].filled(np.nan)
    print(f"{bright.sum()} galaxies of r < 18.5: median redshift {np.median(median):.3f}")
    assert bright.sum() >= 5
    # SDSS's main sample, a little brighter, has a median of 0.10 (Strauss et al. 2002, AJ 124, 1810).
    assert 0.05 < np.median(median) < 0.25


def test_a_band_less_widens_and_does_not_break(galaxies):
    cutouts, _ = galaxies
    bundle = load_bundle(shipped("redshifts"))
    whole = Observation.of(cutouts.images, cutouts.bands, cutouts.scale, cutouts.noise)
    blind = Observation.of(cutouts.images[:, 1:], cutouts.bands[1:], cutouts.scale, cutouts.noise[:, 1:])
    widths = []
    for observed in (whole, blind):
        values, _ = RedshiftsTask().table(Engine(bundle).run(observed), bundle.calibration, look(observed))
        widths.append(np.ma.median(values["z_std"]))
        if observed is blind:
            assert (values["z_flags"] & RedshiftFlag.BAND_MISSING).all()
    assert widths[1] > 0.95 * widths[0]
