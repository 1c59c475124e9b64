"""What a night makes of the death of each of its parts, in each of its stages.

Main process, scheduler, CUT worker, PREDICT worker and S3 gateway are killed (SIGKILL) while the night cuts,
predicts or releases. Every cell has to end in the release of an undisturbed night, byte for byte, after at
most one restart, and `gzscale verify` may find nothing. The scheduler is a process of its own with one CUT
and one PREDICT worker, reached as a site's cluster is (preset of kind ``address``).

A lost worker comes back after some seconds, as batch systems and Kubernetes see to. A lost scheduler comes
back, with its workers, once the night has ended; the gateway once the night has ended (``gateway``), or after
`SHORT` seconds (``gateway, short``). Without ``--gateway`` it is a forwarder in front of a stand-in for S3; a
real one is named by the command that runs it in the foreground, and its endpoint. Run:
``python tests/benchmarks/kill_matrix.py [--parts main ...] [--stages cutting ...] [--json OUT]``.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from cheap_night import write_night, write_plugin
from parts import Parts, free_port, wait_for

from gzscale.night.pointer import read_pointer
from gzscale.night.verify import verify
from gzscale.storage import open_storage, sha256_hex

PARTS = ("main", "scheduler", "CUT worker", "PREDICT worker", "gateway", "gateway, short")
#: Stage -> where its first file appears.
STAGES = {"cutting": "ledger/cut", "predicting": "ledger/predict", "release": "releases"}
KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "testsecret", "AWS_DEFAULT_REGION": "us-east-1"}
BUCKET = "kill-matrix"
#: Seconds: until a lost worker is replaced, of a short outage, that a night may take at most.
REPLACED, SHORT, LIMIT = 3.0, 10.0, 900.0


@dataclass
class Cell:
    """What one death came to.

    ``first`` is the exit code of the night that lost a part, ``told`` its last line if it failed.
    """

    part: str
    stage: str
    first: int
    told: str
    restarts: int
    same: bool
    verified: bool
    seconds: float

    @property
    def text(self) -> str:
        """One field of the table."""
        if not (self.same and self.verified):
            return "DIFFERS" if not self.same else "DAMAGED"
        return f"same, {self.restarts} restart{'s' * (self.restarts != 1)}, {self.seconds:.0f} s"


def make_parts(folder: Path, gateway: str | None, endpoint: str | None) -> Parts:
    """Return the cluster with an S3 gateway beside it."""
    gate, behind = free_port(), free_port()
    if endpoint:
        gate = int(endpoint.rstrip("/").rpartition(":")[2])
    environment = {**KEYS, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{gate}"}
    environment["PYTHONPATH"] = f"{write_plugin(folder / 'plugin')}:{os.environ.get('PYTHONPATH', '')}"
    parts = Parts(folder, {"CUT worker": "CUT=1", "PREDICT worker": "PREDICT=1"}, environment)
    parts.ports["gateway"] = gate
    if gateway:
        parts.commands["gateway"] = shlex.split(gateway)
        return parts
    parts.ports["store"] = behind
    parts.commands["store"] = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(behind)]
    forwarder = str(Path(__file__).with_name("forwarder.py"))
    parts.commands["gateway"] = [sys.executable, forwarder, str(gate), f"127.0.0.1:{behind}"]
    return parts


class Night:
    """One cell's nights, on an output of their own."""

    def __init__(self, parts: Parts, config: Path, output: str) -> None:
        self.parts, self.config, self.output = parts, config, output
        self.log = parts.folder / "night.log"

    def start(self) -> subprocess.Popen:
        """Begin a night."""
        return self.parts.night(self.config, self.output, self.log)

    def told(self) -> str:
        """Return the last line of the night that ran last."""
        lines = self.log.read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else ""

    def verified(self) -> bool:
        """Tell whether every committed file is as committed."""
        return not verify(self.output)

    def files(self) -> dict[str, str]:
        """Return the hash of each file of the release that is published."""
        storage = open_storage(self.output)
        pointer = read_pointer(storage)
        if pointer is None:
            return {}
        prefix = f"releases/{pointer.release}"
        entries = list(storage.list(prefix))
        return {entry.key.removeprefix(prefix): sha256_hex(storage.get(entry.key)) for entry in entries}


