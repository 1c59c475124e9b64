"""The report's sections on what came out of a night: release, times, sky, votes, pictures, columns."""

from __future__ import annotations

from collections.abc import Iterator

from gzscale.catalog.schema import release_columns
from gzscale.night.charts import COLOURS, probability_histograms, stacked_bar, vote_histograms
from gzscale.night.contact import Galaxy
from gzscale.night.findings import Findings
from gzscale.night.ledger import NightRecord
from gzscale.night.overview import Histogram
from gzscale.night.page import Markup, duration, escape, join, number, section, table, tag
from gzscale.night.panels import has_tree
from gzscale.night.skymap import sky_map
from gzscale.night.timings import REST, STEPS, take_timings

__all__ = [
    "columns_section",
    "probabilities_section",
    "release_section",
    "sheet_section",
    "size_text",
    "sky_section",
    "timings_section",
    "votes_section",
]


def release_section(record: NightRecord, found: Findings) -> Markup:
    """Say what was released."""
    if not record.release:
        rest = f" The latest release is still {found.latest}." if found.latest else ""
        return section("Release", tag("p", f"This night released nothing.{rest}"))
    if found.manifest is None:
        return section("Release", tag("p", f"{record.release}: its manifest cannot be read.", "bad"))
    files: dict[str, list[int]] = {}
    for key, (_, size) in found.manifest["files"].items():
        files.setdefault(key.split("/")[0], []).append(size)
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
    if timings.limiting_stage and "process" in timings.wall:
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
    """Show how volunteers' answers are distributed, task by task."""
    parts: list[object] = []
    for task, histograms in _answered(found, tree=True):
        parts += [tag("h3", f"Task {task}"), Markup(vote_histograms(task, histograms))]
    if not parts:
        return Markup()
    note = (
        "All objects that are committed. Of a question that hangs on another one, those galaxies count of "
        "which at least half of the volunteers would be asked it: the vote fractions multiplied "
        "down the tree to the question."
    )
    return section("Vote fractions", tag("p", note, "note"), *parts)


def probabilities_section(found: Findings) -> Markup:
    """Show how the probabilities of tasks without a tree of questions are distributed."""
    parts: list[object] = []
    for task, histograms in _answered(found, tree=False):
        parts += [tag("h3", f"Task {task}"), Markup(probability_histograms(task, histograms))]
    if not parts:
        return Markup()
    note = (
        "All objects that are committed and have a value. Both axes are logarithmic: that of the probability "
        "in its odds, p / (1 - p), so that those near 0 and those near 1 are told apart."
    )
    return section("Probabilities", tag("p", note, "note"), *parts)


def _answered(found: Findings, tree: bool) -> Iterator[tuple[str, list[Histogram]]]:
    """Yield tasks that answered for an object: those with the tree of questions, or those without."""
    for task, histograms in (found.overview.histograms if found.overview else {}).items():
        columns = found.tasks[task].columns if task in found.tasks else ()
        if has_tree(columns) == tree and any(histogram.objects for histogram in histograms):
            yield task, histograms


def sheet_section(found: Findings) -> Markup:
    """Show the galaxies of the contact sheet."""
    sheet = found.sheet
    if sheet is None or not sheet.groups:
        return Markup()
    note = (
        f"Cutouts of the geometry {sheet.geometry}, the bands {', '.join(sheet.bands)} as red, green, blue "
        f"in SDSS's stretch, north up, east left, chosen all over the night (partitions: "
        f"{number(sheet.partitions)}). Hatched: no image covers the pixel in one of these bands. "
        "Below each: identifier, position in degrees, pixel scale and side, and the likeliest path "
        "through the questions, each answer with its fraction of the votes of those asked."
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


def size_text(size: int) -> str:
    """Write a number of bytes with its decimal unit."""
    value = float(size)
    for unit in ("bytes", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "bytes" else f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.3g} TB"
