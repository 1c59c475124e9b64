"""Runs the steps of the images' Dockerfiles where there is no container engine, and says what it could not.

Each stage gets a fresh root: this machine's files below a layer that takes every change (overlay), Python
where the base image has it, and a change of root into it. COPY takes what `.dockerignore` lets through; RUN
lines run as they stand, with the stage's ENV, ARG, WORKDIR and USER; the last stage's CMD is tried, and the
package of each extra imported. Nothing is left behind. It needs root (mount, chroot). What differs from a
build: the base image is not pulled, so that Debian and Python are this machine's, and the package index is
the one that pip's settings name here. Run:
``python tests/benchmarks/build_steps.py deploy/Dockerfile [--build-arg NAME=VALUE] [--resolve]``.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from dockerfile import Stage, Step, assignments, expand, read_dockerfile

HOME = Path(__file__).resolve().parents[2]
#: Modules that the extras bring, imported in the finished image.
IMPORTS = (
    "optuna sklearn galsim speclite lsst.daf.butler psycopg2 dask_jobqueue dask_kubernetes prefect_kubernetes"
)
#: Seconds that one RUN line may take.
LIMIT = 1800.0
WIDTH = 78


@dataclass
class Row:
    """What became of one instruction."""

    file: str
    line: int
    step: str
    outcome: str
    seconds: float = 0.0


@dataclass(frozen=True)
class How:
    """How steps are run: build arguments, environment of RUN lines, Python, and whether pip only resolves."""

    arguments: dict[str, str]
    environment: dict[str, str]
    python: Path
    resolve: bool


class Root:
    """A root of its own: the machine's files, with every change in a layer that is thrown away."""

    def __init__(self, folder: Path, stage: Stage, python: Path) -> None:
        self.stage, self.path, self.layer = stage, folder / stage.name / "root", folder / stage.name / "layer"
        for made in (self.path, self.layer, folder / stage.name / "work"):
            made.mkdir(parents=True)
        layers = f"lowerdir=/,upperdir={self.layer},workdir={folder / stage.name / 'work'}"
        mount("-t", "overlay", "overlay", "-o", layers, str(self.path))
        for shared in ("dev", "proc"):
            mount("--rbind", f"/{shared}", str(self.path / shared))
        # The base image's own: nothing of this machine's but the interpreter and its library.
        mount("--bind", str(python), str(self.path / "usr/local"))
        mount("-o", "remount,bind,ro", str(self.path / "usr/local"))
        for name in ("passwd", "group"):  # A base image has no accounts of people.
            lines = (self.path / "etc" / name).read_text().splitlines(keepends=True)
            kept = [line for line in lines if not 1000 <= int(line.split(":")[2]) < 60000]
            (self.path / "etc" / name).write_text("".join(kept))
        self.variables = {
            "PATH": "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "LD_LIBRARY_PATH": "/usr/local/lib",
        }
        self.arguments: dict[str, str] = {}
        self.directory, self.user = "/", "0"
        self.bound: list[Path] = []

    def inside(self, path: str) -> Path:
        """Return where a path of the root is on this machine."""
        return self.path / os.path.join(self.directory, path).lstrip("/")

    def run(self, command: list[str], extra: dict[str, str]) -> subprocess.CompletedProcess[str]:
        """Run a command with the root as /."""
        self.inside("").mkdir(parents=True, exist_ok=True)
        home = "/root" if self.user == "0" else "/home/gzscale"
        environment = {"HOME": home, **extra, **self.arguments, **self.variables}
        entry = ["chroot", f"--userspec={self.user}:{self.user}", str(self.path), "/usr/bin/env", "-C"]
        whole = [*entry, self.directory, *command]
        try:
            return subprocess.run(
                whole, env=environment, capture_output=True, text=True, check=False, timeout=LIMIT
            )
        except subprocess.TimeoutExpired:
            return subprocess.CompletedProcess(whole, 124, "", f"not within {LIMIT:.0f} s")


def mount(*arguments: str) -> None:
    """Mount, or end with what mount says."""
    done = subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"mount {' '.join(arguments)}: {done.stderr.strip()}: needs root and overlayfs")


def let_through(source: str) -> bool:
    """Tell whether `.dockerignore` gives a path to the build."""
    allowed = [line[1:] for line in (HOME / ".dockerignore").read_text().split() if line.startswith("!")]
    return any(source == item or source.startswith(f"{item}/") for item in allowed)


def copy(step: Step, root: Root, roots: dict[str, Root]) -> str:
    """Do what COPY does; return what happened."""
    *sources, target = step.words
    other = roots.get(step.flags.get("from", ""))
    for source in sources:
        if other is None and not let_through(source):
            return f"FAILED: .dockerignore keeps {source} back"
        origin = other.inside(source) if other else HOME / source
        place = root.inside(target)
        if other is not None and origin.is_dir():
            place.mkdir(parents=True)
            mount("--bind", str(origin), str(place))  # In the place of a second copy of several GB.
            root.bound.append(place)
        elif origin.is_dir():
            place.parent.mkdir(parents=True, exist_ok=True)
            subprocess.run(["cp", "-a", "-T", "--no-preserve=ownership", str(origin), str(place)], check=True)
        else:
            place = place / origin.name if target.endswith("/") else place
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(origin, place)
    if owner := step.flags.get("chown"):
        done = root.run(["chown", "-R", owner, target], {})
        if done.returncode:
            return f"FAILED: {done.stderr.strip()}"
    return "copied"


