"""Catalogs that astropy, pandas and lsdb wrote, read back; and every way in which they can be wrong."""

import functools
import gzip
import http.server
import threading

import astropy.units as u
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.table import MaskedColumn, Table

from gzscale.catalog.read import open_catalog
from gzscale.config import CatalogConfig
from gzscale.errors import CatalogError

COLUMNS = {"object_id": "objID", "ra": "ra", "dec": "dec", "size": "petroR90_r", "run": "run"}
ROWS = 300


def table():
    rng = np.random.default_rng(3)
    return Table(
        {
            "objID": np.arange(ROWS) * 7 + 1237648720000000001,
            "ra": rng.uniform(0, 360, ROWS) * u.deg,
            "unused": np.full(ROWS, "text"),
            "dec": rng.uniform(-90, 90, ROWS) * u.deg,
            "petroR90_r": rng.gamma(2, 2, ROWS).astype("f4") * u.arcsec,
            "run": MaskedColumn(rng.integers(90, 9000, ROWS, dtype="i4"), mask=np.arange(ROWS) == 5),
        }
    )


def config(path, columns=None, kind="auto"):
    return CatalogConfig(path=str(path), columns=columns or COLUMNS, format=kind)


def read(path, columns=None, kind="auto", rows=64):
    with open_catalog(config(path, columns, kind), needs_size=False) as reader:
        return pa.Table.from_batches(reader.batches(rows), reader.schema)


def write(folder, name):
    path = folder / name
    made = table()
    if name.endswith(".parquet"):
        made.write(path)
    elif ".fits" in name:
        made.write(path, format="fits")
    elif ".vot" in name:
        plain = folder / "plain.vot"
        made.write(
            plain, format="votable", overwrite=True, tabledata_format="binary2" if "binary" in name else None
        )
        path.write_bytes(gzip.compress(plain.read_bytes()) if name.endswith(".gz") else plain.read_bytes())
    else:
        made.write(path, format="ascii.csv")
        if name.endswith(".gz"):
            path.write_bytes(gzip.compress(path.read_bytes()))
    return path


def check(found):
    expected = table()
    assert found.schema.names == ["row", "object_id", "ra", "dec", "size", "run"]
    assert [str(t) for t in found.schema.types] == ["int64", "int64", "double", "double", "float", "int32"]
    assert found["row"].to_pylist() == list(range(ROWS))
    assert found["object_id"].to_pylist() == expected["objID"].tolist()
    np.testing.assert_array_equal(found["ra"].to_numpy(), expected["ra"].value)
    np.testing.assert_array_equal(found["dec"].to_numpy(), expected["dec"].value)
    np.testing.assert_array_equal(found["size"].to_numpy(), expected["petroR90_r"].value)
    assert found["run"].to_pylist() == expected["run"].tolist()


NAMES = ["t.parquet", "t.fits", "t.fits.gz", "t.vot", "binary.vot", "t.vot.gz", "t.csv", "t.csv.gz"]


@pytest.mark.parametrize("name", NAMES)
def test_what_astropy_wrote(tmp_path, name):
    check(read(write(tmp_path, name)))


@pytest.mark.parametrize("name", NAMES)
def test_the_batches_do_not_change_the_table(tmp_path, name):
    path = write(tmp_path, name)
    assert read(path, rows=1).equals(read(path, rows=10_000))


@pytest.mark.parametrize("name", ["t.parquet", "t.fits", "t.vot"])
def test_rows_are_counted_where_the_format_says(tmp_path, name):
    with open_catalog(config(write(tmp_path, name)), needs_size=True) as reader:
        assert reader.row_count == ROWS
        assert f"{ROWS} rows" in repr(reader)


def test_a_file_without_an_ending_is_known_by_its_first_bytes(tmp_path):
    for name in ("t.parquet", "t.fits", "t.vot"):
        path = write(tmp_path, name)
        check(read(path.rename(tmp_path / name.replace(".", "_"))))


def test_a_folder_of_parquet_is_read_in_the_order_of_names(tmp_path):
    folder = tmp_path / "folder"
    (folder / "deep").mkdir(parents=True)
    whole = table()
    whole[:100].write(folder / "a.parquet")
    whole[100:].write(folder / "deep" / "b.parquet")
    (folder / "_metadata").write_text("not data")
    (folder / "notes.txt").write_text("not data")
    check(read(folder))


