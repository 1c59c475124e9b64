"""Seconds and memory of planning a million dense rows from a Butler, and images opened for each distinct one.

    python tests/benchmarks/bench_plan.py [--objects N] [--per-patch N] [--folder F] [--json OUT]

The registry holds every patch and dataset in six bands; the coadds are empty files, since a plan opens none.
Objects lie evenly on the patches. Goal: a minute, 1 GiB, 1.3 times.
"""

import argparse
import json
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from gzscale.sky.rubin_camera import BANDS
from gzscale.sky.rubin_grid import SKYMAP, tracts_of
from gzscale.sky.rubin_repository import COLLECTION, DATASET_TYPE, coadd_path, make_repository


def make_registry(root, tracts):
    for tract in tracts:
        for patch in tract.patches:
            for band in BANDS:
                path = root / coadd_path(tract.number, patch, band)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
    make_repository(str(root), tracts)


def write_catalog(path, tracts, objects):
    rng = np.random.default_rng(1)
    shares = np.array([len(tract.patches) for tract in tracts], float)
    counts = rng.multinomial(objects, shares / shares.sum())
    places = []
    for tract, count in zip(tracts, counts, strict=True):
        x0, y0, x1, y1 = tract.owned()
        x, y = rng.uniform(x0, x1, count), rng.uniform(y0, y1, count)
        places.append(np.stack(tract.wcs().all_pix2world(x, y, 0)))
    ra, dec = np.concatenate(places, axis=1)
    order = rng.permutation(objects)
    columns = {
        "objectId": np.arange(objects),
        "coord_ra": ra[order],
        "coord_dec": dec[order],
        "r_kronRad": rng.uniform(4, 20, objects).astype(np.float32),
        "ebv": np.zeros(objects),
    }
    pq.write_table(pa.table(columns), path, row_group_size=100_000)


def write_night(folder):
    columns = {"object_id": "objectId", "ra": "coord_ra", "dec": "coord_dec", "ebv": "ebv"}
    options = {"dataset_type": DATASET_TYPE, "collections": [COLLECTION], "skymap": SKYMAP}
    night = {
        "survey": {"kind": "rubin", "root": "repository", "bands": BANDS, "options": options},
        "catalog": {"path": "catalog.parquet", "columns": {**columns, "size": "0.39 * r_kronRad"}},
        "geometries": {"galaxy": {"size": 96, "scale": "0.08 * size"}, "sky": {"size": 64, "scale": 0.2}},
        "tasks": {
            "morphology": {"geometry": "galaxy", "filters": "sdss"},
            "lenses": {"geometry": "sky"},
            "redshifts": {"geometry": "sky"},
        },
        "output": "night",
    }
    (folder / "night.yaml").write_text(yaml.safe_dump(night))
    return folder / "night.yaml"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--objects", type=int, default=1_000_000)
    parser.add_argument("--per-patch", type=int, default=400)
    parser.add_argument("--folder", type=Path, default=Path("bench/plan"))
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    shutil.rmtree(given.folder, ignore_errors=True)
    given.folder.mkdir(parents=True)
    tracts = tracts_of(-(-given.objects // given.per_patch))
    make_registry(given.folder / "repository", tracts)
    write_catalog(given.folder / "catalog.parquet", tracts, given.objects)
    config = write_night(given.folder)
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "gzscale.cli", "plan", str(config)], check=True, capture_output=True, text=True
    )
    took, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    said = dict(line.split(maxsplit=1) for line in done.stdout.splitlines() if line.startswith("images "))
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    result = {
        "objects": given.objects,
        "patches": sum(len(tract.patches) for tract in tracts),
        "seconds": round(took, 1),
        "cpu_seconds": round(cpu, 1),
        "peak_bytes": after.ru_maxrss * 1024,
        "images": said["images"],
        "goal": "60 s, 1 GiB, 1.3 times",
    }
    print(
        f"{given.objects} objects on {result['patches']} patches: planned in {took:.1f} s ({cpu:.1f} s CPU), "
        f"{result['peak_bytes'] / 2**30:.2f} GiB; images {said['images']} (goal {result['goal']})"
    )
    if given.json:
        given.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
