"""Where a night's time went: by stage on the wall, by step in the workers, and what limits it."""

from __future__ import annotations

from dataclasses import dataclass

from gzscale.night.ledger import NightRecord

__all__ = ["STEPS", "Timings", "take_timings"]

#: Steps of a worker, in the order of a galaxy's way, and what each does.
STEPS = {
    "find": "finding the images that cover the objects",
    "decode": "reading, decompressing and calibrating images",
    "resample": "cutting stamps and resampling them",
    "write": "writing the cutout stores",
    "load": "reading the cutouts back",
    "infer": "running the networks",
}
#: What the workers' time holds beyond the steps.
REST = ("other", "catalog rows, tables and the ledger")
#: Stages of a night; each one's wall time is kept under ``wall_<stage>``.
STAGES = ("plan", "process", "release")


@dataclass(frozen=True)
class Timings:
    """A night's times.

    Attributes
    ----------
    wall
        Stage -> wall seconds, those that were measured.
    steps
        Step -> seconds summed over the workers, those above 0, ``other`` last.
    work
        Seconds that the workers worked on partitions, summed.
    capacity
        Seconds that the workers were there: slots x wall time of the processing; 0 if unknown.
    objects_per_second
        Objects done a second of processing; 0 if unknown.
    """

    wall: dict[str, float]
    steps: dict[str, float]
    work: float
    capacity: float
    objects_per_second: float

    @property
    def idle(self) -> float | None:
        """Share of the workers' capacity that went into scheduling and waiting, 1 - work / capacity.

        None where it is unknown. It can be negative: a worker that offers both kinds of
        work predicts one partition while it cuts another, and has one slot.
        """
        return 1 - self.work / self.capacity if self.capacity else None

    @property
    def limiting_step(self) -> tuple[str, float] | None:
        """The step that took most of the workers' time, and its share of it."""
        if not self.steps or not self.work:
            return None
        step = max(self.steps, key=lambda name: self.steps[name])
        return step, self.steps[step] / self.work

    @property
    def limiting_stage(self) -> tuple[str, float] | None:
        """The stage that took most of the wall time, and its share of it."""
        total = sum(self.wall.values())
        if not total:
            return None
        stage = max(self.wall, key=lambda name: self.wall[name])
        return stage, self.wall[stage] / total


def take_timings(record: NightRecord) -> Timings:
    """Take the times out of a run's record.

    Parameters
    ----------
    record
        The run; times that it lacks are left out.
    """
    seconds = record.seconds
    wall = {stage: seconds[f"wall_{stage}"] for stage in STAGES if f"wall_{stage}" in seconds}
    steps = {step: seconds[step] for step in STEPS if seconds.get(step, 0.0) > 0}
    work = max(seconds.get("work", 0.0), sum(steps.values()))
    rest = work - sum(steps.values())
    if rest > 0:
        steps[REST[0]] = rest
    processing = seconds.get("wall", wall.get("process", 0.0))
    done = record.counts["objects"].done if "objects" in record.counts else 0
    return Timings(
        wall=wall,
        steps=steps,
        work=work,
        capacity=seconds.get("slots", 0.0) * processing,
        objects_per_second=done / processing if processing else 0.0,
    )
