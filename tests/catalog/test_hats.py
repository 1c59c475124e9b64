import errno
import hashlib
import io
import shutil
import subprocess

import astropy.units as u
import lsdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.coordinates import SkyCoord
from astropy.io.votable import parse
from astropy.table import Table
from hats.io.validation import is_valid_catalog
from hats.pixel_math import spatial_index_to_healpix
from released_sky import COLUMNS, FRACTIONS, part, release, rows_at, whole_sky

from gzscale.catalog import hats
from gzscale.catalog.hats import write_collection
from gzscale.catalog.index import IdIndex
from gzscale.catalog.pixels import Partition
from gzscale.config import ReleaseConfig
from gzscale.errors import CatalogError, DamageError, StorageError
from gzscale.storage import open_storage


@pytest.fixture(scope="module")
def sky():
    return whole_sky(6000)


@pytest.fixture(scope="module")
def released(sky, tmp_path_factory):
    return release(part(sky, 3), tmp_path_factory.mktemp("sky"), max_rows=700, margin=600)


def data_files(path, member="morphology"):
    return sorted((path / member).glob("dataset/Norder=*/Dir=*/Npix=*.parquet"))


def test_hats_strict_validation_passes_for_the_collection_and_its_members(released):
    path, _ = released
    members = [path, *(folder for folder in path.iterdir() if folder.is_dir())]
    assert len(members) == 4
    for member in members:
        assert is_valid_catalog(member, strict=True)


def test_every_row_is_released_once_where_its_pixel_says(sky, released):
    path, _ = released
    files = data_files(path)
    assert 9 <= len(files) <= 60
    tables = []
    for file in files:
        table = pq.read_table(file, partitioning=None)
        order, pixel = int(file.parts[-3].split("=")[1]), int(file.stem.split("=")[1])
        assert table.num_rows <= 700
        assert set(spatial_index_to_healpix(table["_healpix_29"].to_numpy(), order)) == {pixel}
        assert np.all(np.diff(table["_healpix_29"].to_numpy()) >= 0)
        tables.append(table.replace_schema_metadata(None))
    stored = pa.concat_tables(tables).sort_by([("_healpix_29", "ascending"), ("object_id", "ascending")])
    assert stored.equals(sky)


def test_the_inventory_names_every_file_and_its_hash(released):
    path, inventory = released
    root = path.parents[2]
    stored = {file.relative_to(root).as_posix() for file in root.rglob("*") if file.is_file()}
    assert set(inventory) == stored
    for key, (digest, size) in inventory.items():
        data = (root / key).read_bytes()
        assert (hashlib.sha256(data).hexdigest(), len(data)) == (digest, size)


def test_lsdb_finds_what_a_cone_holds_and_opens_the_margin(sky, released):
    path, _ = released
    catalog = lsdb.open_catalog(path)
    assert len(catalog) == 6000
    assert catalog.margin is not None
    assert catalog.margin.hc_structure.catalog_info.margin_threshold == 600
    assert catalog.columns.to_list() == [column.name for column in COLUMNS[1:]]
    found = catalog.cone_search(0.5, -2.0, 12 * 3600).compute()
    positions = SkyCoord(sky["ra"].to_numpy() * u.deg, sky["dec"].to_numpy() * u.deg)
    near = positions.separation(SkyCoord(0.5 * u.deg, -2.0 * u.deg)).deg < 12
    assert sorted(found["object_id"]) == sorted(sky["object_id"].to_numpy()[near])
    assert len(found) > 30


def test_lsdb_finds_objects_by_their_identifier(sky, released):
    path, _ = released
    wanted = sky["object_id"].to_pylist()[::1000]
    found = lsdb.open_catalog(path).id_search({"object_id": wanted}).compute()
    assert sorted(found["object_id"]) == sorted(wanted)


def test_the_index_is_sorted_and_names_the_file_of_each_object(released):
    path, _ = released
    parts = sorted((path / "morphology_object_id_index/dataset/index").iterdir())
    tables = [pq.read_table(file) for file in sorted(parts, key=lambda f: int(f.suffixes[0][1:]))]
    index = pa.concat_tables([table.replace_schema_metadata(None) for table in tables])
    assert index.column_names == ["object_id", "_healpix_29", "Norder", "Dir", "Npix"]
    assert np.all(np.diff(index["object_id"].to_numpy()) > 0)
    for row in index.slice(0, 50).to_pylist():
        file = path / f"morphology/dataset/Norder={row['Norder']}/Dir={row['Dir']}/Npix={row['Npix']}.parquet"
        ids = pq.read_table(file, columns=["object_id"], partitioning=None)["object_id"].to_pylist()
        assert row["object_id"] in ids


