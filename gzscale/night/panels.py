"""How a task's answers are shown to people: which columns stand together, and what they are called."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from gzscale.catalog.schema import Column
from gzscale.models.votes import ANSWERS, QUESTIONS, Question

__all__ = ["Panel", "answer_label", "caption", "has_tree", "panels", "path_columns"]

#: Panels of a task that is not Galaxy Zoo's, at most.
_MOST_PANELS = 12
#: Columns of such a task that a caption shows.
_MOST_VALUES = 3
_NAMES = tuple(f"{answer}_fraction" for answer in ANSWERS)
_YES_NO = {"edgeon": "edge-on", "odd": "odd"}
_ARMS = {"1": "1 arm", "cant tell": "number of arms unclear", "more than 4": "more than 4 arms"}
#: Where the names alone do not say what is meant.
_WORDS = {
    "cigar shaped": "cigar-shaped",
    "features or disk": "features",
    "star or artifact": "star or artefact",
}


@dataclass(frozen=True, slots=True)
class Panel:
    """Fractions that are drawn in one plot.

    Attributes
    ----------
    title
        The question.
    columns
        Names of columns with values in [0, 1].
    labels
        What each is called.
    asked_by
        Columns whose product is the fraction of the volunteers that was asked; none where
        everybody was.
    odds
        Whether values are shown by the logarithm of their odds: those of rare things are nearly all
        close to 0, and differ by factors.
    """

    title: str
    columns: tuple[str, ...]
    labels: tuple[str, ...]
    asked_by: tuple[str, ...] = ()
    odds: bool = False


def has_tree(columns: tuple[Column, ...]) -> bool:
    """Tell whether a task's columns hold the vote fractions of Galaxy Zoo 2."""
    return set(_NAMES) <= {column.name for column in columns}


def panels(columns: tuple[Column, ...]) -> tuple[Panel, ...]:
    """Return the panels of a task: the questions of the tree, or each probability by itself.

    Parameters
    ----------
    columns
        The task's columns.
    """
    if has_tree(columns):
        return tuple(_question_panel(question) for question in QUESTIONS)
    fractions = [
        column
        for column in columns
        if column.ucd.startswith("stat.probability") and "redshift" not in column.ucd
    ]
    return tuple(
        Panel(column.name, (column.name,), (column.name,), odds=True) for column in fractions[:_MOST_PANELS]
    )


def _question_panel(question: Question) -> Panel:
    return Panel(
        question.text,
        _NAMES[question.answers],
        tuple(answer_label(name) for name in ANSWERS[question.answers]),
        path_columns(question),
    )


def path_columns(question: Question) -> tuple[str, ...]:
    """Return the columns of the answers that lead to a question, from the first one down."""
    if question.parent is None:
        return ()
    above = next(item for item in QUESTIONS if item.start <= question.parent < item.stop)
    return (*path_columns(above), _NAMES[question.parent])


def answer_label(answer: str) -> str:
    """Say an answer in a word or two: ``t02_edgeon_a05_no`` is "not edge-on"."""
    match = re.fullmatch(r"t\d\d_(\w+?)_a\d\d_(\w+)", answer)
    if match is None:
        return answer
    question, words = match[1], match[2].replace("_", " ")
    if question in _YES_NO:
        return f"not {_YES_NO[question]}" if words == "no" else _YES_NO[question]
    if question == "arms_number":
        return _ARMS.get(words, f"{words} arms")
    if question == "arms_winding":
        return f"{words} arms"
    if question == "bulge_shape":
        return words if words == "no bulge" else f"{words} bulge"
    if question == "bulge_prominence" and words != "no bulge":
        return f"{words} bulge"
    return _WORDS.get(words, words)


def caption(columns: tuple[Column, ...], row: Mapping[str, object]) -> list[str]:
    """Say what a task found of one object.

    Parameters
    ----------
    columns
        The task's columns.
    row
        Column name -> value.

    Returns
    -------
    list[str]
        For Galaxy Zoo 2: the likeliest answer of each question on the likeliest path
        through the tree, with its vote fraction. For any other task: its first columns.
    """
    if not has_tree(columns):
        return [f"{column.name} {_value(row[column.name])}" for column in columns[:_MOST_VALUES]]
    found: list[str] = []
    numbers = [0]
    while numbers:
        question = QUESTIONS[numbers.pop(0)]
        best = max(range(question.start, question.stop), key=lambda place: _fraction(row, place))
        found.append(f"{answer_label(ANSWERS[best])} {_fraction(row, best):.2f}")
        numbers += [number for number, item in enumerate(QUESTIONS) if item.parent == best]
    odd = QUESTIONS[5]
    if _fraction(row, odd.start) >= 0.5:
        kinds = QUESTIONS[7]
        best = max(range(kinds.start, kinds.stop), key=lambda place: _fraction(row, place))
        found += [
            f"odd {_fraction(row, odd.start):.2f}",
            f"{answer_label(ANSWERS[best])} {_fraction(row, best):.2f}",
        ]
    return found


def _fraction(row: Mapping[str, object], place: int) -> float:
    return float(row[_NAMES[place]])  # type: ignore[arg-type]


def _value(value: object) -> str:
    return "not given" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)