def follow(step: Step, root: Root, roots: dict[str, Root], how: How) -> str:
    """Carry out one instruction; return what happened."""
    if step.word == "ENV":
        root.variables |= assignments(step.rest, root.variables | root.arguments)
    elif step.word == "ARG":
        name, _, default = step.rest.partition("=")
        root.arguments[name] = how.arguments.get(name, default)
        return "set" if name not in how.arguments else f"set to {how.arguments[name]}"
    elif step.word == "WORKDIR":
        root.directory = expand(step.rest, root.variables)
    elif step.word == "USER":
        root.user = step.rest
    elif step.word == "COPY":
        return copy(step, root, roots)
    elif step.word == "RUN" and how.resolve and "pip install" in step.rest:
        line = step.rest.replace("pip install", "pip install --quiet --dry-run --report /report.json")
        done = root.run(["/bin/sh", "-c", line], how.environment)
        return told(done, f"not installed, resolved: {packages(root) if not done.returncode else ''}")
    elif step.word == "RUN":
        return told(root.run(["/bin/sh", "-c", step.rest], how.environment), "ran")
    elif step.word == "CMD" and how.resolve:
        return "skipped: nothing was installed"
    elif step.word == "CMD":
        return told(root.run(step.words, {}), "ran")
    else:
        return "skipped: only an engine does this"
    return "set"


def packages(root: Root) -> str:
    """Say how many packages pip would have installed, and which of them no constraint pins."""
    report = json.loads((root.path / "report.json").read_text())
    names = {item["metadata"]["name"] for item in report["install"]} - {"gzscale"}
    pinned: set[str] = set()
    for path in (HOME / "constraints.txt", HOME / "deploy" / "constraints.txt"):
        pinned |= {canonical(line.partition("==")[0]) for line in path.read_text().split() if "==" in line}
    loose = sorted(name for name in names if canonical(name) not in pinned)
    return f"{len(names)} packages, {', '.join(loose) or 'none'} without a pin"


def canonical(name: str) -> str:
    """Return a package's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def told(done: subprocess.CompletedProcess[str], outcome: str) -> str:
    """Return the outcome, or the end of what a command wrote that failed."""
    if done.returncode == 0:
        return outcome
    return f"FAILED ({done.returncode}): {' / '.join((done.stdout + done.stderr).strip().splitlines()[-3:])}"


def build(path: Path, folder: Path, how: How) -> list[Row]:
    """Run one Dockerfile."""
    rows: list[Row] = []
    roots: dict[str, Root] = {}

    def note(line: int, text: str, outcome: str, start: float) -> None:
        rows.append(Row(path.name, line, text[:WIDTH], outcome, time.monotonic() - start))
        print(f"{path.name}:{line} {rows[-1].step}: {outcome} {rows[-1].seconds:.1f} s", flush=True)

    for stage in read_dockerfile(path):
        root = roots[stage.name] = Root(folder, stage, how.python)
        note(0, f"FROM {stage.base}", "skipped: base image not pulled, no engine here", time.monotonic())
        for step in stage.steps:
            start = time.monotonic()
            note(step.line, f"{step.word} {step.rest}", follow(step, root, roots, how), start)
            if "FAILED" in rows[-1].outcome and step.word != "CMD":
                return rows
    if how.resolve:
        return rows
    for module in IMPORTS.split():
        start = time.monotonic()
        done = root.run(["python", "-c", f"import {module}"], {})
        note(0, f"import {module}", told(done, "ran"), start)
    sizes = subprocess.run(["du", "-sm", root.layer, *root.bound], capture_output=True, text=True, check=True)
    size = sum(int(line.split()[0]) for line in sizes.stdout.splitlines())
    note(0, "what the last stage adds to its base", f"{size} MB", time.monotonic())
    return rows


def table(rows: list[Row]) -> str:
    """Write the rows as a Markdown table."""
    lines = ["| file | line | step | outcome | seconds |", "|---|---|---|---|---|"]
    for row in rows:
        step, outcome = row.step.replace("|", "\\|"), row.outcome.replace("|", "\\|")
        lines.append(f"| {row.file} | {row.line or ''} | `{step}` | {outcome} | {row.seconds:.1f} |")
    return "\n".join(lines)


def main() -> None:
    """Run the Dockerfiles and print what became of each step."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("dockerfiles", nargs="*", type=Path, default=[HOME / "deploy" / "Dockerfile"])
    parser.add_argument("--build-arg", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--env", action="append", default=[], metavar="NAME=VALUE", help="of the RUN lines")
    parser.add_argument("--python", type=Path, default=Path(sys.base_prefix), help="becomes /usr/local")
    parser.add_argument(
        "--resolve", action="store_true", help="let pip find what it would install, for want of disk"
    )
    parser.add_argument("--json", type=Path)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.folder is None:
        folder = Path(tempfile.mkdtemp(prefix="gzscale-build-"))
        # Mounts of a namespace of its own end with it, whatever happens.
        again = [sys.executable, *sys.argv, "--folder", str(folder)]
        try:
            sys.exit(subprocess.run(["unshare", "--mount", *again], check=False).returncode)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    given, extra = (dict(item.split("=", 1) for item in items) for items in (options.build_arg, options.env))
    extra = {name: os.environ[name] for name in os.environ if name.startswith(("PIP_", "SSL_"))} | extra
    how = How(given, extra, options.python, options.resolve)
    rows: list[Row] = []
    for path in options.dockerfiles:
        rows += build(path, options.folder / path.name, how)
    print(table(rows))
    if options.json:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    if any("FAILED" in row.outcome for row in rows):
        sys.exit(1)


if __name__ == "__main__":
    main()
