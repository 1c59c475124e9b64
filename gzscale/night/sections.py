"""The sections of a night's report, each from what was found in storage."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import gzscale
from gzscale.catalog.schema import release_columns
from gzscale.night.charts import COLOURS, stacked_bar, vote_histograms
from gzscale.night.contact import ContactSheet, Galaxy
from gzscale.night.ledger import Count, NightRecord
from gzscale.night.overview import Overview
from gzscale.night.page import Markup, duration, escape, facts, join, number, section, table, tag
from gzscale.night.plan import Plan
from gzscale.night.reasons import reason_meanings
from gzscale.night.skymap import sky_map
from gzscale.night.timings import REST, STEPS, take_timings
from gzscale.tasks.base import Task

__all__ = [
    "Findings",
    "accounting_section",
    "columns_section",
    "damage_section",
    "failures_section",
    "footer",
    "heading",
    "provenance_section",
    "quarantine_section",
    "release_section",
    "sheet_section",
    "sky_section",
    "timings_section",
    "votes_section",
]

#: Failed partitions and messages about damage that are listed, and letters of a message.
MAX_LISTED, MAX_LETTERS = 50, 600


@dataclass
class Findings:
    """What was found in storage; a part that could not be read is None and named in ``damage``."""

    tasks: Mapping[str, Task]
    plan: Plan | None = None
    overview: Overview | None = None
    sheet: ContactSheet | None = None
    manifest: dict[str, Any] | None = None
    latest: str = ""
    damage: list[str] = field(default_factory=list)


def heading(output: str, record: NightRecord, found: Findings) -> Markup:
    """Say which night, how it ended, and its main numbers."""
    survey = record.inputs.get("config", {}).get("survey", {})
    kind = {"complete": "good", "failed": "bad"}.get(record.state, "wait")
    title = join(("Night ", record.night, tag("span", record.state, f"state {kind}")))
    above = f"{str(survey.get('kind', 'survey')).upper()}, bands {survey.get('bands', '?')}"
    lines = [f"Output {output}", f"Release {record.release}" if record.release else "Nothing released"]
    if record.started:
        lines.append(f"{_utc(record.started)} to {_utc(record.ended) if record.ended else '(not ended)'}")
    count = record.counts.get("objects")
    shown = _main_facts(record, count) if count else _unfinished_facts(found)
    return join(
        (
            tag("p", above, "above"),
            tag("h1", title),
            tag("p", join(lines, " · "), "quiet"),
            facts(shown),
        )
    )


def _utc(moment: str) -> str:
    return f"{moment.removesuffix('+00:00').replace('T', ' ')} UTC"


def _main_facts(record: NightRecord, count: Count) -> Iterable[tuple[str, object]]:
    rate = take_timings(record).objects_per_second
    return (
        ("objects planned", count.planned),
        ("done", count.done),
        ("quarantined", sum(count.quarantined.values())),
        ("failed", tag("span", count.failed, "bad" if count.failed else "")),
        ("partitions", record.partitions),
        ("objects a second", f"{rate:.3g}"),
    )


def _unfinished_facts(found: Findings) -> Iterable[tuple[str, object]]:
    if found.plan is None or found.overview is None:
        return (("objects planned", "unknown"),)
    committed = sum(bool(state.answered) for state in found.overview.partitions)
    return (
        ("objects planned", found.plan.planned),
        ("partitions planned", len(found.plan.partitions)),
        ("partitions committed", committed),
        ("objects committed", sum(state.done for state in found.overview.partitions)),
    )


def accounting_section(record: NightRecord, found: Findings) -> Markup:
    """Say that planned = done + quarantined + failed, for the objects and for each stage."""
    if not record.counts:
        why = "The night is running, or was stopped before its account was closed"
        if record.state == "failed":
            why = "The night ended before its account was closed"
        return section("Accounting", tag("p", f"{why}: the numbers above are those of the commits so far."))
    lost = [name for name, count in record.counts.items() if not count.closes]
    verdict = tag(
        "p",
        f"The account does not close for {', '.join(lost)}. Do not use this night; run gzscale verify."
        if lost
        else "The account closes: in every row, planned = done + quarantined + failed.",
        "bad" if lost else "good",
    )
    stages = _stage_names(record)
    rows = [
        (
            stages.get(name, name),
            count.planned,
            "=",
            count.done,
            "+",
            sum(count.quarantined.values()),
            "+",
            count.failed,
            tag("span", "closes", "good") if count.closes else tag("span", "does not close", "bad"),
        )
        for name, count in sorted(record.counts.items(), key=lambda item: _rank(stages, item[0]))
    ]
    header = ("stage", "planned", "", "done", "", "quarantined", "", "failed", "")
    note = (
        "An object is done when every task has answered for it. In the row of the catalog, done "
        "means that the object has a partition."
    )
    return section("Accounting", verdict, table(header, rows, range(1, 8), strong=1), tag("p", note, "note"))


def _stage_names(record: NightRecord) -> dict[str, str]:
    config = record.inputs.get("config", {})
    names = {"objects": "all objects", "catalog": "catalog"}
    names |= {name: f"cutouts, geometry {name}" for name in config.get("geometries", {})}
    return names | {name: f"task {name}" for name in config.get("tasks", {})}


def _rank(stages: Mapping[str, str], name: str) -> int:
    """Where a stage stands on a galaxy's way; the ledger sorts by name."""
    return list(stages).index(name) if name in stages else len(stages)


