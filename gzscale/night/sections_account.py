"""The report's sections that account for every object: what was planned, done, lost and why."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import gzscale
from gzscale.catalog.union import Changes
from gzscale.night.findings import Findings
from gzscale.night.ledger import Count, NightRecord
from gzscale.night.openings import openings_text
from gzscale.night.page import Markup, facts, join, number, section, table, tag
from gzscale.night.reasons import reason_meanings
from gzscale.night.timings import take_timings

__all__ = [
    "accounting_section",
    "changes_section",
    "damage_section",
    "failures_section",
    "footer",
    "heading",
    "provenance_section",
    "quarantine_section",
]

#: Failed partitions and messages about damage that are listed, and letters of a message.
MAX_LISTED, MAX_LETTERS = 50, 600


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


def accounting_section(record: NightRecord) -> Markup:
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
    images = tag("p", f"Images: {openings_text(record.images)}.") if record.images else ""
    shown = table(header, rows, range(1, 8), strong=1)
    return section("Accounting", verdict, shown, images, tag("p", note, "note"))


def changes_section(record: NightRecord) -> Markup:
    """Say what the given table changed of the last complete night's objects, in two sums that close."""
    if not record.changes:
        return Markup()
    changes = Changes(**record.changes)
    delta = record.inputs.get("config", {}).get("catalog", {}).get("mode") == "delta"
    told = "a delta, joined to the objects" if delta else "a full catalog, held against the objects"
    verdict = tag(
        "p",
        f"The table was {told} of the last complete night. "
        + ("Both sums close." if changes.closes else "The sums do not close: do not use this night."),
        "good" if changes.closes else "bad",
    )
    rows = [
        ("rows given", changes.given),
        ("new objects", changes.new),
        ("changed objects", changes.changed),
        ("of these, moved out of their partition", changes.moved),
        ("rows that say what was known", changes.unchanged),
        ("rows older than what was known (stale)", changes.stale),
        ("objects removed by a row", changes.removed),
        ("rows in quarantine", changes.quarantined),
        ("objects known before", changes.known),
        ("objects kept as they were", changes.kept),
        ("objects vanished from the catalog", changes.vanished),
    ]
    note = (
        "given = new + changed + unchanged + stale + removed + quarantined, and "
        "known before = kept + changed + removed + vanished."
    )
    return section("Changes", verdict, table(("", "number"), rows, (1,)), tag("p", note, "note"))


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
        [
            (
                tag("code", reason),
                reasons[reason] if record.counts else "not counted",
                meanings.get(reason, ""),
            )
            for reason in order
        ],
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


def provenance_section(record: NightRecord) -> Markup:
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
    rows += [
        (
            f"filters of {task}",
            f"those of {item['filters']} were learnt; the survey is {config['survey']['kind']}",
        )
        for task, item in config.get("tasks", {}).items()
        if item.get("filters")
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


def _short(message: str) -> str:
    return message if len(message) <= MAX_LETTERS else f"{message[:MAX_LETTERS]} ..."
