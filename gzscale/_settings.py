"""How a configuration comes together: layers, paths, and what to say when it does not fit."""

from __future__ import annotations

import difflib
import os
import posixpath
import reprlib
from collections.abc import Mapping, Sequence
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError

from gzscale._yaml import parse_yaml
from gzscale.errors import ConfigError

__all__ = ["explain", "merge", "overlay_of", "resolve_paths"]

ENVIRONMENT_PREFIX = "GZSCALE_"

_TOP_LEVEL = frozenset({"GZSCALE_OUTPUT", "GZSCALE_CLUSTER", "GZSCALE_MAX_OBJECTS"})
_PATHS = (
    ("survey", "root"),
    ("survey", "options", "index"),
    ("survey", "options", "cache"),
    ("catalog", "path"),
    ("output",),
)


def overlay_of(
    environment: Mapping[str, str], settings: Sequence[str]
) -> tuple[dict[str, Any], dict[str, str]]:
    """Gather what environment and command line set.

    Returns
    -------
    overlay : dict
        The nested values; those of the command line stand above the environment's.
    origins : dict
        Dotted key -> the variable or the ``--set`` that it came from.
    """
    overlay: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for name, text in sorted(environment.items()):
        if (name.startswith(ENVIRONMENT_PREFIX) and "__" in name) or name in _TOP_LEVEL:
            keys = name.removeprefix(ENVIRONMENT_PREFIX).lower().split("__")
            _assign(overlay, keys, _value(text, name), name)
            origins[".".join(keys)] = name
    for setting in settings:
        key, separator, text = setting.partition("=")
        keys = key.strip().split(".")
        if not separator or not all(keys):
            raise ConfigError(f"--set {setting!r}: expected key=value, for example survey.root=/data/sdss")
        _assign(overlay, keys, _value(text, f"--set {key}"), f"--set {key}")
        origins[".".join(keys)] = f"--set {key}"
    return overlay, origins


def _value(text: str, origin: str) -> Any:
    try:
        return parse_yaml(text)
    except ValueError as error:
        raise ConfigError(f"{origin}: {reprlib.repr(text)} is not a YAML value: {error}") from error


def _assign(tree: dict[str, Any], keys: list[str], value: Any, origin: str) -> None:
    for key in keys[:-1]:
        tree = tree.setdefault(key, {})
        if not isinstance(tree, dict):
            raise ConfigError(f"{origin}: {key} is set to a single value already, and cannot hold {keys[-1]}")
    old = tree.get(keys[-1])
    tree[keys[-1]] = merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value


def merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Lay one tree over another: sections are merged, everything else is replaced."""
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def resolve_paths(tree: dict[str, Any], folder: str) -> None:
    """Make the relative paths of a tree absolute, in place, so that every process reads them alike.

    Parameters
    ----------
    tree
        A configuration, or a part of one; what does not fit is left for the validation.
    folder
        Absolute path, or URL, that relative paths start from.
    """
    tasks = tree.get("tasks")
    bundles = [("tasks", name, "bundle") for name in tasks] if isinstance(tasks, dict) else []
    for place in [*_PATHS, *bundles]:
        node: Any = tree
        for key in place[:-1]:
            node = node.get(key) if isinstance(node, dict) else None
        value = node.get(place[-1]) if isinstance(node, dict) else None
        if isinstance(value, str) and value and "://" not in value:
            node[place[-1]] = _absolute(os.path.expanduser(value), folder)


def _absolute(path: str, folder: str) -> str:
    if os.path.isabs(path):
        return path
    if "://" not in folder:
        return os.path.normpath(f"{folder}/{path}")
    protocol, _, place = folder.partition("://")
    host, _, below = place.partition("/")
    # Normalised below the host or bucket: as many ".." as there may be, they end there.
    return f"{protocol}://{host}{posixpath.normpath(f'/{below}/{path}'.replace('//', '/'))}"


def explain(error: ValidationError, model: type[BaseModel], path: str, origins: Mapping[str, str]) -> str:
    """Say what does not fit, a line a problem: the dotted key, what is wrong, where it was set.

    Parameters
    ----------
    error
        What pydantic found.
    model
        The model of the whole configuration.
    path
        The configuration file's name.
    origins
        As `overlay_of` gives them.
    """
    lines: dict[str, None] = {}
    for item in error.errors(include_url=False):
        keys, siblings = _place(item["loc"], model)
        dotted = ".".join(keys)
        origin = next((origins[key] for key in _above(keys) if key in origins), None)
        said = f"  {dotted + ': ' if dotted else ''}{_problem(item, keys, siblings)}"
        lines[said + (f" (set by {origin})" if origin else "")] = None
    return f"{path}: {len(lines)} problem{'s' * (len(lines) != 1)}\n" + "\n".join(lines)


def _above(keys: list[str]) -> list[str]:
    return [".".join(keys[:length]) for length in range(len(keys), 0, -1)]


def _place(location: Sequence[int | str], model: type[BaseModel]) -> tuple[list[str], list[str]]:
    """Return the keys of a problem, less what pydantic adds to them, and the names known beside it."""
    keys: list[str] = []
    siblings: list[str] = []
    kind: Any = model
    for part in location:
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            siblings = list(kind.model_fields)
            field = kind.model_fields.get(str(part))
            kind = field.annotation if field else None
        elif get_origin(kind) is dict:
            siblings, kind = [], get_args(kind)[1]
        else:
            break
        keys.append(str(part))
    return keys, siblings


def _problem(item: Mapping[str, Any], keys: list[str], siblings: list[str]) -> str:
    if item["type"] == "extra_forbidden":
        near = difflib.get_close_matches(keys[-1], siblings, n=1)
        return "unknown key; " + (f"did you mean {near[0]}?" if near else f"known are {', '.join(siblings)}")
    if item["type"] == "missing":
        return "is needed, and not set"
    message = str(item["msg"]).removeprefix("Value error, ")
    if item["type"] == "value_error":
        return message
    quotes = "; put it in quotes" if item["type"] == "string_type" and _is_number(item["input"]) else ""
    return f"{message}, found {reprlib.repr(item['input'])}{quotes}"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float)