def failures_section(record: NightRecord) -> Markup:
    """List what failed, with the messages."""
    if not record.failures:
        return Markup()
    rows = [
        (item["partition"] or "the night", item["rows"], tag("span", _short(item["error"]), "code"))
        for item in record.failures[:MAX_LISTED]
    ]
    more = len(record.failures) - len(rows)
    note = f"{number(more)} more are in the night's record. " if more else ""
    return section(
        "Failures",
        tag("p", f"{note}Running the same command again does these, and only these."),
        table(("partition", "objects", "error"), rows, (1,)),
    )


def quarantine_section(record: NightRecord, found: Findings) -> Markup:
    """Say why objects were not done, how many, and show some."""
    reasons: dict[str, int] = {}
    for count in record.counts.values():
        reasons |= dict.fromkeys(count.quarantined, 0)
    if "objects" in record.counts:
        reasons |= record.counts["objects"].quarantined
    examples = found.overview.examples if found.overview else {}
    reasons = dict.fromkeys(examples, 0) | reasons
    if not reasons:
        return section("Quarantine", tag("p", "No object is in quarantine."))
    meanings = reason_meanings()
    order = sorted(reasons, key=lambda reason: (-reasons[reason], reason))
    overview = table(
        ("reason", "objects", "meaning"),
        [(tag("code", reason), reasons[reason], meanings.get(reason, "")) for reason in order],
        (1,),
    )
    note = (
        "Each object counts once, under its first reason; the quarantine table of the release has a row "
        "for each task."
    )
    shown = [_example(reason, row) for reason in order for row in examples.get(reason, ())]
    header = ("reason", "object_id", "ra [deg]", "dec [deg]", "detail")
    return section(
        "Quarantine",
        overview,
        tag("p", note, "note"),
        join((tag("h3", "Examples"), table(header, shown, (1, 2, 3)))) if shown else "",
    )


def _example(reason: str, row: Mapping[str, Any]) -> tuple[object, ...]:
    object_id = "none" if row["object_id"] is None else str(row["object_id"])
    known = [row[name] is not None and math.isfinite(row[name]) for name in ("ra", "dec")]
    position = [
        f"{row[name]:.5f}" if there else "none" for name, there in zip(("ra", "dec"), known, strict=True)
    ]
    where = f"{row['task']}: " if row["task"] else ""
    return (tag("code", reason), object_id, *position, where + _short(row["detail"]))


