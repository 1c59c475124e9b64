"""What options of surveys have in common: known names, bands, path templates, how files are fetched."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gzscale.config import parse_bytes
from gzscale.errors import ConfigError
from gzscale.surveys.fetch import Fetcher, Found, default_cache

__all__ = ["Transfer", "check_bands", "check_template", "take_options", "transfer_of"]

#: Transfers at one time unless the night says otherwise.
CONCURRENCY = 8


@dataclass(frozen=True, slots=True)
class Transfer:
    """How image files are fetched: see `gzscale.surveys.fetch.Fetcher`.

    Attributes
    ----------
    cache
        Folder for what is fetched.
    cap
        Bytes that it may hold.
    concurrency
        Transfers at one time.
    largest
        Bytes of a file at most; the fetcher's own limit if None.
    found
        What all its fetchers have fetched ahead.
    """

    cache: str
    cap: int
    concurrency: int
    largest: int | None = None
    found: Found = field(default_factory=dict, compare=False, repr=False)

    def fetcher(self, root: str) -> Fetcher:
        """Make what reads files below a root."""
        return Fetcher(root, self.cache, self.cap, self.concurrency, self.largest, self.found)


def take_options(survey: str, given: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return every option of a survey, as given or by default.

    Parameters
    ----------
    survey
        Its kind, for messages.
    given
        ``survey.options`` of a night.
    defaults
        By name, ``cache_cap`` among them; ``cache`` and ``concurrency`` are known beside them.

    Raises
    ------
    ConfigError
        If an option is unknown.
    """
    known = {"cache": None, "concurrency": CONCURRENCY} | dict(defaults)
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise ConfigError(
            f"survey.options: unknown {', '.join(unknown)}; {survey} knows {', '.join(sorted(known))}"
        )
    return known | dict(given)


def check_bands(name: str, bands: str, known: str) -> None:
    """Refuse bands that a survey does not have, or that are asked for twice.

    Raises
    ------
    ConfigError
        With the bands that there are.
    """
    if not bands or set(bands) - set(known) or len(set(bands)) != len(bands):
        raise ConfigError(f"survey.bands {bands!r}: {name} has the bands {known}, each at most once")


def check_template(option: str, template: Any, fields: Sequence[str], **example: Any) -> None:
    """Refuse a path template that cannot be filled in, or gives several images one path.

    Parameters
    ----------
    option
        Its name.
    template
        A format string.
    fields
        What it has to hold in braces.
    example
        Values of all fields that it may hold.

    Raises
    ------
    ConfigError
        With what is wrong.
    """
    try:
        template.format(**example)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        allowed = ", ".join(f"{{{field}}}" for field in example)
        raise ConfigError(
            f"survey.options.{option}: {template!r} is not a path template of {allowed} "
            f"({type(error).__name__}: {error})"
        ) from error
    if not all(f"{{{field}" in template for field in fields):
        needed = ", ".join(f"{{{field}}}" for field in fields)
        raise ConfigError(f"survey.options.{option}: {template!r} needs {needed}")


def transfer_of(options: Mapping[str, Any], largest: int | None = None) -> Transfer:
    """Return how a survey's files are fetched: its options ``cache``, ``cache_cap`` and ``concurrency``.

    Raises
    ------
    ConfigError
        If a value does not fit.
    """
    try:
        cap, concurrency = parse_bytes(options["cache_cap"]), int(options["concurrency"])
        cache = os.path.expanduser(options["cache"] or default_cache())
    except (ValueError, TypeError) as error:
        raise ConfigError(f"survey.options: {error}") from error
    if concurrency < 1 or cap < 0:
        raise ConfigError(
            f"survey.options: concurrency {concurrency}, cache_cap {cap} bytes; concurrency is at least 1, "
            "cache_cap a number of bytes such as 20GB"
        )
    return Transfer(cache, cap, concurrency, largest)
