"""Options of the survey ``rubin``: their defaults, and what does not fit among them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gzscale.errors import ConfigError
from gzscale.surveys.options import check_bands, check_template, take_options
from gzscale.surveys.rubin_repository import BANDS

__all__ = ["FLAGS", "take_settings"]

#: Mask planes that become flags where they are declared; DP1 has no BRIGHT_OBJECT.
FLAGS = ("NO_DATA", "SAT", "BRIGHT_OBJECT", "DETECTED_NEGATIVE", "INTRP", "CLIPPED", "SENSOR_EDGE", "BAD")
_DEFAULTS: dict[str, Any] = {
    "collections": None,
    "dataset_type": "deep_coadd",
    "skymap": None,
    "tree": None,
    "index": None,
    "blank": ["NO_DATA"],
    "flags": None,
    "zero_point": None,
    "cache_cap": "100GB",
}


def take_settings(bands: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return every option of the survey, as given or by default: see `gzscale.surveys.rubin.RubinSurvey`.

    Raises
    ------
    ConfigError
        If a band or an option is unknown, or a value does not fit.
    """
    settings = take_options("rubin", options, _DEFAULTS)
    check_bands("LSST", bands, BANDS)
    collections = settings["collections"]
    settings["collections"] = [collections] if isinstance(collections, str) else collections
    for name in ("blank", "flags", "collections"):
        value = settings[name]
        if value is not None and not (
            isinstance(value, list | tuple) and all(isinstance(v, str) for v in value)
        ):
            raise ConfigError(f"survey.options.{name}: {value!r} is not a list of names")
    if len(settings["flags"] or ()) > 8:
        raise ConfigError("survey.options.flags: at most 8 mask planes become flags")
    zero_point = settings["zero_point"]
    if zero_point is not None and not (isinstance(zero_point, int | float) and 0 < zero_point < 60):
        raise ConfigError(f"survey.options.zero_point: {zero_point!r} is not an AB magnitude")
    _check_source(settings)
    return settings


def _check_source(settings: Mapping[str, Any]) -> None:
    """Refuse settings that say neither how a tree's coadds are found nor where in a Butler."""
    if settings["tree"]:
        fields = ("tract", "patch", "band")
        check_template("tree", settings["tree"], fields, tract=1, patch=1, band="r")
        if not settings["index"]:
            raise ConfigError("survey.options.index: a tree of coadds needs a table of its patches")
    elif not settings["collections"]:
        raise ConfigError(
            "survey.options.collections: a Butler needs the collections to search, such as [LSSTComCam/DP1]; "
            "or set survey.options.tree to read a plain tree of coadds"
        )
