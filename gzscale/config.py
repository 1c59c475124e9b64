"""The night's configuration: what a night needs to know, with types, defaults and bounds.

Read from file < environment < command line by `load_config`; unknown keys are errors.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from gzscale._settings import explain, merge, overlay_of, resolve_paths
from gzscale._yaml import parse_yaml
from gzscale.errors import ConfigError, CredentialsError, StorageError
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

_BYTES = re.compile(r"\s*(\d{1,18}(?:\.\d{1,18})?)\s*(?:([kKMGTP])(i?))?B?\s*", re.ASCII)
_SCALE = re.compile(r"\s*((?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*\*\s*size\s*", re.ASCII)


def parse_bytes(text: str | int) -> int:
    """Read a number of bytes: ``20GB``, ``512 MB``, ``1.5GiB``, ``1000``.

    Parameters
    ----------
    text
        A number, alone or with a decimal (kB, MB, GB, TB, PB) or a binary (KiB ... PiB)
        unit, as IEC 80000-13 has them; a fraction of a byte is dropped.

    Raises
    ------
    ValueError
        If the text is not such a number.
    """
    if isinstance(text, int) and not isinstance(text, bool) and text >= 0:
        return text
    match = _BYTES.fullmatch(str(text)) if isinstance(text, str) else None
    if match is None:
        raise ValueError(f"{text!r} is not a number of bytes such as 20GB or 1.5GiB")
    power = "kMGTP".index(match[2].replace("K", "k")) + 1 if match[2] else 0
    return int(Decimal(match[1]) * (1024 if match[3] else 1000) ** power)


class _Section(BaseModel):
    # Strict: `true` is not the number 1, and "96" in quotes is a mistake to be told of.
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


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
        if not bands.isalpha() or len(set(bands)) != len(bands):
            raise ValueError(f"bands {bands!r}: letters alone, at least one, each once, for example ugriz")
        return bands


class CatalogConfig(_Section):
    """The table of objects."""

    path: str = Field(description="File, folder or URL of the table.")
    columns: dict[str, str] = Field(
        description="gzscale's name -> the table's, or '0.39 * name' for size; object_id, ra, dec are needed."
    )
    format: Literal["auto", "parquet", "hats", "fits", "votable", "csv"] = "auto"
    mode: Literal["full", "delta"] = Field(
        default="full",
        description="Whether the table is the whole catalog, or what changed since the last complete night.",
    )
    where: str | None = Field(
        default=None, description="Cuts on the table's own columns: refExtendedness = 1 and r_psfFlux > 363."
    )

    @field_validator("where")
    @classmethod
    def _where(cls, where: str | None) -> str | None:
        if where is not None:
            from gzscale.catalog.cuts import parse_cuts  # pyarrow takes a while to import

            parse_cuts(where)
        return where

    @field_validator("columns")
    @classmethod
    def _columns(cls, columns: dict[str, str]) -> dict[str, str]:
        known = {"object_id", "ra", "dec", "size", "ebv", "run", "camcol", "field", "version", "removed"}
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
        if not 0 < self.factor < math.inf:
            raise ValueError(f"scale {self.scale!r} is not positive and finite")
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
        default=None,
        description="Path or URL of a bundle; the shipped one for these filters and cutouts if absent.",
    )
    filters: str | None = Field(
        default=None,
        description="Survey whose filters its bundle has learnt, to show it another's pixels knowingly.",
    )
    review: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="Share of the catalog on the review list; the task's own if absent.",
    )
    review_least: int = Field(default=20, ge=0, le=10_000, description="Objects of that list at least.")


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
        # Each has an account of its own, by its name, beside those of the catalog and of all objects.
        names = [*self.geometries, *self.tasks, "objects", "catalog"]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(
                f"geometries and tasks need names of their own, and {twice} occur more than once"
            )
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
        Relative paths in them are relative to the working folder. The last one wins.
    environment
        ``GZSCALE_SURVEY__ROOT=...``; by default the process's own. What starts with
        ``GZSCALE_``, has no ``__`` and is no key of the top level is somebody else's.

    Raises
    ------
    ConfigError
        If the file cannot be read, a key is unknown or a value does not fit. The message
        names every such key, and where it was set.
    """
    tree = _read_file(path)
    resolve_paths(tree, path.rpartition("/")[0] if "://" in path else str(Path(path).resolve().parent))
    overlay, origins = overlay_of(os.environ if environment is None else environment, settings)
    # The default output is relative to the working folder of this process, not of a worker's.
    overlay_below = {} if "output" in tree else {"output": NightConfig.model_fields["output"].default}
    overlay = merge(overlay_below, overlay)
    resolve_paths(overlay, os.getcwd())
    try:
        return NightConfig.model_validate(merge(tree, overlay))
    except ValidationError as error:
        raise ConfigError(explain(error, NightConfig, path, origins)) from error


def _read_file(path: str) -> dict[str, Any]:
    folder, _, name = path.rpartition("/")
    try:
        storage = open_storage(folder or ("/" if path.startswith("/") else "."))
        content = storage.get_range(name, 0, MAX_CONFIG_BYTES + 1)
    except CredentialsError:
        raise
    except StorageError as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    if len(content) > MAX_CONFIG_BYTES:
        raise ConfigError(f"{path}: more than {MAX_CONFIG_BYTES} bytes; a configuration has a few thousand")
    try:
        tree = parse_yaml(content.decode())
    except ValueError as error:
        raise ConfigError(f"{path}: not a YAML configuration: {error}") from error
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: expected sections (survey, catalog, ...), found {type(tree).__name__}")
    return tree
