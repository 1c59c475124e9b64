"""One catalog of a HATS collection: its data files, then the metadata around them.

References
----------
.. [1] "HATS: A Standard for the Hierarchical Adaptive Tiling Scheme in the Virtual Observatory",
   IVOA Note, 2025-08-22.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from hats.catalog import CatalogType, PartitionInfo, TableProperties
from hats.io.parquet_metadata import write_per_partition_statistics_from_metadata
from hats.io.skymap import write_skymap
from hats.pixel_math import HealpixPixel
from numpy.typing import NDArray

import gzscale
from gzscale.catalog.pixels import Partition
from gzscale.catalog.schema import HEALPIX_COLUMN, HEALPIX_ORDER, Column, arrow_schema
from gzscale.catalog.shelf import ROW_GROUP_ROWS, Shelf
from gzscale.catalog.votable import votable_metadata

__all__ = ["SKYMAP_ORDER", "Member", "builder"]

#: Order of the count map: 13.7 arcmin cells, 6 MB in memory, whatever the catalog's size.
SKYMAP_ORDER = 8

_BASE_SORT = (HEALPIX_COLUMN, "object_id")


def builder() -> str:
    """Return what wrote a catalog, as ``hats_builder`` says it."""
    return f"gzscale {gzscale.__version__}"


class Member:
    """Writes one catalog, file by file, then what describes them.

    Parameters
    ----------
    shelf
        Where everything goes.
    root
        Storage key of the catalog's folder; its last part is the catalog's name.
    columns
        Columns of the data files.
    description
        One sentence, for the VOTable header and ``obs_description``.
    """

    def __init__(self, shelf: Shelf, root: str, columns: Sequence[Column], description: str) -> None:
        self.name = root.rpartition("/")[2]
        self.schema = arrow_schema(columns)
        self.rows = 0
        self.max_rows = 0
        self._shelf = shelf
        self._root = root
        self._description = description
        self._metadata = votable_metadata(columns, self.name, description)
        self._footers: list[pq.FileMetaData] = []

    def write(self, path: str, groups: Iterable[pa.Table], sorted_by: Sequence[str] = _BASE_SORT) -> None:
        """Write a data file below ``dataset/``, one row group for each table."""
        footer = self._shelf.put_parquet(
            f"{self._root}/dataset/{path}", groups, self.schema, self._metadata, sorted_by
        )
        footer.set_file_path(path)
        self._footers.append(footer)
        self.rows += footer.num_rows
        self.max_rows = max(self.max_rows, footer.num_rows)

    def write_table(self, path: str, table: pa.Table, sorted_by: Sequence[str] = _BASE_SORT) -> None:
        """Write a data file from one table, in row groups of the usual size."""
        starts = range(0, table.num_rows, ROW_GROUP_ROWS)
        self.write(path, (table.slice(start, ROW_GROUP_ROWS) for start in starts), sorted_by)

    def finish(self, kind: str, **properties: Any) -> None:
        """Write the dataset's own metadata and ``hats.properties``.

        Parameters
        ----------
        kind
            ``object``, ``margin`` or ``index``.
        **properties
            Further fields of ``hats.catalog.TableProperties``.
        """
        with tempfile.TemporaryDirectory(prefix="gzscale-hats-") as name:
            folder = Path(name)
            self._write_dataset_metadata(folder / "dataset")
            if kind != "index" and self._footers:
                write_per_partition_statistics_from_metadata(folder)
            values = {
                "catalog_name": self.name,
                "catalog_type": CatalogType(kind),
                "total_rows": self.rows,
                "hats_estsize": self._shelf.size_below(self._root) // 1024,
                "hats_builder": builder(),
                "hats_version": "v1.0",
                "obs_description": self._description,
                **properties,
            }
            TableProperties.model_validate(values).to_properties_file(folder)
            self._put_folder(folder)

    def finish_sky(self, kind: str, pixels: Sequence[Partition], **properties: Any) -> None:
        """Write the metadata of a catalog that is partitioned on the sky; arguments as `finish`."""
        info = PartitionInfo([HealpixPixel(pixel.order, pixel.pixel) for pixel in pixels])
        with tempfile.TemporaryDirectory(prefix="gzscale-hats-") as name:
            info.write_to_file(Path(name, "partition_info.csv"))
            self._put_folder(Path(name))
        order = {"hats_order": info.get_highest_order()} if pixels else {}
        self.finish(
            kind,
            ra_column="ra",
            dec_column="dec",
            healpix_column=HEALPIX_COLUMN,
            healpix_order=HEALPIX_ORDER,
            default_columns=[name for name in self.schema.names if name != HEALPIX_COLUMN],
            hats_max_rows=self.max_rows,
            moc_sky_fraction=float(f"{info.calculate_fractional_coverage():.3g}"),
            **order,
            **properties,
        )

    def write_skymap(self, counts: NDArray[np.int64]) -> None:
        """Write the number of rows in each pixel of the sky, shape (12 * 4**order,), nested.

        ``point_map.fits`` is the same file under its older name, from which hats reads the
        catalog's coverage.
        """
        with tempfile.TemporaryDirectory(prefix="gzscale-hats-") as name:
            write_skymap(counts, name)
            data = Path(name, "skymap.fits").read_bytes()
        for file in ("skymap.fits", "point_map.fits"):
            self._shelf.put(f"{self._root}/{file}", data)

    def write_thumbnail(self, first_rows: Sequence[pa.Table]) -> None:
        """Write ``data_thumbnail.parquet``: the first row of each data file."""
        table = pa.concat_tables([self.schema.empty_table(), *first_rows]).combine_chunks()
        self._shelf.put_parquet(
            f"{self._root}/data_thumbnail.parquet", [table], self.schema, self._metadata, _BASE_SORT
        )

    def _write_dataset_metadata(self, folder: Path) -> None:
        folder.mkdir()
        schema = self.schema.with_metadata(self._metadata)
        pq.write_metadata(schema, folder / "_common_metadata")
        pq.write_metadata(schema, folder / "_metadata", metadata_collector=self._footers)

    def _put_folder(self, folder: Path) -> None:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                self._shelf.put(f"{self._root}/{path.relative_to(folder).as_posix()}", path.read_bytes())