def test_hats_catalog_and_collection(tmp_path):
    lsdb = pytest.importorskip("lsdb")
    frame = table().to_pandas()
    made = lsdb.from_dataframe(
        frame, ra_column="ra", dec_column="dec", catalog_name="made", partition_rows=60, margin_threshold=None
    )
    made.to_hats(tmp_path / "collection", catalog_name="made", as_collection=True)
    expected = read(write(tmp_path, "t.parquet")).drop_columns("row").sort_by("object_id")
    for name in ("collection", "collection/made"):
        with open_catalog(config(tmp_path / name), needs_size=True) as reader:
            assert (reader.format, reader.row_count) == ("hats", ROWS)
            found = pa.Table.from_batches(reader.batches(), reader.schema)
        assert found.drop_columns("row").sort_by("object_id").equals(expected)


def test_half_a_hats_catalog_is_an_error(tmp_path):
    (tmp_path / "collection.properties").write_text("#HATS\nhats_primary_table_url=primary\n")
    with pytest.raises(CatalogError, match=r"no primary/hats\.properties"):
        open_catalog(config(tmp_path), needs_size=False)


def test_delimiters_comments_and_spellings_of_missing(tmp_path):
    path = tmp_path / "t.tsv"
    path.write_text("#Table1\nobjID\tra\tdec\n1\t 10.5\t-1e1\n +2 \tnull\tabc\nNA\t1\t2\n")
    found = read(path, {"object_id": "objID", "ra": "ra", "dec": "dec"})
    assert found["object_id"].to_pylist() == [1, 2, None]
    assert found["ra"].to_pylist() == [10.5, None, 1.0]
    assert found["dec"].to_pylist() == [-10.0, None, 2.0]


# Identifiers -----------------------------------------------------------------------------------


def with_ids(tmp_path, ids, name="t.parquet"):
    path = tmp_path / name
    pq.write_table(pa.table({"objID": ids, "ra": [1.0] * len(ids), "dec": [2.0] * len(ids)}), path)
    return path


MINIMAL = {"object_id": "objID", "ra": "ra", "dec": "dec"}


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        (pa.array([2**63 - 1, None], pa.uint64()), [2**63 - 1, None]),
        (pa.array([1.0, float("nan"), 2.0**53 - 1]), [1, None, 2**53 - 1]),
        (pa.array([1, 2**24 - 1], pa.float32()), [1, 2**24 - 1]),
        (pa.array(["587722952230174996", " 42 ", "nothing", None]), [587722952230174996, 42, None, None]),
        (pa.array(["7", "8"]).dictionary_encode(), [7, 8]),
        (pa.array(["7"], pa.large_string()), [7]),
        (pa.array([3], pa.int8()), [3]),
    ],
)
def test_identifiers_that_are_exact(tmp_path, ids, expected):
    assert read(with_ids(tmp_path, ids), MINIMAL)["object_id"].to_pylist() == expected


@pytest.mark.parametrize(
    ("ids", "words"),
    [
        (pa.array([1, 2**63], pa.uint64()), "9223372036854775808"),
        (pa.array([1237648720000000001.0]), "'objID'.*lost digits.*as integers or as text"),
        (pa.array([2.0**24], pa.float32()), "lost digits"),
        (pa.array([1.5]), r"holds 1\.5"),
        (pa.array(["1.23764872e+18", "5"]), r"1\.23764872e\+18.*lost digits"),
        (pa.array(["12", "99999999999999999999.0"]), "lost digits"),
        (pa.array(["9300000000000000000", "x"]), r"2\*\*63"),
        (pa.array(["J1234+12", "J1235+13"]), "'J1234.12'"),
        (pa.array([True, False]), "bool"),
    ],
)
def test_identifiers_that_are_not(tmp_path, ids, words):
    with pytest.raises(CatalogError, match=words):
        read(with_ids(tmp_path, ids), MINIMAL)


