"""HATS catalogs on a web server: the same rows as from the folder, or an error that says what is missing."""

import threading
import time

import lsdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from faults import Fault, files
from released_sky import part, release, whole_sky

from gzscale.catalog.read import open_catalog
from gzscale.config import CatalogConfig
from gzscale.errors import CatalogError, StorageError

COLUMNS = {"object_id": "object_id", "ra": "ra", "dec": "dec"}
ROWS = 3000


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    """A collection of our own release writer; its table is `morphology`."""
    path, _ = release(part(whole_sky(ROWS), 2), tmp_path_factory.mktemp("sky"), max_rows=100, margin=600)
    return path


@pytest.fixture
def tree(released):
    """What a web server would serve of it, to be spoilt by a test."""
    return tree_of(released, "site/coll")


def tree_of(folder, name):
    found = (file for file in folder.rglob("*") if file.is_file())
    return {f"{name}/{file.relative_to(folder)}": file.read_bytes() for file in found}


def reader(path, kind="auto"):
    return open_catalog(CatalogConfig(path=str(path), columns=COLUMNS, format=kind), needs_size=False)


def read(path, kind="auto"):
    with reader(path, kind) as opened:
        assert opened.format == "hats"
        assert opened.row_count == ROWS
        return pa.Table.from_batches(opened.batches(64), opened.schema)


@pytest.mark.parametrize(("ending", "member"), [("", ""), ("/", ""), ("/morphology", "morphology")])
@pytest.mark.parametrize("kind", ["auto", "hats"])
def test_rows_and_their_order_are_those_of_the_folder(serve, released, tree, ending, member, kind):
    server = serve(files(tree))
    local = read(released / member)
    assert local.num_rows == ROWS
    assert read(f"{server.url}/site/coll{ending}", kind).equals(local)


@pytest.mark.parametrize("properties", ["hats.properties", "properties"])
def test_what_lsdb_wrote_with_another_suffix(serve, tmp_path, properties):
    rng = np.random.default_rng(5)
    frame = pd.DataFrame(
        {
            "object_id": np.arange(ROWS) + 2**60,
            "ra": rng.uniform(0, 360, ROWS),
            "dec": np.degrees(np.arcsin(rng.uniform(-1, 1, ROWS))),
        }
    )
    made = lsdb.from_dataframe(
        frame, ra_column="ra", dec_column="dec", partition_rows=200, margin_threshold=None
    )
    made.to_hats(tmp_path / "made", catalog_name="made", as_collection=False, npix_suffix=".parq")
    (tmp_path / "made/properties").unlink(missing_ok=True)
    (tmp_path / "made/hats.properties").rename(tmp_path / "made" / properties)
    served = tree_of(tmp_path / "made", "made")
    assert any(name.endswith(".parq") for name in served)
    found = read(f"{serve(files(served)).url}/made")
    assert found.equals(read(tmp_path / "made"))
    assert sorted(found["object_id"].to_pylist()) == frame["object_id"].tolist()


def test_pixels_of_high_orders_are_in_the_folder_of_their_number(serve, tree):
    """Numbers beyond 10,000; columns in another order, more of them, and a row that is repeated."""
    content = tree[a_data_file(tree)]
    served = {
        "c/hats.properties": b"hats_nrows=9\n",
        "c/partition_info.csv": b"Npix,Dir,Norder,num_rows\n10000,10000,6,1\n9999,0,6,1\n9999,0,6,1\n",
        "c/dataset/Norder=6/Dir=0/Npix=9999.parquet": content,
        "c/dataset/Norder=6/Dir=10000/Npix=10000.parquet": content,
    }
    server = serve(files(served))
    with reader(f"{server.url}/c") as opened:
        rows = sum(batch.num_rows for batch in opened.batches())
    assert rows == 2 * pq.read_metadata(pa.BufferReader(content)).num_rows
    heads = sorted(path for method, path in server.requests if method == "HEAD")
    assert heads == [f"/{name}" for name in served if "Npix=" in name]


def test_only_what_is_needed_is_asked_for(serve, tree):
    server = serve(files(tree))
    with reader(f"{server.url}/site/coll"):
        asked = [path.removeprefix("/site/coll/") for method, path in server.requests if method == "GET"]
        heads = [path for method, path in server.requests if method == "HEAD"]
    assert asked[:3] == [
        "collection.properties",
        "morphology/hats.properties",
        "morphology/partition_info.csv",
    ]
    assert len(asked) == 4  # of the data, the first file alone is needed to check the columns
    assert len(heads) == tree["site/coll/morphology/partition_info.csv"].count(b"\n") - 1 > 12


@pytest.mark.parametrize("name", ["t.csv", "t.parquet", "t.fits.gz", "t.vot", "query?format=csv"])
def test_no_request_more_for_the_name_of_a_file(serve, name):
    server = serve(files({}))
    with pytest.raises(CatalogError, match="no such catalog"):
        reader(f"{server.url}/{name}")
    assert [method for method, _ in server.requests] == ["HEAD"]


@pytest.mark.parametrize("elsewhere", [404, 403, 200])
def test_a_file_without_an_ending_is_still_read(serve, elsewhere):
    """Also from a server that answers with the file, whatever stands behind its name."""
    table = b"object_id,ra,dec\n1,2,3\n"

    def answer(method, path, headers, body):
        return (200 if path == "/download/17" else elsewhere), {}, table

    server = serve(answer)
    with pytest.raises(CatalogError, match=r"set catalog\.format"):
        reader(f"{server.url}/download/17")
    with reader(f"{server.url}/download/17", "csv") as opened:
        assert (opened.format, opened.row_count) == ("csv", None)


