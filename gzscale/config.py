"""The night's configuration: file < environment < command line; unknown keys are errors."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from gzscale.errors import ConfigError, StorageError
from gzscale.storage import open_storage

__all__ = [
    "CatalogConfig",
    "GeometryConfig",
    "NightConfig",
    "ReleaseConfig",
    "SurveyConfig",
    "TaskConfig",
    "load_config",
    "parse_bytes",
]

#: A configuration file is a few kilobytes; anything larger is a mistake.
MAX_CONFIG_BYTES = 1_000_000
ENVIRONMENT_PREFIX = "GZSCALE_"

_BYTES = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([kKMGT]?)i?B?\s*")
_SCALE = re.compile(r"\s*(\d*\.?\d+)\s*\*\s*size\s*")


def parse_bytes(text: str | int) -> int:
    """Read a number of bytes: ``20GB``, ``512 MB``, ``1000``.

    Raises
    ------
    ValueError
        If the text is not a number with a decimal unit.
    """
    if isinstance(text, int):
        return text
    match = _BYTES.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a number of bytes such as 20GB")
    power = " kMGT".index(match[2].replace("K", "k") or " ")
    return int(float(match[1]) * 1000**power)


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SurveyConfig(_Section):
    """Where the pixels come from."""

    kind: str = Field(description="Name of the survey: sdss, or one that another package brings.")
    root: str = Field(description="Folder or URL of the survey's image tree.")
    bands: str = Field(description="Bands to cut, one letter each, in the order of the store.")
    options: dict[str, Any] = Field(
        default_factory=dict, description="What the survey itself understands: rerun, index, cache ..."
    )

    @field_validator("bands")
    @classmethod
    def _bands(cls, bands: str) -> str:
        if not bands or len(set(bands)) != len(bands):
            raise ValueError(f"bands {bands!r}: at least one letter, each once")
        return bands


class CatalogConfig(_Section):
    """The table of objects."""

    path: str = Field(description="File, folder or URL of the table.")
    columns: dict[str, str] = Field(
        description="gzscale's name -> the table's name; object_id, ra and dec are needed."
    )
    format: Literal["auto", "parquet", "hats", "fits", "votable", "csv"] = "auto"

    @field_validator("columns")
    @classmethod
    def _columns(cls, columns: dict[str, str]) -> dict[str, str]:
        known = {"object_id", "ra", "dec", "size", "run", "camcol", "field"}
        missing = {"object_id", "ra", "dec"} - set(columns)
        unknown = set(columns) - known
        if missing or unknown:
            raise ValueError(
                f"columns: missing {sorted(missing)}, unknown {sorted(unknown)}; "
                f"the names on the left are {sorted(known)}"
            )
        return columns


class GeometryConfig(_Section):
    """How a cutout is laid on the sky."""

    size: int = Field(ge=8, le=1024, description="Side of the cutout in pixels.")
    scale: float | str = Field(description="Pixel scale: arcsec, or '0.08 * size' with the object's size.")

    @model_validator(mode="after")
    def _scale(self) -> GeometryConfig:
        if isinstance(self.scale, str) and not _SCALE.fullmatch(self.scale):
            raise ValueError(f"scale {self.scale!r}: a number of arcsec, or '<number> * size'")
        if self.factor <= 0:
            raise ValueError(f"scale {self.scale!r} is not positive")
        return self

    @property
    def needs_size(self) -> bool:
        """Whether the pixel scale follows the object's size."""
        return isinstance(self.scale, str)

    @property
    def factor(self) -> float:
        """Arcsec a pixel, or arcsec a pixel and arcsec of the object's size."""
        if isinstance(self.scale, str):
            match = _SCALE.fullmatch(self.scale)
            return float(match[1]) if match else 0.0
        return float(self.scale)


class TaskConfig(_Section):
    """One task of the night."""

    geometry: str = Field(description="Which of the geometries its bundle is fed with.")
    bundle: str | None = Field(
        default=None, description="Path or URL of a bundle; the shipped one if absent."
    )


class ReleaseConfig(_Section):
    """How catalogs are published."""

    max_rows: int = Field(default=1_000_000, ge=1, description="Rows of a released HEALPix pixel at most.")
    margin: float = Field(default=10.0, ge=0, description="Width of the margin cache in arcsec.")


