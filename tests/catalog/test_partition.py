"""A parted catalog against pandas, astropy_healpix and HATS's own counting."""

import pickle

import astropy.units as u
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.coordinates import SkyCoord
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gzscale.catalog import sorting
from gzscale.catalog.partition import Partition, partition_catalog
from gzscale.catalog.read import open_catalog
from gzscale.config import CatalogConfig
from gzscale.errors import CatalogError, StorageError

COLUMNS = {"object_id": "id", "ra": "ra", "dec": "dec", "size": "r90"}


def frame(count, seed=0):
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "id": rng.permutation(count * 3)[:count].astype("int64") + 1237648720000000000,
            "ra": rng.uniform(0, 360, count),
            "dec": np.degrees(np.arcsin(rng.uniform(-1, 1, count))),
            "r90": rng.gamma(2, 2, count).astype("float32"),
        }
    )


def parted(table, folder, max_objects=50):
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "table.parquet"
    table.to_parquet(path, index=False)
    with open_catalog(CatalogConfig(path=str(path), columns=COLUMNS), True) as reader:
        return partition_catalog(reader, folder / "work", max_objects)


def all_rows(catalog):
    return pa.concat_tables([catalog.rows(partition) for partition, _ in catalog.partitions])


def quarantine(catalog):
    return [row for batch in catalog.quarantine() for row in batch.to_pylist()]


@pytest.fixture
def small_buckets(monkeypatch):
    """Make every path of a large catalog run on a small one."""
    monkeypatch.setattr(sorting, "CHUNK_ROWS", 37)
    monkeypatch.setattr(sorting, "STRETCH_ROWS", 200)
    monkeypatch.setattr(sorting, "SAMPLE_ROWS", 64)
    monkeypatch.setattr(sorting, "ID_BUCKETS", 5)


def test_all_objects_come_back_sorted_with_their_columns(tmp_path, small_buckets):
    table = frame(3000)
    catalog = parted(table, tmp_path)
    rows = all_rows(catalog)
    assert rows.schema.names == ["_healpix_29", "object_id", "ra", "dec", "size"]
    assert [str(t) for t in rows.schema.types] == ["int64", "int64", "double", "double", "float"]
    back = rows.to_pandas().sort_values("object_id", ignore_index=True)
    expected = table.sort_values("id", ignore_index=True)
    for ours, theirs in (("object_id", "id"), ("ra", "ra"), ("dec", "dec"), ("size", "r90")):
        assert (back[ours] == expected[theirs]).all()
    index = rows["_healpix_29"].to_numpy()
    assert (np.diff(index) >= 0).all()
    assert catalog.planned == 3000
    assert catalog.quarantined == {}
    assert sum(count for _, count in catalog.partitions) == 3000


def test_the_index_and_the_pixels_are_those_of_astropy_healpix(tmp_path):
    astropy_healpix = pytest.importorskip("astropy_healpix")
    catalog = parted(frame(500), tmp_path)
    for partition, count in catalog.partitions:
        rows = catalog.rows(partition)
        assert rows.num_rows == count <= 50
        position = SkyCoord(rows["ra"].to_numpy() * u.deg, rows["dec"].to_numpy() * u.deg)
        healpix = astropy_healpix.HEALPix(nside=2**partition.order, order="nested", frame="icrs")
        assert (healpix.skycoord_to_healpix(position) == partition.pixel).all()
        finest = astropy_healpix.HEALPix(nside=2**29, order="nested", frame="icrs")
        assert (finest.skycoord_to_healpix(position) == rows["_healpix_29"].to_numpy()).mean() > 0.99


def test_partitions_are_those_of_the_hats_importer(tmp_path, small_buckets):
    """HATS counts a histogram of one order and splits where a pixel is above the threshold."""
    from hats.pixel_math.partition_stats import generate_alignment, generate_histogram

    table = frame(2000)
    histogram = generate_histogram(table, highest_order=6, ra_column="ra", dec_column="dec")
    aligned = generate_alignment(histogram, highest_order=6, lowest_order=0, threshold=50)
    expected = {(int(item[0]), int(item[1]), int(item[2])) for item in aligned if item is not None}
    found = {
        (partition.order, partition.pixel, count) for partition, count in parted(table, tmp_path).partitions
    }
    assert found == expected


def test_it_does_not_depend_on_the_order_of_the_rows_or_on_buckets(tmp_path, monkeypatch):
    table = frame(2000)
    table.loc[[3, 700, 1500], "ra"] = [np.nan, -5, 400]
    catalog = parted(table, tmp_path / "plain")
    monkeypatch.setattr(sorting, "CHUNK_ROWS", 41)
    monkeypatch.setattr(sorting, "STRETCH_ROWS", 100)
    monkeypatch.setattr(sorting, "ID_BUCKETS", 7)
    shuffled = parted(table.sample(frac=1, random_state=1), tmp_path / "shuffled")
    assert shuffled.partitions == catalog.partitions
    assert all_rows(shuffled).equals(all_rows(catalog))
    assert quarantine(shuffled) == quarantine(catalog)
    assert catalog.quarantined == {"BAD_COORDINATES": 3}