def test_digits_lost_late_in_a_file_are_found_while_it_is_read(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("objID,ra,dec\n" + "5,1,2\n" * 500_000 + "1.2e18,1,2\n")
    reader = open_catalog(config(path, MINIMAL), needs_size=False)
    with reader, pytest.raises(CatalogError, match="lost digits"):
        list(reader.batches())


def test_unsigned_integers_and_tnull_of_fits(tmp_path):
    made = Table({"objID": np.array([5, 2**63 - 1, 9], "u8"), "ra": [1.0, 2.0, 3.0], "dec": [1.0, 2.0, 3.0]})
    made["size"] = MaskedColumn(np.array([4, 5, 6], "i2"), mask=[False, True, False])
    made.write(tmp_path / "t.fits")
    found = read(tmp_path / "t.fits", MINIMAL | {"size": "size"})
    assert found["object_id"].to_pylist() == [5, 2**63 - 1, 9]
    assert found["size"].to_pylist() == [4.0, None, 6.0]


def test_text_identifiers_of_fits(tmp_path):
    Table({"objID": ["12", "345"], "ra": [1.0, 2.0], "dec": [1.0, 2.0]}).write(tmp_path / "t.fits")
    assert read(tmp_path / "t.fits", MINIMAL)["object_id"].to_pylist() == [12, 345]


# Units -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["t.parquet", "t.fits", "t.vot"])
def test_units_that_are_converted(tmp_path, name):
    sky = table()
    made = sky.copy()
    made["ra"] = sky["ra"].to(u.rad)
    if name != "t.fits":  # the FITS standard has no unit for hours of angle
        made["dec"] = sky["dec"].to(u.hourangle)
    made["petroR90_r"] = sky["petroR90_r"].to(u.arcmin)
    made.write(tmp_path / name, format="votable" if name == "t.vot" else None)
    found = read(tmp_path / name)
    np.testing.assert_allclose(found["ra"].to_numpy(), sky["ra"].value, rtol=1e-14)
    np.testing.assert_allclose(found["dec"].to_numpy(), sky["dec"].value, rtol=1e-14)
    np.testing.assert_allclose(found["size"].to_numpy(), sky["petroR90_r"].value, rtol=1e-6)


@pytest.mark.parametrize("name", ["t.parquet", "t.fits", "t.vot"])
@pytest.mark.parametrize(("column", "unit"), [("ra", u.m), ("dec", u.arcsec), ("petroR90_r", u.pix)])
def test_units_that_are_not(tmp_path, name, column, unit):
    made = table()
    made[column].unit = unit
    made.write(tmp_path / name, format="votable" if name == "t.vot" else None)
    with pytest.raises(CatalogError, match=f"column '{column}'.*must be in"):
        open_catalog(config(tmp_path / name), needs_size=False)


def test_units_of_voparquet(tmp_path):
    """The units stand in the VOTable header of the footer (IVOA Note VOParquet)."""
    header = b'<VOTABLE xmlns="http://www.ivoa.net/xml/VOTable/v1.3"><RESOURCE><TABLE>' + (
        b'<FIELD name="ra" unit="rad" datatype="double"/></TABLE></RESOURCE></VOTABLE>'
    )
    made = pa.table({"objID": [1], "ra": [np.pi], "dec": [0.0]})
    made = made.replace_schema_metadata({"IVOA.VOTable-Parquet.content": header})
    pq.write_table(made, tmp_path / "t.parquet")
    assert read(tmp_path / "t.parquet", MINIMAL)["ra"].to_pylist() == [pytest.approx(180.0)]


# What can be wrong before any work -------------------------------------------------------------


@pytest.mark.parametrize("name", ["t.parquet", "t.fits", "t.vot", "t.csv"])
def test_a_missing_column_names_its_neighbours(tmp_path, name):
    path = write(tmp_path, name)
    with pytest.raises(CatalogError, match=r"'RA', which the table lacks \(did you mean 'ra'\?\)"):
        open_catalog(config(path, COLUMNS | {"ra": "RA"}), needs_size=False)
    with pytest.raises(CatalogError, match=r"'petroR50_r'.*did you mean 'petroR90_r'"):
        open_catalog(config(path, COLUMNS | {"size": "petroR50_r"}), needs_size=False)


@pytest.mark.parametrize("name", ["t.parquet", "t.fits", "t.vot", "t.csv"])
def test_an_empty_table(tmp_path, name):
    made = table()[:0]
    made.write(tmp_path / name, format={"t.vot": "votable", "t.csv": "ascii.csv"}.get(name))
    with pytest.raises(CatalogError, match=r"has 0 rows; .*name another as catalog\.path") as caught:
        open_catalog(config(tmp_path / name), needs_size=False)
    assert str(tmp_path / name) in str(caught.value)


def test_a_size_that_is_needed(tmp_path):
    with pytest.raises(CatalogError, match="maps no size"):
        open_catalog(config(write(tmp_path, "t.csv"), MINIMAL), needs_size=True)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("keep", [0, 300])
def test_a_file_that_is_cut_short(tmp_path, name, keep):
    path = write(tmp_path, name)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CatalogError, match=path.name):
        read(path)


def test_a_fits_table_cut_in_its_rows(tmp_path):
    path = write(tmp_path, "t.fits")
    path.write_bytes(path.read_bytes()[:8640])
    with pytest.raises(CatalogError, match="cut short"):
        read(path)


