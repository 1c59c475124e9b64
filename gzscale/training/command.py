"""What ``gzscale train`` and ``gzscale evaluate`` do: from paths to a bundle and to lines of text."""

from __future__ import annotations

import csv
import dataclasses
import json
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from gzscale.errors import ConfigError
from gzscale.models.bundle import load_bundle, write_bundle
from gzscale.training.evaluate import evaluate_morphology
from gzscale.training.label_tables import read_labels
from gzscale.training.labelled import LabelledSet, read_labelled
from gzscale.training.loop import Epoch
from gzscale.training.morphology import Recipe, train_morphology

__all__ = ["change", "evaluate_bundle", "train_bundle"]

_Settings = TypeVar("_Settings")


def train_bundle(
    labels: str,
    images: str,
    kind: str,
    mapping: str | None,
    output: str,
    name: str,
    settings: Sequence[str] = (),
    search: int = 0,
) -> Iterator[str]:
    """Train a morphology bundle and write it, with its learning curve beside it.

    Parameters
    ----------
    labels, kind, mapping
        See `gzscale.training.label_tables.read_labels`.
    images
        See `gzscale.training.labelled.read_labelled`.
    output
        Path of the bundle. Checkpoints lie in ``<output>.work`` until it is written, the learning curve
        in ``<output>.curve.csv``.
    name
        Name of the model.
    settings
        ``key=value`` for any key of `gzscale.training.morphology.Recipe`, dotted.
    search
        Trials of a search for better settings, 0 for none.

    Yields
    ------
    str
        Lines for the user.
    """
    labelled = read_labelled(read_labels(labels, kind, mapping), images)
    yield _account(labelled)
    recipe = Recipe()
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals:
            raise ConfigError(f"--set {setting}: expected KEY=VALUE, such as fit.epochs=40")
        recipe = change(recipe, key, value)
    if search:
        from gzscale.training.search import search_settings

        recipe, lines = search_settings(labelled, recipe, search)
        yield from lines
    work = Path(f"{output}.work")
    work.mkdir(parents=True, exist_ok=True)
    curve = _Curve(Path(f"{output}.curve.csv"))
    bundle = train_morphology(labelled, recipe, name, work, curve.add)
    part = Path(f"{output}.part")
    part.write_bytes(write_bundle(bundle))
    part.replace(output)
    shutil.rmtree(work)
    yield from _table(bundle.scores)
    yield output


def evaluate_bundle(
    bundle: str, labels: str, images: str, kind: str, mapping: str | None
) -> tuple[dict[str, Any], list[str]]:
    """Score a bundle; return the scores and lines for the user. See `train_bundle`."""
    labelled = read_labelled(read_labels(labels, kind, mapping), images)
    found = evaluate_morphology(load_bundle(bundle), labelled)
    story = {
        "scores": found.scores,
        "questions": found.questions,
        "intervals": found.intervals,
        "learnt": found.learnt,
        "warning": found.warning,
        "refused": dict(labelled.labels.refused),
    }
    lines = [_account(labelled)]
    if found.learnt:
        lines.append(
            f"{found.learnt} of them were learnt: each is predicted by the member that did not learn it"
        )
    if found.warning:
        lines.append(f"warning: {found.warning}")
    lines += _table(found.scores)
    lines += [
        _question(number, found.questions.get(number), part) for number, part in found.intervals.items()
    ]
    return story, lines


def change(settings: _Settings, key: str, value: str) -> _Settings:
    """Return settings with one value replaced.

    Parameters
    ----------
    settings
        A dataclass of dataclasses, mappings and plain values.
    key
        Dotted: ``fit.epochs``.
    value
        As JSON, or a word.

    Raises
    ------
    ConfigError
        If there is no such key, or the value is of another type.
    """
    first, _, rest = key.partition(".")
    names = [item.name for item in dataclasses.fields(settings)]  # type: ignore[arg-type]
    if first not in names:
        raise ConfigError(f"{key!r}: no such setting; there are {', '.join(names)}")
    old = getattr(settings, first)
    if dataclasses.is_dataclass(old):
        new: Any = change(old, rest, value)
    else:
        try:
            new = json.loads(value)
        except json.JSONDecodeError:
            new = value
        if isinstance(old, dict):
            new = {**old, rest: new}
        elif isinstance(old, float) and isinstance(new, int):
            new = float(new)
        elif type(new) is not type(old):
            raise ConfigError(f"{key}={value}: expected {type(old).__name__}, such as {old!r}")
    return dataclasses.replace(settings, **{first: new})  # type: ignore[type-var]


def _question(number: int, rmse: float | None, part: dict[str, float]) -> str:
    """Return a question's scores in a line: RMSE, shares in the intervals, and of those resolved."""
    error = "where half were asked: none" if rmse is None else f"RMSE {rmse:.4f}"
    shares = [
        f"{100 * part[f'{kind}_68']:.1f} and {100 * part[f'{kind}_95']:.1f} % {words}"
        for kind, words in (("inside", "inside"), ("resolved", f"of {part['resolved']:.0f} resolved"))
        if f"{kind}_68" in part
    ]
    return f"question {number:<2}  {'; '.join([error, ', '.join(shares)] if shares else [error])}"


def _account(labelled: LabelledSet) -> str:
    refused = ", ".join(f"{count} {reason}" for reason, count in sorted(labelled.labels.refused.items()))
    return f"{len(labelled)} labelled galaxies with an image; not used: {refused or 'none'}"


def _table(scores: dict[str, float] | Any) -> list[str]:
    """Return the scores of each means in a line."""
    lines = [f"{'':<12}{'RMSE':>9}{'error':>9}{'smooth or not':>15}"]
    for name in (key.removesuffix("_rmse") for key in scores if key.endswith("_rmse")):
        rmse, error, smooth = (scores[f"{name}_{what}"] for what in ("rmse", "rmse_error", "smooth"))
        lines.append(f"{name:<12}{rmse:>9.4f}{error:>9.4f}{smooth:>15.3f}")
    for kind, words in (("inside", "votes"), ("resolved", "votes, 10 or more at 0.1 < p < 0.9")):
        shares = [
            f"{100 * scores[key]:.1f} % in the {key[-2:]} % intervals"
            for key in scores
            if key.startswith(kind)
        ]
        if shares:
            lines.append(f"{words}: " + ", ".join(shares))
    return lines


@dataclasses.dataclass(frozen=True)
class _Curve:
    """The learning curve: a file of all epochs, and a line on the terminal now and then."""

    path: Path

    def add(self, stage: str, line: Epoch) -> None:
        """Keep one epoch; several processes may at a time."""
        score = "" if line.score != line.score else f"{line.score:.5f}"
        row = (stage, line.epoch + 1, f"{line.rate:.6f}", f"{line.loss:.5f}", score, f"{line.seconds:.1f}")
        new = not self.path.exists()
        with self.path.open("a", newline="") as file:
            if new:
                csv.writer(file).writerow(["stage", "epoch", "rate", "loss", "rmse_held_back", "seconds"])
            csv.writer(file).writerow(row)
        if score or line.epoch % 10 == 0:
            print(f"{stage}: epoch {row[1]}, loss {row[3]} {score and 'RMSE ' + score}", file=sys.stderr)