@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.integers(0, 12), max_size=80), st.data())
def test_of_one_identifier_the_first_usable_row_is_kept(tmp_path_factory, ids, data):
    tmp_path = tmp_path_factory.mktemp("duplicates")
    usable = data.draw(st.lists(st.booleans(), min_size=len(ids), max_size=len(ids)))
    if not ids:
        return
    ra = np.arange(len(ids), dtype=float)
    table = pd.DataFrame({"id": ids, "ra": np.where(usable, ra, np.nan), "dec": 0.0, "r90": np.float32(1)})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sorting, "CHUNK_ROWS", 7)
        patch.setattr(sorting, "ID_BUCKETS", 2)
        catalog = parted(table, tmp_path)
    first = table[usable].drop_duplicates("id")
    kept = (
        {}
        if not catalog.partitions
        else dict(all_rows(catalog).select(["object_id", "ra"]).to_pandas().values)
    )
    assert kept == dict(first[["id", "ra"]].values)
    duplicates = sum(usable) - len(first)
    expected = {"BAD_COORDINATES": len(ids) - sum(usable), "DUPLICATE_ID": duplicates}
    assert catalog.quarantined == {reason: count for reason, count in expected.items() if count}
    rows = quarantine(catalog)
    assert len(rows) == len(ids) - len(first)
    for row in rows:
        if row["reason"] == "DUPLICATE_ID":
            keeper = int(first.index[first["id"] == row["object_id"]][0])
            assert row["detail"].endswith(f"has the identifier of row {keeper}, which is kept")


def test_one_identifier_in_every_row(tmp_path, small_buckets):
    table = frame(500)
    table["id"] = 0
    catalog = parted(table, tmp_path)
    assert catalog.quarantined == {"DUPLICATE_ID": 499}
    assert all_rows(catalog)["ra"].to_pylist() == [table["ra"][0]]


def test_one_row(tmp_path):
    catalog = parted(frame(1), tmp_path)
    assert [(partition.order, count) for partition, count in catalog.partitions] == [(0, 1)]
    assert list(catalog.quarantine()) == []


def test_all_rows_bad(tmp_path):
    table = frame(30)
    table["dec"] = np.nan
    catalog = parted(table, tmp_path)
    assert catalog.partitions == []
    assert catalog.planned == 30
    assert len(quarantine(catalog)) == 30


def test_all_objects_at_one_position(tmp_path, small_buckets):
    table = frame(300)
    table[["ra", "dec"]] = [0.0, 0.0]
    catalog = parted(table, tmp_path)
    assert [(partition.order, count) for partition, count in catalog.partitions] == [(18, 300)]
    identifiers = all_rows(catalog)["object_id"].to_numpy()
    assert (np.diff(identifiers) > 0).all()


def test_the_poles_and_both_sides_of_the_meridian(tmp_path):
    table = pd.DataFrame(
        {"id": range(4), "ra": [359.9999, 0.0001, 12.0, 200.0], "dec": [0.0, 0.0, 90.0, -90.0], "r90": 1.0}
    )
    catalog = parted(table, tmp_path)
    assert catalog.quarantined == {}
    assert all_rows(catalog).num_rows == 4


def test_it_can_be_sent_to_another_process(tmp_path):
    catalog = parted(frame(300), tmp_path)
    copy = pickle.loads(pickle.dumps(catalog))
    assert all_rows(copy).equals(all_rows(catalog))


def test_what_an_earlier_run_left_is_removed(tmp_path):
    parted(frame(3000), tmp_path)
    catalog = parted(frame(10, seed=5), tmp_path)
    assert all_rows(catalog).num_rows == 10


def test_a_partition_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(CatalogError, match="Norder=3/Dir=0/Npix=5 is not a partition"):
        parted(frame(3), tmp_path).rows(Partition(3, 5))


def test_a_work_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "work").write_text("in the way")
    with pytest.raises(StorageError, match="choose another work folder"):
        parted(frame(3), tmp_path)


def test_a_full_disk_is_told_with_the_remedy(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(sorting, "write_run", full)
    with pytest.raises(StorageError, match="free space"):
        parted(frame(3), tmp_path)


def test_no_memory_map_keeps_a_partition_alive(tmp_path):
    """Rows are copies: they stay readable when the work folder is gone."""
    import shutil

    catalog = parted(frame(300), tmp_path)
    rows = catalog.rows(catalog.partitions[0][0])
    before = rows.to_pydict()
    shutil.rmtree(tmp_path / "work")
    assert rows.to_pydict() == before
    assert pq.read_table(tmp_path / "table.parquet").num_rows == 300
