"""What ``gzscale train`` and ``gzscale evaluate`` do: from paths to a bundle and to lines of text."""

from __future__ import annotations

import csv
import dataclasses
import fcntl
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from gzscale.errors import ConfigError
from gzscale.models.bundle import load_bundle
from gzscale.models.votes import USUAL_VOTES
from gzscale.training.ending import beside, finish, require_place
from gzscale.training.evaluate import evaluate_morphology
from gzscale.training.label_tables import read_labels
from gzscale.training.labelled import LabelledSet, read_labelled
from gzscale.training.loop import Epoch
from gzscale.training.members import learn_members
from gzscale.training.morphology import train_morphology
from gzscale.training.processes import count_processes, is_first, joined, sole_writer
from gzscale.training.recipe import Recipe
from gzscale.training.search_space import require_searchable
from gzscale.training.start import require_sketches, start_of, train_sketches

__all__ = ["Curve", "change", "changed", "evaluate_bundle", "train_bundle", "train_sketch_bundle"]

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
    cluster: str = "local",
    geometry: str | None = None,
) -> Iterator[str]:
    """Train a morphology bundle and write it, with its learning curve beside it.

    Started by ``torchrun``, every process calls it; the first says and writes all.

    Parameters
    ----------
    labels, kind, mapping
        See `gzscale.training.label_tables.read_labels`.
    images
        See `gzscale.training.labelled.read_labelled`.
    output
        Path or URL of the bundle. Checkpoints lie in ``<output>.work`` until it is written, the learning
        curve in ``<output>.curve.csv``; those of a URL here, by its last part.
    name
        Name of the model.
    settings
        ``key=value`` for any key of `gzscale.training.recipe.Recipe`, dotted.
    search
        Trials of a search for better settings, 0 for none.
    cluster
        That the trials run on, see `gzscale.cluster.open_cluster`.
    geometry
        Which cutouts of a store, ``galaxy`` if absent.

    Yields
    ------
    str
        Lines for the user.
    """
    recipe = changed(Recipe(), settings)
    recipe.check()
    start_of(recipe)
    if search:
        require_searchable(recipe)
    require_place(output)
    work = beside(output, "work")
    with joined():
        if search and count_processes() > 1:
            raise ConfigError(
                f"--search {search} with {count_processes()} processes: search without torchrun, on "
                "--cluster cuda say, then train with the settings that it prints"
            )
        if not is_first():
            labelled = read_labelled(read_labels(labels, kind, mapping), images, geometry)
            learn_members(labelled, recipe, name, work)
            return
        with sole_writer(work):
            labelled = read_labelled(read_labels(labels, kind, mapping), images, geometry)
            yield _account(labelled)
            if search:
                from gzscale.training.search import search_settings

                recipe, lines = search_settings(labelled, recipe, search, work / "search.journal", cluster)
                yield from lines
            bundle = train_morphology(labelled, recipe, name, work, _begin_curve(output, work).add)
            finish(bundle, output, work)
    yield from _table(bundle.scores)
    yield output


def train_sketch_bundle(output: str, name: str, settings: Sequence[str] = ()) -> Iterator[str]:
    """Train a bundle that morphology bundles start from, and write it; it needs no labels and no images.

    Parameters
    ----------
    output, name, settings
        See `train_bundle`.

    Yields
    ------
    str
        Lines for the user.
    """
    recipe = changed(Recipe(), settings)
    require_sketches(recipe)
    require_place(output)
    work = beside(output, "work")
    with joined():
        if not is_first():
            train_sketches(recipe, name, work)
            return
        with sole_writer(work):
            bundle = train_sketches(recipe, name, work, _begin_curve(output, work).add)
            finish(bundle, output, work)
    yield output


def evaluate_bundle(
    bundle: str, labels: str, images: str, kind: str, mapping: str | None, geometry: str | None = None
) -> tuple[dict[str, Any], list[str]]:
    """Score a bundle; return the scores and lines for the user. See `train_bundle`."""
    labelled = read_labelled(read_labels(labels, kind, mapping), images, geometry)
    found = evaluate_morphology(load_bundle(bundle), labelled)
    story = {
        "scores": found.scores,
        "questions": found.questions,
        "intervals": found.intervals,
        "learnt": found.learnt,
        "clean": None if found.clean is None else dict(zip(("answers", "agreed"), found.clean, strict=True)),
        "warning": found.warning,
        "refused": dict(labelled.labels.refused),
        "unclear_flags": labelled.labels.flags.unclear if labelled.labels.flags else 0,
    }
    lines = [_account(labelled)]
    if found.learnt:
        lines.append(
            f"{found.learnt} of them were learnt: each is predicted by the member that did not learn it"
        )
    if found.warning:
        lines.append(f"warning: {found.warning}")
    lines += _table(found.scores)
    lines += _clean(found.clean, labelled)
    lines += [
        _question(number, found.questions.get(number), part) for number, part in found.intervals.items()
    ]
    return story, lines


