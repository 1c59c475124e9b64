"""Every benchmark, one after the other; figures also as JSON: ``make bench``, ``make bench-long``."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

BENCHMARKS = ("frames", "stamps", "engine", "gpu", "labels", "folder", "release", "night", "coadds", "plan")
#: Those that take hours on two cores, and want a machine that does nothing else.
LONG = ("scaling", "millions", "kill_matrix")


def script(name: str) -> Path:
    """Return the path of a benchmark."""
    folder = Path(__file__).parent
    found = [path for path in (folder / f"bench_{name}.py", folder / f"{name}.py") if path.exists()]
    if not found:
        raise SystemExit(f"no benchmark {name!r}: {', '.join((*BENCHMARKS, *LONG))}")
    return found[0]


def main(arguments: list[str]) -> int:
    """Run them; a benchmark that fails does not keep the others from running."""
    folder = Path("bench")
    folder.mkdir(exist_ok=True)
    failed = []
    for name in LONG if arguments == ["--long"] else arguments or BENCHMARKS:
        print(f"\n== {name}", flush=True)
        command = [sys.executable, str(script(name)), "--json", str(folder / f"{name}.json")]
        if subprocess.run(command, check=False).returncode:
            failed.append(name)
    if not arguments:
        print(f"\nNot run, for they take hours: {', '.join(LONG)} (make bench-long)")
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return len(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