def test_pandas_and_astropy_read_a_data_file_with_its_units(released):
    path, _ = released
    file = data_files(path)[0]
    frame = pd.read_parquet(file)
    assert frame["coverage"].dtype == np.float32
    table = Table.read(file, format="parquet")
    assert len(table) == len(frame)
    votable = Table.read(file, format="parquet.votable")
    assert votable["ra"].unit == u.deg
    assert votable["ra"].meta["ucd"] == "pos.eq.ra;meta.main"
    assert votable[FRACTIONS[0].name].description == "Fraction 0"
    assert np.array_equal(np.asarray(votable["dec"]), frame["dec"].to_numpy())


@pytest.mark.parametrize("member", ["morphology", "morphology_600arcs", "morphology_object_id_index"])
def test_every_data_file_describes_its_columns_in_a_votable(released, member):
    path, _ = released
    files = [*(path / member).rglob("*.parquet"), path / member / "dataset/_common_metadata"]
    files = [file for file in files if file.name != "per_partition_statistics.parquet"]
    assert len(files) > 2
    sizes = {"INT64": "i8", "FLOAT": "f4", "DOUBLE": "f8", "INT32": "u1"}
    for file in files:
        footer = pq.read_metadata(file)
        assert footer.metadata[b"IVOA.VOTable-Parquet.version"] == b"1.0"
        header = parse(io.BytesIO(footer.metadata[b"IVOA.VOTable-Parquet.content"]), verify="exception")
        fields = header.get_first_table().fields
        columns = [footer.schema.column(i) for i in range(footer.num_columns)]
        assert [field.name for field in fields] == [column.name for column in columns]
        assert [field.converter.format for field in fields] == [sizes[c.physical_type] for c in columns]
        arrow = footer.schema.to_arrow_schema()
        for field in fields:
            assert arrow.field(field.name).metadata[b"ucd"].decode() == field.ucd
            assert arrow.field(field.name).metadata[b"description"].decode() == str(field.description)


def test_stilts_votlint_has_nothing_to_say_of_the_headers(released, tmp_path):
    """What parqlint asks of a file beside that its columns are the header's, for a STILTS without Parquet."""
    if shutil.which("stilts") is None:
        pytest.skip("STILTS is not installed")
    path, _ = released
    for member in ("morphology", "morphology_600arcs", "morphology_object_id_index"):
        metadata = pq.read_metadata(next((path / member / "dataset").rglob("*.parquet"))).metadata
        named = {key for key in metadata if key.lower().startswith(b"ivoa.votable-parquet")}
        assert named == {b"IVOA.VOTable-Parquet.version", b"IVOA.VOTable-Parquet.content"}
        header = tmp_path / f"{member}.vot"
        header.write_bytes(metadata[b"IVOA.VOTable-Parquet.content"])
        assert b"<DATA" not in header.read_bytes()
        lint = ["stilts", "votlint", str(header), "ucd=true", "unit=true"]
        found = subprocess.run(lint, capture_output=True, text=True, timeout=120, check=False)
        assert (found.returncode, found.stdout, found.stderr) == (0, "", "")


def test_stilts_parqlint_has_nothing_to_say(released):
    if shutil.which("stilts") is None:
        pytest.skip("STILTS is not installed")
    known = subprocess.run(["stilts", "-help"], capture_output=True, text=True, timeout=60, check=False)
    if "parqlint" not in known.stdout:
        pytest.skip("this STILTS has no parqlint (Debian's is built without Parquet)")
    path, _ = released
    for member in ("morphology", "morphology_600arcs", "morphology_object_id_index"):
        file = next((path / member / "dataset").rglob("*.parquet"))
        lint = ["stilts", "parqlint", f"in={file}"]
        found = subprocess.run(lint, capture_output=True, text=True, timeout=120, check=False)
        assert found.returncode == 0, found.stderr
        assert not [line for line in found.stdout.splitlines() if line.startswith(("ERROR", "WARN"))]


def test_the_same_bytes_however_the_partitions_are_given(sky, released, tmp_path):
    _, inventory = released
    finer = dict(reversed(part(sky, 3).items()))
    _, again = release(finer, tmp_path / "a", max_rows=700, margin=600)
    assert again == inventory
    tables = part(sky, 3)
    streamed = write_collection(
        iter(tables.values()),
        [(name, table.num_rows) for name, table in tables.items()],
        COLUMNS,
        open_storage(tmp_path / "b"),
        "releases/one/morphology",
        "morphology",
        ReleaseConfig(max_rows=700, margin=600),
    )
    assert streamed == inventory


def test_row_groups_do_not_depend_on_the_partitions(monkeypatch, sky, tmp_path):
    monkeypatch.setattr(hats, "ROW_GROUP_ROWS", 150)
    path, inventory = release(part(sky, 3), tmp_path / "a", max_rows=700, margin=600)
    footer = pq.read_metadata(data_files(path)[0])
    groups = [footer.row_group(i).num_rows for i in range(footer.num_row_groups)]
    assert len(groups) > 1
    assert set(groups[:-1]) == {150}
    coarse = part(sky, 2)
    assert all(table.num_rows <= 700 for table in coarse.values())
    _, other = release(coarse, tmp_path / "b", max_rows=700, margin=600)
    assert other == inventory