@pytest.mark.parametrize("kind", ["auto", "parquet", "fits", "votable", "csv"])
def test_an_html_page(tmp_path, kind):
    path = tmp_path / "t.csv"
    path.write_text("<!DOCTYPE html><html><body>Sign in</body></html>")
    with pytest.raises(CatalogError, match="HTML page"):
        open_catalog(config(path, kind=kind), needs_size=False)


@pytest.mark.parametrize("kind", ["parquet", "fits", "votable", "hats"])
def test_another_format_than_it_is_told(tmp_path, kind):
    with pytest.raises(CatalogError, match=r"t\.csv"):
        open_catalog(config(write(tmp_path, "t.csv"), kind=kind), needs_size=False)


def test_nothing_there(tmp_path):
    with pytest.raises(CatalogError, match=r"none\.parquet: no such catalog; .*GZSCALE_CATALOG__PATH"):
        open_catalog(config(tmp_path / "none.parquet"), needs_size=False)
    with pytest.raises(CatalogError, match="empty folder"):
        open_catalog(config(tmp_path), needs_size=False)
    (tmp_path / "notes.txt").write_text("no table")
    with pytest.raises(CatalogError, match="no Parquet files"):
        open_catalog(config(tmp_path), needs_size=False)
    with pytest.raises(CatalogError, match=r"set catalog\.format"):
        open_catalog(config(tmp_path / "notes.txt"), needs_size=False)