def test_requests_run_beside_each_other_and_are_bounded(serve, tree, monkeypatch):
    monkeypatch.setattr("gzscale.catalog.hats_tree.REQUESTS", 4)
    plain, lock, under_way, most = files(tree), threading.Lock(), set(), []

    def answer(method, path, headers, body):
        if method == "HEAD":
            with lock:
                under_way.add(path)
                most.append(len(under_way))
            time.sleep(0.02)
            with lock:
                under_way.remove(path)
        return plain(method, path, headers, body)

    with reader(f"{serve(answer).url}/site/coll"):
        assert 2 <= max(most) <= 4


# What can be wrong ------------------------------------------------------------------------------


def spoilt(serve, tree, kind="auto", path="site/coll"):
    server = serve(files(tree))
    with pytest.raises(CatalogError) as caught:
        reader(f"{server.url}/{path}", kind)
    return str(caught.value).replace(server.url, "URL")


def a_data_file(tree):
    return sorted(name for name in tree if "morphology/dataset/Norder=" in name)[-1]


def test_a_missing_data_file_is_named(serve, tree):
    name = a_data_file(tree)
    del tree[name]
    assert f"URL/{name}: missing" in (told := spoilt(serve, tree))
    assert "publish it again" in told


def test_an_empty_data_file_is_named(serve, tree):
    name = a_data_file(tree)
    tree[name] = b""
    assert f"URL/{name}: the file has no bytes" in spoilt(serve, tree)


def test_a_refused_data_file_is_named(serve, tree):
    server = serve(files(tree))
    server.fail(Fault("status", 403, method="HEAD"))
    with pytest.raises(CatalogError, match=r"Npix=\d+\.parquet: missing, or refused"):
        reader(f"{server.url}/site/coll")


def test_trouble_of_the_server_is_no_missing_catalog(serve, tree, quick_retries):
    server = serve(files(tree))
    server.fail(*[Fault("status", 503, path="hats.properties")] * 10)
    with pytest.raises(StorageError, match=r"hats\.properties: HTTP 503"):
        reader(f"{server.url}/site/coll")
    server.fail(Fault("status", 503, path="hats.properties"), Fault("status", 503, method="HEAD"))
    with reader(f"{server.url}/site/coll") as opened:
        assert opened.row_count == ROWS


def test_no_partition_info(serve, tree):
    del tree["site/coll/morphology/partition_info.csv"]
    told = spoilt(serve, tree)
    assert "URL/site/coll/morphology/partition_info.csv: missing" in told
    assert "download the catalog" in told


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"<!DOCTYPE html><html>Sign in</html>", "an HTML page"),
        (b"", "no table of the integers"),
        (b"Norder,Npix\n", "names no pixels; the catalog has 0 rows"),
        (b"Norder,pixel\n1,2\n", "no table of the integers"),
        (b"Norder,Npix\n1,two\n", "no table of the integers"),
        (b"Norder,Npix\n1,\n", "no table of the integers"),
        (b"Norder,Npix\n0,1\n0,12\n", "row 1 has Norder 0 and Npix 12"),
        (b"Norder,Npix\n30,0\n", "no HEALPix pixel"),
        (b"Norder,Npix\n-1,0\n", "no HEALPix pixel"),
    ],
)
def test_partition_info_that_is_none(serve, tree, content, words):
    tree["site/coll/morphology/partition_info.csv"] = content
    told = spoilt(serve, tree)
    assert told.startswith("URL/site/coll/morphology/partition_info.csv: ")
    assert words in told


def test_pixels_that_are_folders(serve, tree):
    tree["site/coll/morphology/hats.properties"] += b"\nhats_npix_suffix=/\n"
    told = spoilt(serve, tree)
    assert told.startswith("URL/site/coll/morphology/: each pixel is a folder of files")
    assert "download the catalog" in told


def test_a_collection_without_its_table(serve, tree):
    only = {name: content for name, content in tree.items() if name.endswith("collection.properties")}
    assert "no morphology/hats.properties in it" in spoilt(serve, only)
    only["site/coll/collection.properties"] = b"hats_primary_table_url=https\\://other.org/t\n"
    assert "set catalog.path to https://other.org/t" in spoilt(serve, only)


@pytest.mark.parametrize(("kind", "path"), [("auto", "site/coll/"), ("hats", "site/coll")])
def test_a_folder_that_is_no_hats_catalog(serve, kind, path):
    told = spoilt(serve, {"site/coll/a.parquet": b"PAR1"}, kind, path)
    assert f"URL/{path}: no HATS catalog" in told
    assert "name the folder that holds hats.properties" in told


@pytest.mark.parametrize(("kind", "path"), [("auto", "site/coll/"), ("hats", "site/coll")])
def test_an_html_page_for_every_name(serve, kind, path):
    server = serve(lambda *_: (200, {}, b"<html>Sign in</html>"))
    with pytest.raises(
        CatalogError, match=f"{server.url}/site/coll/properties is an HTML page.*check the URL"
    ):
        reader(f"{server.url}/{path}", kind)
    with pytest.raises(CatalogError, match=f"{server.url}/site/coll: an HTML page"):
        reader(f"{server.url}/site/coll")


def test_a_catalog_of_no_rows(serve, tree):
    for name in [name for name in tree if "morphology/dataset/Norder=" in name]:
        sink = pa.BufferOutputStream()
        pq.write_table(pq.read_table(pa.BufferReader(tree[name]))[:0], sink)
        tree[name] = sink.getvalue().to_pybytes()
    assert "URL/site/coll: the table has 0 rows" in spoilt(serve, tree)
