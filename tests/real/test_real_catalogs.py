"""Real tables: the five fields, a globular cluster, and one whose identifiers have lost digits."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gzscale.catalog.partition import partition_catalog
from gzscale.catalog.read import open_catalog
from gzscale.config import CatalogConfig
from gzscale.errors import CatalogError

pytestmark = pytest.mark.real
SDSS = {name: name for name in ("object_id", "ra", "dec", "run", "camcol", "field")} | {"size": "r90"}


@pytest.mark.parametrize("name", ["galaxies", "m2-sources"])
def test_every_object_is_in_one_partition(real_data, tmp_path, name):
    path = real_data / "sdss" / f"{name}.parquet"
    with open_catalog(CatalogConfig(path=str(path), columns=SDSS), needs_size=True) as reader:
        catalog = partition_catalog(reader, tmp_path, 500)
    expected = pq.read_table(path)
    assert catalog.planned == expected.num_rows
    assert catalog.quarantined == {}
    rows = pa.concat_tables([catalog.rows(partition) for partition, _ in catalog.partitions])
    assert max(count for _, count in catalog.partitions) <= 500
    assert rows.sort_by("object_id")["ra"].to_pylist() == expected.sort_by("object_id")["ra"].to_pylist()


def test_identifiers_that_have_lost_digits_are_refused_by_name(real_data):
    path = real_data / "tables" / "sdss-dr14-specz-10k.csv"
    columns = {"object_id": "objid", "ra": "ra", "dec": "dec"}
    with pytest.raises(CatalogError, match=r"'objid'.*lost digits.*as integers or as text"):
        open_catalog(CatalogConfig(path=str(path), columns=columns), needs_size=False)
