import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from toy_stamps import draw, write_store

from gzscale.errors import BundleError, MissingError
from gzscale.training.labels import Refusal
from gzscale.training.photometry import total_fluxes
from gzscale.training.redshift_labels import read_redshifts
from gzscale.training.stamps import read_stamps


def read(folder, bands="ugriz", required="gr", size=64, side=52):
    labels = read_redshifts(folder / "labels.parquet", 0.4)
    return read_stamps(labels, str(folder), "sky", bands, required, size, side)


def test_stamps_are_joined_to_their_redshifts(tmp_path):
    redshift, images = write_store(tmp_path, 60, blocks=3)
    table = pq.read_table(tmp_path / "labels.parquet")
    order = np.random.default_rng(0).permutation(60)[:50]
    pq.write_table(table.take(order), tmp_path / "labels.parquet")
    found = read(tmp_path)
    assert found.labels.refused == {Refusal.NO_LABEL: 10}
    rows = found.labels.object_id - 1
    assert sorted(rows) == sorted(order)
    np.testing.assert_allclose(found.labels.redshift, redshift[rows])
    assert np.array_equal(found.observation.images, images[rows][:, :, 6:58, 6:58])
    np.testing.assert_allclose(found.observation.extinction, table["ebv"].to_numpy()[rows])
    np.testing.assert_allclose(found.summed, images[rows].astype(np.float32).sum(axis=(2, 3)), rtol=1e-3)


def test_what_cannot_be_used_is_counted(tmp_path, monkeypatch):
    _, _, images = draw(20, 3)
    images[0, 2] = np.nan
    images[1, 1] = 0
    images[2] = -images[2]
    images[3, 0] = np.nan  # may be missing
    monkeypatch.setattr(
        "toy_stamps.draw", lambda count, seed: (np.full(20, 0.1), np.zeros(20, np.float32), images)
    )
    write_store(tmp_path, 20)
    table = pq.read_table(tmp_path / "labels.parquet")
    more = table.slice(0, 2).set_column(0, "object_id", pa.array([777, 778]))
    pq.write_table(pa.concat_tables([table, more]), tmp_path / "labels.parquet")
    found = read(tmp_path)
    assert found.labels.refused == {Refusal.UNUSABLE_IMAGE: 3, Refusal.NO_IMAGE: 2}
    assert 4 in found.labels.object_id.tolist()
    assert np.isnan(found.flux[found.labels.object_id == 4, 0]).all()


def test_a_band_that_the_store_lacks_is_not_measured(tmp_path):
    write_store(tmp_path, 20, bands="gri")
    found = read(tmp_path)
    assert np.isnan(found.observation.images[:, [0, 4]].astype(np.float32)).all()
    assert np.isnan(found.observation.noise[:, 0]).all()
    assert np.isfinite(found.flux[:, 1:4]).all()
    with pytest.raises(BundleError, match="'ur'"):
        read(tmp_path, required="ur")
    with pytest.raises(BundleError, match="32 pixels"):
        read(tmp_path, size=32, side=20)


def test_no_store(tmp_path):
    write_store(tmp_path, 4)
    labels = read_redshifts(tmp_path / "labels.parquet", 0.4)
    with pytest.raises(MissingError, match="galaxy"):
        read_stamps(labels, str(tmp_path), "galaxy", "gr", "gr", 64, 52)


def test_total_fluxes_are_those_drawn():
    _, _, images = draw(200, 1)
    drawn = images.astype(np.float64).sum(axis=(2, 3))
    found = total_fluxes(images, 2)
    for band, tolerance in ((1, 0.03), (2, 0.02), (3, 0.03)):
        assert np.median(abs(found[:, band] / drawn[:, band] - 1)) < tolerance
    # The profile measures a faint band better than the sum over all pixels.
    noisy = images + np.random.default_rng(5).normal(0, 0.1, images.shape)
    assert np.std(total_fluxes(noisy, 2)[:, 0] - found[:, 0]) < 0.7 * np.std(
        noisy.sum(axis=(2, 3))[:, 0] - drawn[:, 0]
    )
    half = images.copy()
    half[:, :, :, 40:] = np.nan
    assert np.median(abs(total_fluxes(half, 2)[:, 2] / drawn[:, 2] - 1)) < 0.05
    assert np.isnan(total_fluxes(-images, 2)).all()