def changed(settings: _Settings, pairs: Sequence[str]) -> _Settings:
    """Return settings with the values of ``key=value`` pairs; see `change`."""
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise ConfigError(f"--set {pair}: expected KEY=VALUE, such as fit.epochs=40")
        settings = change(settings, key, value)
    return settings


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
        If there is no such key, or the value cannot be used.
    """
    first, _, rest = key.partition(".")
    names = [item.name for item in dataclasses.fields(settings)]  # type: ignore[arg-type]
    if first not in names:
        raise ConfigError(f"{key!r}: no such setting; there are {', '.join(names)}")
    old = getattr(settings, first)
    if rest and not (dataclasses.is_dataclass(old) or isinstance(old, dict)):
        raise ConfigError(f"{key}={value}: {first} has no parts")
    if not rest and dataclasses.is_dataclass(old):
        raise ConfigError(f"{key}={value}: {first} needs a part: {first}.KEY")
    if dataclasses.is_dataclass(old):
        new: Any = change(old, rest, value)
    else:
        try:
            new = json.loads(value)
        except json.JSONDecodeError:
            new = value
        if isinstance(old, dict) and rest:
            new = _within(old, rest, new)
        elif isinstance(old, tuple) and isinstance(new, list):
            new = tuple(new)
        elif isinstance(old, float) and isinstance(new, int):
            new = float(new)
        elif type(new) is not type(old):
            raise ConfigError(f"{key}={value}: expected {type(old).__name__}, such as {old!r}")
    return dataclasses.replace(settings, **{first: new})  # type: ignore[type-var]


def _within(settings: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    """Return a mapping of mappings with one value, at a dotted key, replaced or added."""
    first, _, rest = key.partition(".")
    if not rest:
        return {**settings, first: value}
    below = settings.get(first, {})
    if not isinstance(below, dict):
        raise ConfigError(f"{key!r}: {first} is {below!r}, and has no keys")
    return {**settings, first: _within(below, rest, value)}


def _question(number: int, rmse: float | None, part: dict[str, float]) -> str:
    """Return a question's scores in a line: RMSE, shares in the intervals, and of those resolved."""
    error = "where half were asked: none" if rmse is None else f"RMSE {rmse:.4f}"
    shares = [
        f"{100 * part[f'{kind}_68']:.1f} and {100 * part[f'{kind}_95']:.1f} % {words}"
        for kind, words in (("inside", "inside"), ("resolved", f"of {part['resolved']:.0f} resolved"))
        if f"{kind}_68" in part
    ]
    return f"question {number:<2}  {'; '.join([error, ', '.join(shares)] if shares else [error])}"


def _clean(found: tuple[int, int] | None, labelled: LabelledSet) -> list[str]:
    """Return what is said of the table's clean samples."""
    flags = labelled.labels.flags
    if found is None or flags is None:
        return []
    answers, agreed = found
    share = f", for {100 * agreed / answers:.1f} % the network's most voted answer" if answers else ""
    unclear = f"; {flags.unclear} flags of the table are neither 0 nor 1" if flags.unclear else ""
    return [f"clean samples: {answers} answers are flagged in the table{share}{unclear}"]


def _account(labelled: LabelledSet) -> str:
    refused = ", ".join(f"{count} {reason}" for reason, count in sorted(labelled.labels.refused.items()))
    unknown = int((~labelled.labels.says_votes()).sum())
    assumed = f"; of {unknown} the table says no votes: {USUAL_VOTES:.0f} are assumed" if unknown else ""
    return f"{len(labelled)} labelled galaxies with an image; not used: {refused or 'none'}{assumed}"


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


def _begin_curve(output: str, work: Path) -> Curve:
    """Return the curve of a training: a new one, unless the training goes on from a checkpoint."""
    curve = Curve(beside(output, "curve.csv"))
    if not any(work.glob("*.safetensors")):
        curve.path.unlink(missing_ok=True)
    return curve.begun()


@dataclasses.dataclass(frozen=True)
class Curve:
    """The learning curve: a file of all epochs, and a line on the terminal now and then."""

    path: Path
    score: str = "RMSE"

    def begun(self) -> Curve:
        """Return this curve, with the names of its columns written, before any process adds to it."""
        if not self.path.exists():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("w", newline="") as file:
                csv.writer(file, lineterminator="\n").writerow(
                    ["stage", "epoch", "rate", "loss", f"{self.score.lower()}_held_back", "seconds"]
                )
        return self

    def add(self, stage: str, line: Epoch) -> None:
        """Keep one epoch in place of what a fit that was killed had said of it; several processes may."""
        score = "" if line.score != line.score else f"{line.score:.5f}"
        row = (stage, line.epoch + 1, f"{line.rate:.6f}", f"{line.loss:.5f}", score, f"{line.seconds:.1f}")
        with self.path.open("a+", newline="") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            text = file.read()
            known = text.splitlines()
            kept = [past for past in known if not _is_repeated(past, stage, line.epoch)]
            if len(kept) < len(known) or (text and not text.endswith("\n")):
                file.truncate(0)
                file.write("".join(f"{past}\n" for past in kept))
            csv.writer(file, lineterminator="\n").writerow(row)
        if score or line.epoch % 10 == 0:
            print(
                f"{stage}: epoch {row[1]}, loss {row[3]} {score and f'{self.score} {score}'}", file=sys.stderr
            )


def _is_repeated(past: str, stage: str, epoch: int) -> bool:
    """Tell whether a line is of this stage and of an epoch that is learnt again, or is torn."""
    its_stage, *others = past.split(",")
    if its_stage != stage:
        return False
    return len(others) != 5 or not others[0].isdecimal() or int(others[0]) > epoch
