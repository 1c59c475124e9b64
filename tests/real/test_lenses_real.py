"""The Bologna challenge's images, lenses in real frames, and the shipped finder on fields it never saw."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.io import fits

from gzscale.config import GeometryConfig
from gzscale.cutouts.ingest import cut_partition
from gzscale.models.bundle import load_bundle
from gzscale.models.shipped import shipped
from gzscale.sky.stamps import read_stamps
from gzscale.storage import open_storage
from gzscale.surveys.sdss import SdssSurvey
from gzscale.training.bologna import is_challenge, read_challenge
from gzscale.training.lens_command import evaluate_lens_bundle
from gzscale.training.lens_evaluate import evaluate_lenses, injected_test, mixed_test
from gzscale.training.lens_labels import read_labelled_lenses
from gzscale.training.lens_recipe import RECIPES

pytestmark = pytest.mark.real
#: Kept apart in training: run -> camcol and field. The latter is the globular cluster M2.
HELD_OUT = {8162: (6, 80), 2583: (2, 136)}
#: Of M2's sources every third is looked at.
THINNED = 3


@pytest.fixture(scope="module")
def held_out(real_data, tmp_path_factory):
    """The cutouts of the two fields."""
    folder = str(tmp_path_factory.mktemp("held-out"))
    galaxies, sources = (
        pq.read_table(real_data / f"sdss/{name}.parquet").to_pandas() for name in ("galaxies", "m2-sources")
    )
    table = pd.concat([galaxies, sources[::THINNED]])
    rows = table[table.run.isin(list(HELD_OUT))][["object_id", "ra", "dec", "run", "camcol", "field"]]
    survey = SdssSurvey(str(real_data / "sdss"), "gri", {})
    geometry = {"sky": GeometryConfig(size=64, scale=0.396)}
    rows = pa.Table.from_pandas(rows, preserve_index=False)
    cut_partition(survey, rows, geometry, open_storage(folder), "cutouts/Norder=0/Dir=0/Npix=0.zarr")
    return folder


@pytest.mark.parametrize(
    ("kind", "bands", "objects", "scale"), [("ground_based", "ugri", 12, 0.2), ("space_based", "V", 16, 0.1)]
)
def test_challenge_is_read(real_data, kind, bands, objects, scale):
    folder = real_data / "lenses" / kind
    assert is_challenge(folder)
    found = read_challenge(folder)
    assert found.images.shape == (objects, len(bands), 101, 101)
    assert found.bands == bands
    assert found.scale == pytest.approx(scale, rel=1e-5)
    assert found.lens.sum() == objects // 2
    assert (found.noise > 0).all()
    number = int(found.number[0])
    path = (
        next(folder.rglob(f"*-{number}.fits")) if bands == "V" else next(folder.rglob(f"*_R-{number}.fits"))
    )
    with fits.open(path) as units:
        pixels = np.asarray(units[0].data, float)
    plane = found.images[0, bands.index("V" if bands == "V" else "r")]
    good = pixels != 100
    np.testing.assert_allclose(plane[good], pixels[good] * 1e9, rtol=1e-5)
    assert np.isnan(plane[~good]).all()


def test_challenge_is_evaluated(real_data):
    """Too few and too deep for a score; the way is what counts."""
    stamps, lens, bands = read_labelled_lenses(str(real_data / "lenses/ground_based"), None, "gri")
    assert bands == "gri"
    assert len(stamps) == len(lens) == 12
    assert (stamps.seeing < 1.6).all()


def test_real_fields_have_deflectors_and_their_own_seeing(held_out):
    stamps, _ = read_stamps([held_out], "gri")
    assert 25 < stamps.deflector.sum() < 90
    assert 0.7 < stamps.seeing.min() < stamps.seeing.max() < 1.2


def test_deflectors_in_a_cluster_s_field_are_galaxies_not_its_stars(held_out, real_data):
    """The detection told galaxies from stars by their sizes; half of M2's sources are stars."""
    stamps, _ = read_stamps([held_out], "gri")
    sources = pq.read_table(real_data / "sdss/m2-sources.parquet").to_pandas().set_index("object_id")
    inside = np.isin(stamps.object_id, sources.index)
    galaxy = sources.galaxy.reindex(stamps.object_id[inside]).to_numpy()
    chosen = stamps.deflector[inside]
    assert galaxy.mean() < 0.6
    assert chosen.sum() > 5
    assert galaxy[chosen].mean() > 0.75


def test_shipped_finder_on_fields_that_it_never_saw(held_out):
    bundle = load_bundle(shipped("lenses"))
    assert set(bundle.training["held_out"]) == {f"{run:06d}-{c}-{f:04d}" for run, (c, f) in HELD_OUT.items()}
    stamps, _ = read_stamps([held_out], "gri")
    test = injected_test(stamps, "gri", 500, np.random.default_rng(11))
    learnt = replace(RECIPES["sdss"].mix, lenses=500)
    mixed = mixed_test(stamps, "gri", learnt, np.random.default_rng(12))
    found = evaluate_lenses(bundle, test, mixed).scores
    print(found)
    assert found["network_auroc_large"] > 0.98
    assert found["network_tpr_1e-3_large"] > 0.5
    assert found["network_tpr10_large"] > 0.7
    assert found["network_tpr10"] > found["arc_filter_tpr10"]
    assert abs(found["radius_bias"]) < 0.08
    assert 0.6 < found["radius_inside"] < 0.76
    # Of 0.024 on many examples, and what counting adds on these.
    assert found["reliability"] < 0.03 + found["reliability_noise"]
    assert found["reliability_stated"] < 0.03


def test_command_prints_both_means(held_out):
    story, lines = evaluate_lens_bundle(load_bundle(shipped("lenses")), [held_out], None, lenses=60)
    assert story["scores"]["lenses"] == 60
    assert any(line.startswith("network") for line in lines)
    assert any(line.startswith("arc_filter") for line in lines)
