"""qp, the field's own library, opens what is released, and finds in it what was put there."""

import hashlib

import numpy as np
import pytest
import qp

from gzscale.catalog.pdfs import write_pdfs
from gzscale.catalog.pixels import Partition
from gzscale.errors import DamageError
from gzscale.storage import open_storage
from gzscale.tasks.redshift_pdf import cumulative, densities, summarise

EDGES = np.linspace(0, 0.4, 181)
#: Two siblings that are released as their parent, and a lonely one.
PARTITIONS = [
    (Partition(3, 16), 700),
    (Partition(3, 17), 900),
    (Partition(3, 300), 5),
    (Partition(3, 301), 0),
]


def probabilities(partition, count):
    rng = np.random.default_rng(partition.pixel)
    middle = (EDGES[1:] + EDGES[:-1]) / 2
    mean, sigma = rng.uniform(0.05, 0.35, (count, 1)), rng.uniform(0.006, 0.03, (count, 1))
    share = np.exp(-(((middle - mean) / sigma) ** 2) / 2) + 1e-6
    return share / share.sum(axis=1, keepdims=True)


def source(partition):
    count = dict(PARTITIONS)[partition]
    share = probabilities(partition, count)
    return np.arange(count) + 10_000 * partition.pixel, densities(share, EDGES).astype(np.float16)


def write(folder, max_rows=2000):
    storage = open_storage(str(folder))
    return write_pdfs(source, PARTITIONS, EDGES, storage, "redshifts_pdfs", max_rows)


def test_qp_opens_the_files_and_agrees(tmp_path):
    files = write(tmp_path)
    keys = {Partition(2, 4): PARTITIONS[:2], Partition(3, 300): PARTITIONS[2:3]}
    assert set(files) == {f"redshifts_pdfs/{pixel.path}.hdf5" for pixel in keys}
    for pixel, parts in keys.items():
        ensemble = qp.read(tmp_path / "redshifts_pdfs" / f"{pixel.path}.hdf5")
        share = np.concatenate([probabilities(part, count) for part, count in parts])
        ids = np.concatenate([source(part)[0] for part, _ in parts])
        assert ensemble.ancil["object_id"].tolist() == ids.tolist()
        told = summarise(share, EDGES)
        np.testing.assert_allclose(ensemble.mean().ravel(), told.mean, atol=1e-5)
        np.testing.assert_allclose(ensemble.median().ravel(), told.median, atol=1e-5)
        np.testing.assert_allclose(ensemble.std().ravel(), told.std, atol=2e-4)
        np.testing.assert_allclose(ensemble.cdf(EDGES[1:-1]), cumulative(share)[:, 1:-1], atol=3e-4)
        grid = (EDGES[1:] + EDGES[:-1]) / 2
        # Two neighbouring bins may round to one float16.
        assert (abs(ensemble.mode(grid).ravel() - told.mode) < 1.5 * 0.4 / 180).all()


def test_the_bytes_depend_on_the_content_alone_and_are_few(tmp_path):
    first, second = write(tmp_path / "a"), write(tmp_path / "b")
    assert first == second
    for key, (digest, size) in first.items():
        data = (tmp_path / "a" / key).read_bytes()
        assert (hashlib.sha256(data).hexdigest(), len(data)) == (digest, size)
    assert first[f"redshifts_pdfs/{Partition(2, 4).path}.hdf5"][1] < 180 * 1600


def test_large_pixels_are_parted_as_the_catalog_is(tmp_path):
    assert len(write(tmp_path, max_rows=1000)) == 3


def test_rows_that_were_not_promised_are_damage(tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "PARTITIONS", [(Partition(3, 16), 700)])
    storage = open_storage(str(tmp_path))
    with pytest.raises(DamageError, match="promised"):
        write_pdfs(source, [(Partition(3, 16), 701)], EDGES, storage, "p", 1000)
