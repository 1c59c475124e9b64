"""Surveys by name: those of this package, and those that other packages bring."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import Any

from gzscale.errors import ConfigError
from gzscale.surveys.base import Survey

__all__ = ["load_survey"]

#: Entry points of this group name surveys.
GROUP = "gzscale.surveys"


def load_survey(kind: str, root: str, bands: str, options: Mapping[str, Any]) -> Survey:
    """Make a survey by its name.

    Parameters
    ----------
    kind
        Name of an entry point of the group ``gzscale.surveys``: a class that is called
        with the three other parameters.
    root
        Folder or URL of its image tree.
    bands
        Bands to open, one letter each.
    options
        What the survey itself understands.

    Raises
    ------
    ConfigError
        If no installed package has a survey of that name, or the survey refuses its settings.
    """
    found = {entry.name: entry for entry in entry_points(group=GROUP)}
    if kind not in found:
        raise ConfigError(f"survey.kind {kind!r} is not one of {sorted(found)}")
    survey: Survey = found[kind].load()(root, bands, options)
    return survey
