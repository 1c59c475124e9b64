"""Seconds to release a catalog as a HATS collection, over plain pyarrow's of the one table.

    python tests/benchmarks/bench_release.py [--rows N] [--partitions N] [--floats N] [--json OUT]

Both write the same rows to the same disk in the same process, in turns; the release
reads them from the night's prediction files, one a partition, and writes the catalog,
its margin cache, its id index and all metadata, hashed. Goal: at most 3.5 times.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import cdshealpix
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gzscale.catalog.hats import write_collection
from gzscale.catalog.pixels import Partition
from gzscale.catalog.schema import Column, arrow_schema, release_columns
from gzscale.config import ReleaseConfig
from gzscale.storage import open_storage

ORDER = 6


def make(rows, partitions, floats):
    """A contiguous patch of sky: each partition one pixel of order 6 with an equal share of the rows."""
    rng = np.random.default_rng(0)
    task = [Column(f"answer_{i}", "float32", "", "stat.probability", "A fraction") for i in range(floats)]
    columns = release_columns(task)
    schema = arrow_schema(columns)
    bounds = np.linspace(0, rows, partitions + 1).astype(np.int64)
    tables = {}
    for number in range(partitions):
        n = int(bounds[number + 1] - bounds[number])
        shift = 2 * (29 - ORDER)
        healpix = np.sort((number << shift) + rng.choice(1 << 40, n, replace=False) * (1 << shift - 40))
        lon, lat = cdshealpix.healpix_to_lonlat(healpix.astype(np.uint64), 29)
        ids = 1237661382772195474 + rng.permutation(n) + bounds[number]
        values = [healpix, ids, lon.deg, lat.deg, *rng.random((floats + 1, n), dtype=np.float32)]
        tables[Partition(ORDER, number)] = pa.table([pa.array(v) for v in values], schema=schema)
    return columns, tables


def main():
    """Measure in turns, print, and write the JSON where it is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--partitions", type=int, default=490)
    parser.add_argument("--floats", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    columns, tables = make(options.rows, options.partitions, options.floats)
    counts = [(name, table.num_rows) for name, table in tables.items()]
    times = {"plain": [], "release": [], "release_from_memory": []}
    cpu = {name: [] for name in times}
    with tempfile.TemporaryDirectory(prefix="bench-release-") as folder:
        for name, table in tables.items():
            path = Path(folder, "predictions", f"{name.path}.parquet")
            path.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(table, path, compression="zstd", use_dictionary=False)
        whole = pa.concat_tables(tables.values()).combine_chunks()

        def read(partition):
            return pq.read_table(Path(folder, "predictions", f"{partition.path}.parquet"), partitioning=None)

        def write(source):
            destination = open_storage(Path(folder, "out"))
            write_collection(source, counts, columns, destination, "bench", "bench", ReleaseConfig())

        runs = {
            "plain": lambda: pq.write_table(whole, Path(folder, "plain.parquet")),
            "release": lambda: write(read),
            "release_from_memory": lambda: write(tables.__getitem__),
        }
        for _ in range(options.rounds):
            for name, run in runs.items():
                start, start_cpu = time.perf_counter(), time.process_time()
                run()
                times[name].append(time.perf_counter() - start)
                cpu[name].append(time.process_time() - start_cpu)
    seconds = {name: statistics.median(values) for name, values in times.items()}
    work = {name: statistics.median(values) for name, values in cpu.items()}
    result = {
        "rows": options.rows,
        "float_columns": options.floats,
        "partitions": options.partitions,
        "plain_seconds": round(seconds["plain"], 3),
        "release_seconds": round(seconds["release"], 3),
        "release_from_memory_seconds": round(seconds["release_from_memory"], 3),
        "ratio": round(seconds["release"] / seconds["plain"], 2),
        "ratio_from_memory": round(seconds["release_from_memory"] / seconds["plain"], 2),
        "ratio_of_cpu_time": round(work["release"] / work["plain"], 2),
        "goal": 3.5,
    }
    print(json.dumps(result, indent=1))
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
