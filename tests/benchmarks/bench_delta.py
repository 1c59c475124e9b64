"""A second night of 500 changed and 200 new objects after a Rubin night: what works, how long, the union.

    python tests/benchmarks/bench_delta.py NIGHT [--json OUT]

NIGHT is the configuration of a simulated Rubin sky (``gzscale simulate --survey rubin``). The first night is
given all but 200 objects, the second those and 500 that are larger by a fifth, all in one stretch of sky,
as one night's visits are. The union is checked with pandas against the two catalogs.
"""

import argparse
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from gzscale.config import load_config
from gzscale.night.ledger import Ledger
from gzscale.night.planned import read_plan
from gzscale.storage import open_storage

CHANGED, NEW = 500, 200


def split(whole):
    """Part objects, sorted by right ascension, into the first night's and the second's changed and new."""
    near = whole.slice(0, 4 * (CHANGED + NEW))
    picked = near.take(np.random.default_rng(1).permutation(near.num_rows)[: CHANGED + NEW])
    new = picked.slice(0, NEW)
    first = whole.filter(pc.invert(pc.is_in(whole["objectId"], new["objectId"])))
    changed = picked.slice(NEW)
    at = changed.schema.get_field_index("r_kronRad")
    radius = pc.multiply(changed["r_kronRad"], pa.scalar(1.2, pa.float32()))
    return first, changed.set_column(at, changed.field(at), radius), new


def run(config, output, path, mode):
    """Run a night; return its seconds, when it began, and its record."""
    given = [f"catalog.path={path.resolve()}", f"catalog.mode={mode}"]
    command = [sys.executable, "-m", "gzscale.cli", "night", str(config), "--output", str(output)]
    began = time.time()
    subprocess.run([*command, *(word for one in given for word in ("--set", one))], check=True)
    return time.time() - began, began, Ledger(open_storage(str(output))).last_night()


def worked(output, record, began):
    """Count the partitions of a night, and those that were cut in it."""
    storage = open_storage(str(output))
    ledger = Ledger(storage)
    spans = [ledger.read("cut", item.partition).span for item in read_plan(storage, record.night).partitions]
    return len(spans), sum(begin >= began for begin, _ in spans)


def released(output, record):
    """Read the morphology catalog with pandas, by object."""
    folder = Path(output, "releases", record.release, "morphology", "morphology", "dataset")
    return (
        pd.read_parquet(folder)
        .drop(columns=["Norder", "Dir", "Npix"], errors="ignore")
        .set_index("object_id")
    )


def check(before, after, changed, new):
    """Compare two releases: what was not given is as it was, what was is as given, nothing is lost."""
    expected = set(before.index) | set(new)
    assert set(after.index) <= expected
    kept = before.index.difference(changed)
    pd.testing.assert_frame_equal(after.loc[kept], before.loc[kept])
    both = after.index.intersection(before.index).intersection(changed)
    differ = (after.loc[both].fillna(-1) != before.loc[both].fillna(-1)).any(axis=1)
    return {
        "rows": len(after),
        "given": len(expected),
        "new": len(after.index.intersection(new)),
        "changed": int(differ.sum()),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("night", type=Path)
    parser.add_argument("--objects", type=int, help="of the first, by right ascension; by default all")
    parser.add_argument("--folder", type=Path, default=Path("bench/delta"))
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    shutil.rmtree(given.folder, ignore_errors=True)
    given.folder.mkdir(parents=True)
    whole = pq.read_table(load_config(str(given.night)).catalog.path)
    whole = whole.take(pc.sort_indices(whole["coord_ra"])).slice(0, given.objects)
    first, changed, new = split(whole)
    paths = [given.folder / "first.parquet", given.folder / "second.parquet"]
    pq.write_table(first, paths[0])
    pq.write_table(pa.concat_tables([changed, new]), paths[1])
    output = given.folder / "night"
    took, _, record = run(given.night, output, paths[0], "full")
    before = released(output, record)
    again, later, second = run(given.night, output, paths[1], "delta")
    partitions, cut = worked(output, second, later)
    ids = (table["objectId"].to_pylist() for table in (changed, new))
    union = check(before, released(output, second), *ids)
    result = {
        "first_seconds": round(took, 1),
        "second_seconds": round(again, 1),
        "partitions": partitions,
        "cut_again": cut,
        "changes": second.changes,
        "images_opened": [record.images["opened"], second.images["opened"]],
        "release": union,
    }
    print(json.dumps(result, indent=1))
    if given.json:
        given.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