def release_section(record: NightRecord, found: Findings) -> Markup:
    """Say what was released."""
    if not record.release:
        rest = f" The latest release is still {found.latest}." if found.latest else ""
        return section("Release", tag("p", f"This night released nothing.{rest}"))
    if found.manifest is None:
        return section("Release", tag("p", f"{record.release}: its manifest cannot be read.", "bad"))
    files: dict[str, list[int]] = {}
    for key, (_, size) in found.manifest["files"].items():
        files.setdefault(key.split("/")[2], []).append(size)
    rows = [
        (
            f"releases/{record.release}/{name}",
            rows,
            len(files.get(name, [])),
            size_text(sum(files.get(name, []))),
        )
        for name, rows in found.manifest["rows"].items()
    ]
    latest = (
        "It is the latest one." if found.latest == record.release else f"The latest one is {found.latest}."
    )
    return section(
        "Release",
        tag("p", join(("Release ", tag("code", record.release), f". {latest}"))),
        table(("catalog", "rows", "files", "size"), rows, (1, 2, 3)),
    )


def timings_section(record: NightRecord) -> Markup:
    """Say where the time went, and what limits the night."""
    timings = take_timings(record)
    if not timings.wall and not timings.steps:
        return Markup()
    parts: list[object] = [tag("p", _limits(record))]
    if timings.steps:
        names = [*STEPS, REST[0]]
        colours = {step: COLOURS[names.index(step)] for step in timings.steps}
        meanings = {**STEPS, REST[0]: REST[1]}
        parts.append(Markup(stacked_bar(timings.steps, colours)))
        rows = [
            (
                join((Markup(f'<span class="swatch" style="background:{colours[step]}"></span>'), step)),
                meanings[step],
                duration(seconds),
                f"{100 * seconds / timings.work:.1f} %",
            )
            for step, seconds in timings.steps.items()
        ]
        parts.append(table(("step", "what the workers did", "workers' time", "share"), rows, (2, 3)))
    if timings.wall:
        total = sum(timings.wall.values())
        walls = [
            (stage, duration(seconds), f"{100 * seconds / total:.1f} %" if total else "")
            for stage, seconds in timings.wall.items()
        ]
        parts.append(table(("stage", "wall time", "share"), walls, (1, 2)))
    return section("Timings", *parts)


def _limits(record: NightRecord) -> str:
    """Name what limits the night, in words."""
    timings = take_timings(record)
    said = []
    if timings.limiting_stage:
        stage, share = timings.limiting_stage
        said.append(f"The stage that takes longest is {stage}, {100 * share:.0f} % of the wall time.")
    if timings.limiting_step:
        step, share = timings.limiting_step
        said.append(f"In the workers, {step} is what limits: it takes {100 * share:.0f} % of their time.")
    if timings.objects_per_second:
        said.append(f"{timings.objects_per_second:.3g} objects were done a second.")
    if record.bytes_read:
        said.append(f"{size_text(record.bytes_read)} of images were read.")
    if timings.idle is not None:
        said.append(
            f"Scheduling and waiting took {100 * timings.idle:.1f} % of the workers' capacity "
            f"({record.seconds['slots']:.0f} slots)."
            if timings.idle >= 0
            else "The workers were never idle: they predicted and cut at the same time."
        )
    return " ".join(said)


def sky_section(found: Findings) -> Markup:
    """Show the partitions on the sky."""
    states = found.overview.partitions if found.overview else []
    if not states:
        return Markup()
    whole = sum(state.done == state.item.rows for state in states)
    note = (
        f"{number(whole)} of {number(len(states))} partitions are wholly done. Equatorial coordinates (ICRS)."
    )
    chart = tag("div", Markup(sky_map(states)), "narrow")
    return section("Sky", chart, tag("p", note, "note"))


def votes_section(found: Findings) -> Markup:
    """Show how the answers are distributed, task by task."""
    parts: list[object] = []
    for task, histograms in (found.overview.histograms if found.overview else {}).items():
        if any(histogram.objects for histogram in histograms):
            parts += [tag("h3", f"Task {task}"), Markup(vote_histograms(task, histograms))]
    if not parts:
        return Markup()
    note = (
        "All objects of the night. Of a question that hangs on another one, those galaxies count of "
        "which at least half of the volunteers would be asked it: the vote fractions multiplied "
        "down the tree to the question."
    )
    return section("Vote fractions", tag("p", note, "note"), *parts)


