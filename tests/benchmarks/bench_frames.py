"""CPU seconds of cutting, a frame, against bare bz2 of the same files.

Five complete real fields where ``GZSCALE_REAL_DATA`` names them, else one simulated field.
Run: ``python tests/benchmarks/bench_frames.py [--json OUT]``.
"""

from __future__ import annotations

import argparse
import bz2
import json
import os
import statistics
import tempfile
import time
from pathlib import Path

import pyarrow.parquet as pq

from gzscale.catalog.partition import partition_catalog
from gzscale.catalog.read import open_catalog
from gzscale.config import CatalogConfig, GeometryConfig
from gzscale.cutouts.ingest import cut_partition
from gzscale.storage import open_storage
from gzscale.surveys.sdss import SdssSurvey

GEOMETRY = {"sky": GeometryConfig(size=64, scale=0.396)}
COLUMNS = {
    "object_id": "object_id",
    "ra": "ra",
    "dec": "dec",
    "run": "run",
    "camcol": "camcol",
    "field": "field",
}


def fields(folder: Path) -> tuple[Path, Path]:
    """Return an image tree and a catalog of objects in fields whose five bands are all there."""
    real = Path(os.environ.get("GZSCALE_REAL_DATA", "none"), "sdss")
    catalog = folder / "catalog.parquet"
    if not real.is_dir():
        from gzscale.sky.write import write_sky

        write_sky(str(folder / "sky"), "sdss", 250, 1)
        return folder / "sky" / "images", folder / "sky" / "catalog.parquet"
    table = pq.read_table(real / "galaxies.parquet")
    pq.write_table(table.filter([run != 2188 for run in table["run"].to_pylist()]), catalog)
    return real, catalog


def cpu(function) -> float:
    """CPU seconds of this process, all threads, that a call takes."""
    start = time.process_time()
    function()
    return time.process_time() - start


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        root, catalog_path = fields(folder)
        survey = SdssSurvey(str(root), "ugriz")
        with open_catalog(CatalogConfig(path=str(catalog_path), columns=COLUMNS), False) as reader:
            catalog = partition_catalog(reader, folder / "parts", 2048)
        parts = [catalog.rows(partition) for partition, _ in catalog.partitions]
        objects = sum(part.num_rows for part in parts)
        output = open_storage(folder / "out")
        opened: list[str] = []

        def cut() -> None:
            opened.clear()
            for number, rows in enumerate(parts):
                result = cut_partition(survey, rows, GEOMETRY, output, f"cutouts/{number}.zarr")
                opened.extend(image.path for image in result.images if image.size)

        def decompress() -> None:
            for path in opened:
                bz2.decompress((root / path).read_bytes())

        cut()  # compiles the kernels
        pairs = [(cpu(cut), cpu(decompress)) for _ in range(options.rounds)]
    ours, bare = (statistics.median(column) for column in zip(*pairs, strict=True))
    ratio = statistics.median(one / other for one, other in pairs)
    figures = {
        "objects": objects,
        "frames": len(opened),
        "cpu_ms_per_object": 1000 * ours / objects,
        "bz2_cpu_ms_per_object": 1000 * bare / objects,
        "times_bz2": ratio,
        "goal_times_bz2": 1.2,
    }
    print(
        f"{objects} objects, {len(opened)} frames, 5 bands x 64 px, resampled and stored, CPU of all threads"
    )
    print(f"  cut     {figures['cpu_ms_per_object']:8.1f} ms an object")
    print(f"  bz2     {figures['bz2_cpu_ms_per_object']:8.1f} ms an object")
    print(f"  ratio   {ratio:8.2f} (goal 1.2)")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
