"""Every benchmark, one after the other; figures also as JSON in ``bench/``: ``make bench``."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

BENCHMARKS = ("frames", "stamps", "engine", "labels", "folder", "release", "night", "coadds")


def main() -> int:
    """Run them; a benchmark that fails does not keep the others from running."""
    folder = Path("bench")
    folder.mkdir(exist_ok=True)
    failed = []
    for name in sys.argv[1:] or BENCHMARKS:
        print(f"\n== {name}", flush=True)
        script = Path(__file__).with_name(f"bench_{name}.py")
        done = subprocess.run(
            [sys.executable, str(script), "--json", str(folder / f"{name}.json")], check=False
        )
        if done.returncode:
            failed.append(name)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return len(failed)


if __name__ == "__main__":
    sys.exit(main())