class NightConfig(_Section):
    """Everything that a night needs to know."""

    survey: SurveyConfig
    catalog: CatalogConfig
    geometries: dict[str, GeometryConfig] = Field(min_length=1)
    tasks: dict[str, TaskConfig] = Field(min_length=1)
    output: str = "./night"
    cluster: str = "local"
    max_objects: int = Field(default=2048, ge=1, description="Objects of a partition at most.")
    release: ReleaseConfig = ReleaseConfig()

    @model_validator(mode="after")
    def _references(self) -> NightConfig:
        for name, task in self.tasks.items():
            if task.geometry not in self.geometries:
                raise ValueError(
                    f"tasks.{name}.geometry is {task.geometry!r}; geometries are {sorted(self.geometries)}"
                )
        for name, geometry in self.geometries.items():
            if geometry.needs_size and "size" not in self.catalog.columns:
                raise ValueError(
                    f"geometries.{name}.scale is {geometry.scale!r}, but catalog.columns maps no size"
                )
        return self


def load_config(
    path: str, settings: Sequence[str] = (), environment: Mapping[str, str] | None = None
) -> NightConfig:
    """Read a night's configuration.

    Parameters
    ----------
    path
        YAML file or URL. Relative paths inside it are relative to its folder.
    settings
        ``key=value`` pairs of the command line; the key is dotted, the value is YAML.
        Relative paths in them are relative to the working folder.
    environment
        ``GZSCALE_SURVEY__ROOT=...``; by default the process's own.

    Raises
    ------
    ConfigError
        If the file cannot be read, a key is unknown or a value does not fit.
    """
    tree = _read_yaml(path)
    _resolve_paths(tree, os.path.dirname(path) if "://" in path else str(Path(path).resolve().parent))
    overlay: dict[str, Any] = {}
    for name, value in sorted((os.environ if environment is None else environment).items()):
        if (name.startswith(ENVIRONMENT_PREFIX) and "__" in name) or name in _TOP_LEVEL:
            keys = name.removeprefix(ENVIRONMENT_PREFIX).lower().split("__")
            _assign(overlay, keys, _scalar(value, name), name)
    for setting in settings:
        key, separator, value = setting.partition("=")
        if not separator or not key:
            raise ConfigError(f"--set {setting!r}: expected key=value, for example survey.root=/data/sdss")
        _assign(overlay, key.split("."), _scalar(value, setting), f"--set {setting}")
    _resolve_paths(overlay, os.getcwd())
    try:
        return NightConfig.model_validate(_merge(tree, overlay))
    except ValidationError as error:
        lines = [f"  {'.'.join(map(str, item['loc'])) or 'night'}: {item['msg']}" for item in error.errors()]
        raise ConfigError(f"{path}: {len(lines)} problem(s)\n" + "\n".join(lines)) from error


_TOP_LEVEL = frozenset({"GZSCALE_OUTPUT", "GZSCALE_CLUSTER", "GZSCALE_MAX_OBJECTS"})
_PATHS = (("survey", "root"), ("catalog", "path"), ("output",))


def _read_yaml(path: str) -> dict[str, Any]:
    try:
        folder, _, name = path.rpartition("/")
        storage = open_storage(folder or ("/" if path.startswith("/") else "."))
        entry = storage.stat(name)
        if entry is not None and entry.size > MAX_CONFIG_BYTES:
            raise ConfigError(f"{path}: {entry.size} bytes; a configuration has at most {MAX_CONFIG_BYTES}")
        text = storage.get(name).decode()
        tree = yaml.safe_load(text)
    except StorageError as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not YAML: {error}") from error
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: expected sections (survey, catalog, ...), found {type(tree).__name__}")
    return tree


def _scalar(text: str, name: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{name}: the value is not YAML: {error}") from error


def _assign(tree: dict[str, Any], keys: list[str], value: Any, name: str) -> None:
    for key in keys[:-1]:
        tree = tree.setdefault(key, {})
        if not isinstance(tree, dict):
            raise ConfigError(f"{name}: {key} is set to a value already")
    tree[keys[-1]] = value


def _merge(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        merged[key] = _merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def _resolve_paths(tree: dict[str, Any], folder: str) -> None:
    """Make the relative paths of a tree absolute, so that they mean the same in every process."""
    places = list(_PATHS)
    places += [("tasks", name, "bundle") for name in tree.get("tasks") or {}]
    places += [("survey", "options", name) for name in ("index", "cache")]
    for place in places:
        node: Any = tree
        for key in place[:-1]:
            node = node.get(key) if isinstance(node, dict) else None
        value = node.get(place[-1]) if isinstance(node, dict) else None
        if isinstance(value, str) and "://" not in value and not os.path.isabs(os.path.expanduser(value)):
            node[place[-1]] = (
                f"{folder}/{value}" if "://" in folder else os.path.normpath(f"{folder}/{value}")
            )