def sheet_section(found: Findings) -> Markup:
    """Show the galaxies of the contact sheet."""
    sheet = found.sheet
    if sheet is None or not sheet.groups:
        return Markup()
    note = (
        f"Cutouts of the geometry {sheet.geometry} in SDSS's colours (i, r, g as red, green, blue), "
        "north up, east "
        f"left, from {number(sheet.partitions)} partitions spread over the night. Hatched: no image covers "
        "the pixel in one of these bands. Below each: the likeliest path through the questions, with the "
        "fraction of the votes that each answer gets of those asked."
    )
    groups = [
        join((tag("h3", kind), tag("div", join(_figure(galaxy) for galaxy in galaxies), "sheet")))
        for kind, galaxies in sheet.groups.items()
    ]
    return section("Contact sheet", tag("p", note, "note"), *groups)


def _figure(galaxy: Galaxy) -> Markup:
    alternative = escape(f"object {galaxy.object_id}")
    image = Markup(f'<img src="{galaxy.picture}" alt="{alternative}" loading="lazy">')
    covered = "" if galaxy.coverage >= 1 else f", {100 * galaxy.coverage:.0f} % covered"
    lines = [
        tag("b", str(galaxy.object_id)),
        f"{galaxy.ra:.5f} {galaxy.dec:+.5f}",
        f"{galaxy.scale:.2f}″/px, {galaxy.side:.0f}″{covered}",
        ", ".join(galaxy.caption),
    ]
    return tag("figure", join((image, tag("figcaption", join(lines, Markup("<br>"))))))


def columns_section(found: Findings) -> Markup:
    """Describe the released columns."""
    parts = []
    for name, task in found.tasks.items():
        rows = [
            (tag("code", column.name), column.dtype, column.unit, column.description)
            for column in release_columns(task.columns)
        ]
        listing = table(("column", "type", "unit", "description"), rows)
        parts.append(tag("details", join((tag("summary", f"{name}: {len(rows)} columns"), listing))))
    return section("Columns", *parts) if parts else Markup()


def provenance_section(output: str, record: NightRecord) -> Markup:
    """Say what the night came from."""
    inputs = record.inputs
    rows: list[tuple[str, object]] = [("night's fingerprint", record.fingerprint)]
    rows += [(f"bundle of {task}", digest) for task, digest in inputs.get("bundles", {}).items()]
    rows += [("code", inputs["code"])] if "code" in inputs else []
    config = inputs.get("config", {})
    rows += [("images", config["survey"]["root"])] if "survey" in config else []
    rows += [("catalog", config["catalog"]["path"])] if "catalog" in config else []
    rows += [
        (f"geometry {name}", f"{item['size']} pixels, scale {item['scale']}")
        for name, item in config.get("geometries", {}).items()
    ]
    return section("Provenance", table(("", ""), [(name, tag("span", text, "code")) for name, text in rows]))


def damage_section(found: Findings) -> Markup:
    """Say what could not be read for this page."""
    if not found.damage:
        return Markup()
    rows = [(_short(message),) for message in found.damage[:MAX_LISTED]]
    note = f"This page lacks what these {number(len(found.damage))} messages name; run gzscale verify."
    return section("Not readable", tag("p", note, "bad"), table(("message",), rows))


def footer() -> Markup:
    """Say who wrote the page."""
    return tag("footer", f"gzscale {gzscale.__version__}")


def size_text(size: int) -> str:
    """Write a number of bytes with its decimal unit."""
    value = float(size)
    for unit in ("bytes", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "bytes" else f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.3g} TB"


def _short(message: str) -> str:
    return message if len(message) <= MAX_LETTERS else f"{message[:MAX_LETTERS]} ..."
