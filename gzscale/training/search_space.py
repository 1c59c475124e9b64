"""The settings that a search proposes, and the recipe that has them.

Layers, width, kernels, pooling, non-linearity, dropout, learning rate, decay and batch; where a recipe starts
from learnt weights its network is given, and the last four are searched.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from gzscale.errors import ConfigError
from gzscale.training.fit import Settings
from gzscale.training.recipe import Recipe
from gzscale.training.start import complete

__all__ = ["own_settings", "require_searchable", "settings_pairs", "suggest", "with_settings"]

#: Settings that the search and the network call the same.
_SAME = ("kernel", "activation", "pooling", "dropout")


def settings_pairs(recipe: Recipe) -> list[str]:
    """Return what sets a recipe's searched settings on the command line, ``key=value`` each."""
    network = {key: recipe.network[key] for key in ("widths", "blocks", *_SAME) if key in recipe.network}
    pairs = {f"network.{key}": value for key, value in network.items()}
    pairs |= {"start": recipe.start, "sketches": recipe.sketches}
    pairs |= {f"fit.{key}": getattr(recipe.fit, key) for key in ("rate", "decay", "batch")}
    pairs |= {f"sketch_fit.{key}": getattr(recipe.sketch_fit, key) for key in ("rate", "decay")}
    return [f"{key}={json.dumps(value, separators=(',', ':'))}" for key, value in pairs.items()]


def suggest(trial: Any, recipe: Recipe) -> dict[str, Any]:
    """Propose settings, in ranges that hold the recipe's own.

    Parameters
    ----------
    trial
        `optuna.trial.Trial`.
    recipe
        What the search starts from.

    Returns
    -------
    dict[str, Any]
        See `own_settings`.
    """
    own = own_settings(recipe)

    def number(name: str, low: float, high: float, log: bool = False) -> Any:
        return trial.suggest_float(name, min(low, own[name]), max(high, own[name]), log=log)

    def whole(name: str, low: int, high: int) -> Any:
        return trial.suggest_int(name, min(low, own[name]), max(high, own[name]))

    def one_of(name: str, *choices: Any) -> Any:
        return trial.suggest_categorical(name, [*choices, *({own[name]} - {*choices})])

    chosen = {
        "dropout": number("dropout", 0.0, 0.5),
        "rate": number("rate", 0.005, 0.1, log=True),
        "decay": number("decay", 0.005, 0.5, log=True),
        "batch": one_of("batch", 16, 32),
    }
    if recipe.start:
        return chosen
    return chosen | {
        "stages": whole("stages", 3, 4),
        "blocks": whole("blocks", 1, 2),
        "width": whole("width", 3, 8),
        "kernel": one_of("kernel", 3, 5),
        "activation": one_of("activation", "relu", "gelu", "silu"),
        "pooling": one_of("pooling", "mean", "mean-max"),
    }


def require_searchable(recipe: Recipe) -> None:
    """Refuse a recipe that is none of those that would be proposed, and could not be the first trial.

    Raises
    ------
    ConfigError
        With what would have to be set.
    """
    if not recipe.fit.decay:
        raise ConfigError("search: fit.decay=0: it is searched by its logarithm; set it above 0")
    blocks = complete(recipe.network)["blocks"]
    if not recipe.start and len(set(blocks)) > 1:
        raise ConfigError(
            f"search: network.blocks={blocks}: all stages are searched with as many blocks; set such ones"
        )


def own_settings(recipe: Recipe) -> dict[str, Any]:
    """Return the recipe's settings as `suggest` would name them."""
    network, learnt = complete(recipe.network), recipe.fit
    chosen = {
        "dropout": network["dropout"],
        "rate": learnt.rate,
        "decay": learnt.decay,
        "batch": learnt.batch,
    }
    if recipe.start:
        return chosen
    return chosen | {
        "stages": len(network["widths"]),
        "blocks": network["blocks"][0],
        "width": network["widths"][0],
        "kernel": network["kernel"],
        "activation": network["activation"],
        "pooling": network["pooling"],
    }


def _widths(own: Sequence[int], first: int, stages: int) -> list[int]:
    """Return the recipe's widths times what makes the first another; of further stages, twice the last."""
    widths = [max(1, round(width * first / own[0])) for width in own[:stages]]
    while len(widths) < stages:
        widths.append(2 * widths[-1])
    return widths


def with_settings(recipe: Recipe, chosen: Mapping[str, Any]) -> Recipe:
    """Return the recipe with other settings.

    Parameters
    ----------
    recipe
        What keeps all else.
    chosen
        As `own_settings` names them. The sketches are learnt as much faster or slower as the galaxies.
    """
    network = {**recipe.network, **{key: chosen[key] for key in _SAME if key in chosen}}
    if "stages" in chosen:
        own = complete(recipe.network)["widths"]
        network["widths"] = _widths(own, chosen["width"], chosen["stages"])
        network["blocks"] = [chosen["blocks"]] * chosen["stages"]
    learnt, drawn = recipe.fit, recipe.sketch_fit
    fit_settings: Settings = dataclasses.replace(
        learnt, batch=chosen["batch"], rate=chosen["rate"], decay=chosen["decay"]
    )
    sketch_fit: Settings = dataclasses.replace(
        drawn,
        rate=drawn.rate * (chosen["rate"] / learnt.rate),
        decay=drawn.decay * (chosen["decay"] / learnt.decay),
    )
    return dataclasses.replace(recipe, network=network, fit=fit_settings, sketch_fit=sketch_fit)