def test_what_an_earlier_attempt_left_is_removed(sky, tmp_path):
    stale = tmp_path / "releases/one/morphology/morphology/dataset/Norder=9/Dir=0/Npix=1.parquet"
    stale.parent.mkdir(parents=True)
    stale.write_bytes(b"PAR1")
    path, _ = release(part(sky, 2), tmp_path)
    assert not stale.exists()
    assert is_valid_catalog(path, strict=True)


@pytest.mark.parametrize(
    ("ra", "dec", "ids"),
    [
        ([185.0], [15.0], [7]),
        ([0.0, 90.0, 200.0], [90.0, 90.0, -90.0], [-(2**63), -5, 2**62 + 1]),
    ],
    ids=["one row", "poles"],
)
def test_few_rows_in_hard_places(tmp_path, ra, dec, ids):
    table = rows_at(ra, dec, ids)
    path, _ = release(part(table, 8), tmp_path, max_rows=1)
    assert is_valid_catalog(path, strict=True)
    catalog = lsdb.open_catalog(path)
    assert sorted(catalog.compute()["object_id"]) == sorted(ids)
    for number in ids:
        assert catalog.id_search({"object_id": number}).compute()["object_id"].to_list() == [number]
    assert len(catalog.cone_search(ra[0], dec[0], 2).compute()) >= 1


def test_neighbours_across_the_wrap_are_in_each_others_margin(tmp_path):
    """0.72 arcsec apart, at either end of right ascension, in two pixels."""
    path, _ = release(part(rows_at([359.9999, 0.0001], [0.0, 0.0], [1, 2]), 8), tmp_path, max_rows=1)
    files = data_files(path)
    assert len(files) == 2
    for file in files:
        other = path / "morphology_10arcs" / file.relative_to(path / "morphology")
        own, near = (pq.read_table(f, partitioning=None)["object_id"].to_pylist() for f in (file, other))
        assert sorted(own + near) == [1, 2]


def test_a_release_of_nothing_is_a_valid_empty_catalog(tmp_path):
    path, inventory = release({Partition(3, 5): rows_at([], [])}, tmp_path)
    assert is_valid_catalog(path, strict=True)
    catalog = lsdb.open_catalog(path)
    assert len(catalog) == 0
    assert len(catalog.compute()) == 0
    assert not [key for key in inventory if "Npix" in key]


def test_a_margin_of_zero_is_no_margin(sky, tmp_path):
    path, _ = release(part(sky, 2), tmp_path, margin=0)
    assert is_valid_catalog(path, strict=True)
    assert lsdb.open_catalog(path).margin is None


@pytest.mark.parametrize(
    ("spoil", "error", "words"),
    [
        (lambda t: t.slice(1), DamageError, "rows were read where"),
        (lambda t: t.take(list(range(t.num_rows))[::-1]), DamageError, "not sorted"),
        (lambda t: pa.concat_tables([t.slice(0, 1), t.slice(0, t.num_rows - 1)]), DamageError, "twice"),
        (lambda t: t.set_column(0, "_healpix_29", pa.array([0] * t.num_rows)), DamageError, "not inside"),
        (lambda t: t.drop_columns(["coverage"]), CatalogError, r"\['coverage'\] are missing"),
        (lambda t: t.set_column(4, "coverage", pa.array(["x"] * t.num_rows)), CatalogError, "do not fit"),
    ],
)
def test_damaged_predictions_are_refused(sky, tmp_path, spoil, error, words):
    partitions = part(sky, 1)
    counts = [(name, table.num_rows) for name, table in partitions.items()]
    name = counts[3][0]
    partitions[name] = spoil(partitions[name])
    with pytest.raises(error, match=words) as caught:
        write_collection(
            partitions.__getitem__,
            counts,
            COLUMNS,
            open_storage(tmp_path),
            "r/morphology",
            "morphology",
            ReleaseConfig(),
        )
    assert name.path in str(caught.value)


def test_a_stream_that_ends_early_is_refused(sky, tmp_path):
    partitions = part(sky, 1)
    counts = [(name, table.num_rows) for name, table in partitions.items()]
    short = iter(list(partitions.values())[:-1])
    with pytest.raises(DamageError, match="0 rows were read where"):
        write_collection(short, counts, COLUMNS, open_storage(tmp_path), "r/m", "m", ReleaseConfig())


def test_a_full_temporary_disk_is_told_with_its_remedy(sky, tmp_path, monkeypatch):
    def spill(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(IdIndex, "_spill", spill)
    with pytest.raises(StorageError, match="TMPDIR"):
        release(part(sky, 1), tmp_path)
