"""Options of the survey ``sdss``: their defaults, and what does not fit among them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gzscale.errors import ConfigError
from gzscale.surveys.options import check_bands, check_template, take_options
from gzscale.surveys.sdss_masks import SPAN_PLANES
from gzscale.surveys.sdss_paths import TREE

__all__ = ["BANDS", "take_settings"]

BANDS = "ugriz"
_DEFAULTS: dict[str, Any] = {
    "rerun": 301,
    "index": None,
    "cache_cap": "20GB",
    "tree": TREE,
    "masks": None,
    "mask_planes": ["SATUR"],
}


def take_settings(bands: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return every option of the survey, as given or by default: see `gzscale.surveys.sdss.SdssSurvey`.

    Raises
    ------
    ConfigError
        If a band or an option is unknown, or a value does not fit.
    """
    settings = take_options("sdss", options, _DEFAULTS)
    check_bands("SDSS", bands, BANDS)
    try:
        rerun = int(settings["rerun"])
    except (ValueError, TypeError) as error:
        raise ConfigError(f"survey.options.rerun: {error}") from error
    for option in ("tree", "masks"):
        if settings[option]:
            example = {"rerun": rerun, "run": 1, "camcol": 1, "field": 1, "band": "r"}
            check_template(option, settings[option], ("band", "run", "camcol", "field"), **example)
    strange = sorted(set(settings["mask_planes"]) - set(SPAN_PLANES))
    if strange:
        raise ConfigError(
            f"survey.options.mask_planes: unknown {', '.join(strange)}; there are {', '.join(SPAN_PLANES)}"
        )
    return settings
