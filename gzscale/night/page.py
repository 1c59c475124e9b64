"""The report's HTML: one self-contained page, in light, in dark and on paper; every text is escaped."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

__all__ = ["Markup", "document", "duration", "escape", "facts", "join", "number", "section", "table", "tag"]

_STYLE = """
:root{color-scheme:light dark;--ink:#1c2127;--muted:#5d6771;--rule:#d9dee3;--ground:#fff;--soft:#f5f7f9;
--good:#1b6e3c;--bad:#b2182b;--wait:#8a5a00;--link:#2f5f9e;--hatch:#dfe4e8}
@media (prefers-color-scheme:dark){:root{--ink:#e4e7ea;--muted:#9aa4ae;--rule:#323a42;--ground:#14181c;
--soft:#1b2026;--good:#6cc38a;--bad:#f08a8a;--wait:#e0b060;--link:#8ab4e8;--hatch:#2b323a}}
*{box-sizing:border-box}
body{margin:0 auto;padding:2.2rem 1.5rem 4rem;max-width:64rem;background:var(--ground);color:var(--ink);
font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif}
h1{font-size:1.75rem;line-height:1.2;margin:.1rem 0 .3rem;font-weight:600}
h2{font-size:1.15rem;
margin:2.6rem 0 .6rem;padding-bottom:.3rem;border-bottom:1px solid var(--rule);font-weight:600}
h3{font-size:.95rem;margin:1.4rem 0 .4rem;font-weight:600}
p{margin:.4rem 0 .8rem;max-width:46rem}
.above{color:var(--muted);letter-spacing:.04em;margin:0}
.note,figcaption,.quiet{color:var(--muted);font-size:.87rem}
.good{color:var(--good)}.bad{color:var(--bad)}.wait{color:var(--wait)}
.state{font-weight:600;border:1px solid;border-radius:3px;padding:.05rem .5rem;font-size:.85rem;
vertical-align:.3em;margin-left:.6rem;white-space:nowrap}
.facts{display:grid;grid-template-columns:repeat(auto-fit,minmax(9.5rem,1fr));gap:0;margin:1.4rem 0 0;
border:1px solid var(--rule);border-radius:4px;overflow:hidden}
.facts div{padding:.7rem .9rem;box-shadow:0 0 0 .5px var(--rule)}
.facts dt{color:var(--muted);font-size:.82rem}
.facts dd{margin:0;font-size:1.3rem;font-variant-numeric:tabular-nums}
table{border-collapse:collapse;width:100%;
margin:.6rem 0 1rem;font-size:.9rem;font-variant-numeric:tabular-nums}
th{text-align:left;font-weight:600;color:var(--muted);font-size:.82rem;border-bottom:1px solid var(--muted)}
th,td{padding:.3rem .7rem .3rem 0;vertical-align:top}
td{border-bottom:1px solid var(--rule);overflow-wrap:anywhere}
th.n,td.n{text-align:right;white-space:nowrap;overflow-wrap:normal}
tr.strong td{font-weight:600}
td:first-child code{white-space:nowrap}
h1+p{max-width:none}
code,.code{font:.84em/1.45 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;overflow-wrap:anywhere}
.swatch{display:inline-block;width:.75em;height:.75em;border-radius:2px;margin-right:.5em}
.wide{overflow-x:auto}
svg.chart{width:100%;height:auto;display:block;margin:.6rem 0}
.narrow svg.chart{max-width:40rem}
.sheet{display:grid;grid-template-columns:repeat(auto-fill,minmax(8rem,1fr));gap:.9rem .8rem}
.sheet figure{margin:0;break-inside:avoid}
.sheet img{width:100%;aspect-ratio:1;display:block;border:1px solid var(--rule);
background:repeating-linear-gradient(45deg,var(--hatch) 0 4px,var(--soft) 4px 8px)}
.sheet figcaption{font-size:.73rem;line-height:1.35;margin-top:.3rem}
.sheet b{color:var(--ink);font-weight:500;font-size:.67rem;letter-spacing:-.02em;
font-variant-numeric:tabular-nums;overflow-wrap:anywhere}
details{margin:.8rem 0}summary{cursor:pointer;color:var(--link)}
footer{margin-top:3rem;border-top:1px solid var(--rule);padding-top:.7rem;color:var(--muted);font-size:.82rem}
@media print{:root{color-scheme:light;
--ink:#000;--muted:#444;--rule:#bbb;--ground:#fff;--soft:#f5f7f9;--hatch:#dfe4e8;
--good:#1b6e3c;--bad:#b2182b;--wait:#8a5a00}body{padding:0;max-width:none;font-size:10.5pt}
h2,h3{break-after:avoid}tr,svg.chart{break-inside:avoid}.sheet{grid-template-columns:repeat(7,1fr)}
.sheet img,.swatch,.facts{print-color-adjust:exact;-webkit-print-color-adjust:exact}}
"""


class Markup(str):
    """Text that is HTML already; any other text is escaped where it enters the page."""

    __slots__ = ()


def escape(value: object) -> Markup:
    """Return a value as HTML: markup as it is, a whole number with separators, all else escaped."""
    if isinstance(value, Markup):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return Markup(number(value))
    return Markup(html.escape(str(value)))


def join(parts: Iterable[object], between: object = "") -> Markup:
    """Join values to one piece of HTML."""
    return Markup(escape(between).join(escape(part) for part in parts))


def tag(name: str, content: object = "", kind: str = "") -> Markup:
    """Wrap a value in an element.

    Parameters
    ----------
    name
        The element.
    content
        What is in it.
    kind
        Its class.
    """
    attribute = f' class="{html.escape(kind)}"' if kind else ""
    return Markup(f"<{name}{attribute}>{escape(content)}</{name}>")


def table(
    header: Sequence[object], rows: Iterable[Sequence[object]], numeric: Iterable[int] = (), strong: int = 0
) -> Markup:
    """Make a table.

    Parameters
    ----------
    header
        Titles of the columns.
    rows
        Values of each row.
    numeric
        Columns that are set flush right.
    strong
        How many of the first rows stand out.
    """
    right = set(numeric)

    def line(cells: Sequence[object], element: str) -> Markup:
        return join(tag(element, cell, "n" if place in right else "") for place, cell in enumerate(cells))

    head = tag("thead", tag("tr", line(header, "th")))
    body = join(
        tag("tr", line(row, "td"), "strong" if place < strong else "") for place, row in enumerate(rows)
    )
    return tag("div", tag("table", join((head, tag("tbody", body)))), "wide")


def facts(items: Iterable[tuple[str, object]]) -> Markup:
    """Make a row of large numbers with their names."""
    return tag(
        "dl", join(tag("div", join((tag("dt", name), tag("dd", value)))) for name, value in items), "facts"
    )


def section(title: str, *parts: object) -> Markup:
    """Make a section with a heading."""
    return tag("section", join((tag("h2", title), *parts)))


def document(title: str, body: Markup) -> str:
    """Return the whole page; it loads nothing and runs nothing."""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n"
        f"<body>\n{body}\n</body>\n</html>\n"
    )


def number(value: int) -> str:
    """Write a whole number with separators of thousands."""
    return f"{value:,}"


def duration(seconds: float) -> str:
    """Write a duration with two or three significant figures: ``4.2 s``, ``3 min 05 s``, ``2 h 10 min``."""
    if seconds < 60:
        return f"{seconds:.2f} s" if seconds < 1 else f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    if seconds < 3600:
        return f"{round(seconds) // 60} min {round(seconds) % 60:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"