def test_coordinates_in_words(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("objID,ra,dec\n1,12:34:56.7,-01:02:03\n")
    with pytest.raises(CatalogError, match=r"'ra'.*'12:34:56\.7'.*decimal numbers"):
        open_catalog(config(path, MINIMAL), needs_size=False)


def test_a_row_of_text_with_too_many_cells(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("objID,ra,dec\n1,2,3\n1,2,3,4\n")
    with pytest.raises(CatalogError, match=r"t\.csv: not a table of text"):
        read(path, MINIMAL)


def test_columns_of_arrays(tmp_path):
    made = Table({"objID": [1, 2], "ra": np.ones((2, 3)), "dec": [1.0, 2.0]})
    made.write(tmp_path / "t.fits")
    with pytest.raises(CatalogError, match=r"'ra' holds arrays of shape \(3,\)"):
        read(tmp_path / "t.fits", MINIMAL)


def test_files_of_one_folder_that_differ(tmp_path):
    table().write(tmp_path / "a.parquet")
    pd.DataFrame({"objID": [1]}).to_parquet(tmp_path / "b.parquet")
    with pytest.raises(CatalogError, match=r"b\.parquet: lacks the columns"):
        read(tmp_path)


def test_a_votable_that_is_too_large(tmp_path, monkeypatch):
    from gzscale.catalog.formats import votable

    monkeypatch.setattr(votable, "MAX_VOTABLE_BYTES", 1000)
    for name in ("t.vot", "t.vot.gz"):
        with pytest.raises(CatalogError, match="1000"):
            open_catalog(config(write(tmp_path, name)), needs_size=False)


# Identity and places ---------------------------------------------------------------------------


def identity(path, columns=None):
    with open_catalog(config(path, columns), needs_size=False) as reader:
        return reader.identity


def test_the_identity_follows_the_files_and_the_mapping(tmp_path):
    path = write(tmp_path, "t.csv")
    first = identity(path)
    assert identity(path) == first
    assert identity(path, MINIMAL) != first
    path.write_text(path.read_text().replace("text", "TEXT"))
    assert identity(path) != first


def test_http_is_fetched_and_removed_again(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1,localhost")
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "scratch"))
    handler = functools.partial(_Quiet, directory=str(tmp_path))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        for name in NAMES:
            write(tmp_path, name)
            check(read(f"http://127.0.0.1:{server.server_port}/{name}"))
        with pytest.raises(CatalogError, match="no such catalog"):
            read(f"http://127.0.0.1:{server.server_port}/none.csv")
    finally:
        server.shutdown()
        server.server_close()
    assert list((tmp_path / "scratch").iterdir()) == []


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.mark.s3
@pytest.mark.parametrize("name", NAMES)
def test_from_s3(tmp_path, s3, name):
    from gzscale.storage import open_storage

    open_storage(s3.url).put_file(f"deep/{name}", write(tmp_path, name))
    check(read(f"{s3.url}/deep/{name}"))


@pytest.mark.s3
def test_from_a_folder_on_s3_only_the_mapped_columns_are_fetched(tmp_path, s3, monkeypatch):
    from gzscale import storage

    made = table()
    frame = made.to_pandas()
    frame["large"] = [np.random.default_rng(row).bytes(4000) for row in range(ROWS)]
    frame.to_parquet(tmp_path / "t.parquet")
    store = storage.open_storage(s3.url)
    store.put_file("folder/part-0.parquet", tmp_path / "t.parquet")
    fetched = []
    kind = type(store)
    plain = kind.get_range

    def counting(self, key, start, stop):
        fetched.append(stop - start)
        return plain(self, key, start, stop)

    monkeypatch.setattr(kind, "get_range", counting)
    found = read(f"{s3.url}/folder")
    assert found["object_id"].to_pylist() == table()["objID"].tolist()
    assert (tmp_path / "t.parquet").stat().st_size > 1_000_000
    assert sum(fetched) < 300_000
    assert identity(f"{s3.url}/folder") == identity(f"{s3.url}/folder")


def test_extinction_that_cannot_be_is_null(tmp_path):
    ebv = ["0.03", "-999", "nan", "", "none", "1e9", "0"]
    made = pa.table({"objID": range(7), "ra": [1.0] * 7, "dec": [2.0] * 7, "E_BV": ebv})
    pq.write_table(made, tmp_path / "a.parquet")
    columns = {"object_id": "objID", "ra": "ra", "dec": "dec", "ebv": "E_BV"}
    found = read(tmp_path / "a.parquet", columns)["ebv"]
    assert found.type == pa.float32()
    assert found.to_pylist() == [pytest.approx(0.03), None, None, None, None, None, 0.0]


def test_a_size_that_is_no_angle_is_mapped_with_what_makes_it_one(tmp_path):
    path = tmp_path / "t.parquet"
    radius = pa.field("kron", pa.float32(), metadata={"unit": "pixel"})
    columns = [
        pa.array([1, 2]),
        pa.array([1.0, 2.0]),
        pa.array([3.0, 4.0]),
        pa.array([5.0, None], pa.float32()),
    ]
    fields = [
        pa.field("objID", pa.int64()),
        pa.field("ra", pa.float64()),
        pa.field("dec", pa.float64()),
        radius,
    ]
    pq.write_table(pa.table(columns, schema=pa.schema(fields)), path)
    with pytest.raises(CatalogError, match="is in 'pixel'"):
        open_catalog(config(path, MINIMAL | {"size": "kron"}), needs_size=True)
    assert read(path, MINIMAL | {"size": "0.39 * kron"})["size"].to_pylist() == [pytest.approx(1.95), None]
    with pytest.raises(CatalogError, match=r"catalog.columns.size is 'kronn'"):
        open_catalog(config(path, MINIMAL | {"size": "0.39*kronn"}), needs_size=True)


def test_cuts_leave_rows_out_and_keep_the_numbers_of_the_others(tmp_path):
    path = tmp_path / "t.parquet"
    count = 1000
    rng = np.random.default_rng(3)
    flux = rng.normal(10, 5, count).astype("f4")
    flux[5] = np.nan
    flag = pa.array([None if i == 7 else bool(i % 3) for i in range(count)])
    table = {"objID": np.arange(count) + 10, "ra": rng.uniform(0, 360, count), "dec": np.zeros(count)}
    pq.write_table(pa.table(table | {"flux": flux, "flag": flag}), path, row_group_size=100)
    where = "flux > 12.5 and flag = 0"
    expected = [i for i in range(count) if flux[i] > 12.5 and i % 3 == 0 and i != 7]
    with open_catalog(
        CatalogConfig(path=str(path), columns=MINIMAL, where=where), needs_size=False
    ) as reader:
        found = pa.Table.from_batches(list(reader.batches(64)))
        assert reader.row_count is None
        identity = reader.identity
    assert found["row"].to_pylist() == expected
    assert found["object_id"].to_pylist() == [i + 10 for i in expected]
    with open_catalog(CatalogConfig(path=str(path), columns=MINIMAL), needs_size=False) as reader:
        assert reader.identity != identity
    with (
        open_catalog(
            CatalogConfig(path=str(path), columns=MINIMAL, where="flux > 1e6"), needs_size=False
        ) as reader,
        pytest.raises(CatalogError, match="none of its 1000 rows passes"),
    ):
        list(reader.batches())


def test_cuts_that_cannot_be_made_are_refused(tmp_path):
    with pytest.raises(ValueError, match="'flux is big' is not a comparison"):
        CatalogConfig(path="t.parquet", columns=MINIMAL, where="ra > 1 and flux is big")
    path = write(tmp_path, "t.parquet")
    with pytest.raises(
        CatalogError, match=r"catalog.where names 'rra', which the table lacks .did you mean 'ra'"
    ):
        open_catalog(CatalogConfig(path=str(path), columns=MINIMAL, where="rra > 1"), needs_size=False)
