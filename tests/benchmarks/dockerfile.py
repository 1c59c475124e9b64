"""Reads a Dockerfile into stages of instructions: what `build_steps.py` runs without a container engine."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Step:
    """One instruction, continuation lines joined."""

    line: int
    word: str
    rest: str

    @property
    def flags(self) -> dict[str, str]:
        """Return ``--from=build`` and the like."""
        return dict(re.findall(r"--(\w+)=(\S+)", self.rest.split(" /")[0]))

    @property
    def words(self) -> list[str]:
        """Return the arguments that are no flags; those of a JSON form as well."""
        text = self.rest.strip("[]").replace(",", " ") if self.rest.startswith("[") else self.rest
        return [item for item in shlex.split(text) if not item.startswith("--")]


@dataclass
class Stage:
    """What follows one FROM."""

    base: str
    name: str
    steps: list[Step] = field(default_factory=list)


def read_dockerfile(path: Path) -> list[Stage]:
    """Return the stages of a Dockerfile in order.

    Raises
    ------
    ValueError
        If an instruction stands before the first FROM.
    """
    stages: list[Stage] = []
    for step in _steps(path.read_text()):
        if step.word == "FROM":
            base, *named = step.words
            stages.append(Stage(base, named[-1] if named else str(len(stages))))
        elif not stages:
            raise ValueError(f"{path}: line {step.line}: {step.word} before the first FROM")
        else:
            stages[-1].steps.append(step)
    return stages


def _steps(text: str) -> list[Step]:
    found, pending, first = [], "", 0
    for number, line in enumerate(text.splitlines(), 1):
        if line.lstrip().startswith("#") or not line.strip():
            continue
        first = first or number
        pending += line.rstrip().removesuffix("\\")
        if not line.rstrip().endswith("\\"):
            word, _, rest = pending.strip().partition(" ")
            found.append(Step(first, word.upper(), " ".join(rest.split())))
            pending, first = "", 0
    return found


def expand(text: str, values: dict[str, str]) -> str:
    """Put variables in place, as ENV and ARG do; one that is not set is empty."""
    return re.sub(r"\$(?:\{(\w+)\}|(\w+))", lambda found: values.get(found[1] or found[2], ""), text)


def assignments(rest: str, values: dict[str, str]) -> dict[str, str]:
    """Read ``NAME=VALUE ...`` of ENV."""
    pairs = (item.partition("=") for item in shlex.split(rest))
    return {name: expand(value, values) for name, _, value in pairs}
