"""Seconds and memory of reading label tables of the full published format and size.

Galaxy Zoo 2's own layout (identifier, position, and six columns of each answer: 226 in all) and Kaggle's
(``GalaxyID`` and 37), both as CSV with random votes that are consistent down the tree. Memory is the peak
of a process of its own that reads the table, less that of one that only imports the reader.
Run: ``python tests/benchmarks/bench_labels.py [--rows N] [--json OUT]``.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
from numpy.typing import NDArray

from gzscale.models.votes import ANSWERS, KAGGLE_NAMES, QUESTIONS, asked, to_joint

VOLUNTEERS = 44
#: Rows that are made and written at a time.
BLOCK = 10_000
_READ = """
import resource, sys, time
from gzscale.training.label_tables import read_labels
start = time.perf_counter()
labels = read_labels(sys.argv[1]) if len(sys.argv) > 1 else ()
print(len(labels), time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000)
"""


def draw(rows: int, random: np.random.Generator) -> NDArray[np.float64]:
    """Draw conditional fractions, shape (rows, 37), rounded as the tables are."""
    values = np.empty((rows, len(ANSWERS)))
    for question in QUESTIONS:
        values[:, question.answers] = random.dirichlet([0.6] * (question.stop - question.start), rows)
    return values


def galaxy_zoo_block(first: int, conditional: NDArray[np.float64]) -> pa.Table:
    """Return rows in the columns of Willett et al. 2013, Table 5."""
    rows = len(conditional)
    shares = asked(to_joint(conditional))
    number = np.arange(first, first + rows)
    columns: dict[str, NDArray] = {
        "objid": 587722952230174996 + number,
        "sample": np.full(rows, "original"),
        "ra": number % 360_000 / 1000,
        "dec": number % 90_000 / 1000,
    }
    for index, question in enumerate(QUESTIONS):
        for position in range(question.start, question.stop):
            name, values = ANSWERS[position], conditional[:, position].round(3)
            counts = np.rint(VOLUNTEERS * shares[:, index] * values).astype(int)
            columns |= {f"{name}_count": counts, f"{name}_weight": counts}
            columns |= {f"{name}_{kind}": values for kind in ("fraction", "weighted_fraction", "debiased")}
            columns[f"{name}_flag"] = (values > 0.8).astype(int)
    return pa.table(columns)


def kaggle_block(first: int, conditional: NDArray[np.float64]) -> pa.Table:
    """Return rows in Kaggle's columns."""
    joint = to_joint(conditional).round(6)
    fractions = dict(zip(KAGGLE_NAMES, joint.T, strict=True))
    return pa.table({"GalaxyID": np.arange(first, first + len(joint)) + 100_008, **fractions})


def write(path: Path, rows: int, block: object) -> None:
    """Write a table of random votes."""
    assert callable(block)
    random = np.random.default_rng(1)
    writer = None
    for first in range(0, rows, BLOCK):
        table = block(first, draw(min(BLOCK, rows - first), random))
        writer = writer or pa.csv.CSVWriter(path, table.schema)
        writer.write_table(table)
    if writer is not None:
        writer.close()


def read(*arguments: str) -> tuple[int, float, float]:
    """Read a table in a process of its own; return rows, seconds and its peak memory in MB."""
    done = subprocess.run(
        [sys.executable, "-c", _READ, *arguments], check=True, capture_output=True, text=True
    )
    rows, seconds, peak = done.stdout.split()
    return int(rows), float(seconds), float(peak)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=300_000)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    idle = read()[2]
    figures: dict[str, float] = {"rows": options.rows}
    for name, block in (("galaxy_zoo_2", galaxy_zoo_block), ("kaggle", kaggle_block)):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"{name}.csv"
            write(path, options.rows, block)
            size = path.stat().st_size
            rows, seconds, peak = read(str(path))
        assert rows == options.rows
        figures |= {
            f"{name}_file_mb": round(size / 1e6),
            f"{name}_seconds": round(seconds, 1),
            f"{name}_peak_mb": round(peak - idle),
        }
        print(f"{name}: {rows} rows, {size / 1e6:.0f} MB of CSV: {seconds:.1f} s, {peak - idle:.0f} MB")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