def disturb(parts: Parts, part: str, process: subprocess.Popen) -> None:
    """Kill a part, and bring it back as its site would while the night goes on."""
    parts.kill(part.partition(",")[0])
    if part.endswith("worker"):
        time.sleep(REPLACED)
        parts.start(part)
    elif part == "gateway, short":
        time.sleep(SHORT)
        parts.start("gateway")


def cell(parts: Parts, config: Path, output: str, part: str, stage: str, reference: dict[str, str]) -> Cell:
    """Run one cell."""
    parts.start_all()
    night, storage = Night(parts, config, output), open_storage(output)
    start = time.monotonic()
    process = night.start()

    def begun() -> bool:
        if process.poll() is not None:
            raise SystemExit(f"{part}, {stage}: the night ended too soon: {night.told()}")
        return any(True for _ in storage.list(STAGES[stage]))

    wait_for(begun, f"{part}: {stage}", LIMIT)
    disturb(parts, part, process)
    first = process.wait(LIMIT)
    told = night.told() if first > 0 else ""
    restarts = 0
    if first:
        parts.start_all()
        restarts = 1
        if night.start().wait(LIMIT):
            told += f" / then: {night.told()}"
    parts.start_all()
    same = night.files() == reference
    return Cell(part, stage, first, told, restarts, same, night.verified(), time.monotonic() - start)


def table(cells: list[Cell]) -> str:
    """Write the cells as a Markdown table."""
    stages = list(dict.fromkeys(cell.stage for cell in cells))
    lines = [f"| killed | {' | '.join(stages)} |", f"|---{'|---' * len(stages)}|"]
    for part in dict.fromkeys(cell.part for cell in cells):
        texts = {cell.stage: cell.text for cell in cells if cell.part == part}
        lines.append(f"| {part} | {' | '.join(texts.get(stage, '') for stage in stages)} |")
    return "\n".join(lines)


def small_night(folder: Path, objects: int) -> Path:
    """Write a night of cheap images in some 8 partitions, slow enough to be killed in its middle."""
    survey = {"kind": "cheap", "root": "memory", "bands": "gri", "options": {"pause": 0.1}}
    return write_night(folder / "sky", objects, survey=survey, max_objects=max(objects // 4, 1))


def main() -> None:
    """Run the matrix and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--objects", type=int, default=100)
    parser.add_argument("--config", type=Path, help="another night than that of cheap images")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--stages", nargs="+", choices=list(STAGES), default=list(STAGES))
    parser.add_argument("--gateway", help="command of a real gateway that does not fork")
    parser.add_argument("--endpoint", help="its URL")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="gzscale-kill-"))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    parts = make_parts(folder, options.gateway, options.endpoint)
    os.environ |= {key: parts.environment[key] for key in (*KEYS, "AWS_ENDPOINT_URL", "no_proxy")}
    cells: list[Cell] = []
    try:
        config = options.config or small_night(folder, options.objects)
        parts.start_all()
        make_bucket(os.environ["AWS_ENDPOINT_URL"])
        undisturbed = Night(parts, config, str(folder / "undisturbed"))
        if undisturbed.start().wait(LIMIT):
            raise SystemExit(f"the undisturbed night failed: {undisturbed.told()}")
        reference = undisturbed.files()
        print(f"undisturbed: a release of {len(reference)} files", flush=True)
        for part in options.parts:
            for stage in options.stages:
                name = f"{part}-{stage}".replace(" ", "-").replace(",", "")
                place = f"s3://{BUCKET}/{name}" if part.startswith("gateway") else str(folder / name)
                cells.append(cell(parts, config, place, part, stage, reference))
                print(f"{part}, {stage}: {cells[-1].text} {cells[-1].told}", flush=True)
    finally:
        parts.stop_all()
        shutil.rmtree(folder, ignore_errors=True)
    print(table(cells))
    if options.json:
        options.json.write_text(json.dumps([asdict(item) for item in cells], indent=1) + "\n")
    if not all(item.same and item.verified for item in cells):
        sys.exit(1)


def make_bucket(endpoint: str) -> None:
    """Make the bucket of the gateway's cells."""
    import boto3

    boto3.client("s3", endpoint_url=endpoint).create_bucket(Bucket=BUCKET)


if __name__ == "__main__":
    main()
