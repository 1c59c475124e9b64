"""Searches better settings of the recipe: Optuna proposes, Dask workers try.

A trial trains one network on four folds of the labelled galaxies, for a part of the recipe's epochs, and is
scored on the fifth. So the scores of the bundle that is trained afterwards are, for a fifth of the
galaxies, a little better than they would be without the search; the difference is that of the best of a
few trials.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from gzscale.cluster import open_cluster
from gzscale.errors import ConfigError
from gzscale.models.network import build_network
from gzscale.training.fit import Examples, Settings, fit, predict, rmse
from gzscale.training.labelled import LabelledSet
from gzscale.training.labels import folds, require_enough
from gzscale.training.morphology import Recipe, examples_of, take_examples

__all__ = ["search_settings", "try_recipe"]

#: Share of the recipe's epochs that a trial has.
TRIAL_SHARE = 0.25


def search_settings(
    labelled: LabelledSet, recipe: Recipe, trials: int, cluster: str = "local"
) -> tuple[Recipe, list[str]]:
    """Search layers, width, kernels, pooling, non-linearity, dropout, learning rate, decay and batch.

    Parameters
    ----------
    labelled
        Pictures and votes.
    recipe
        What the search starts from; its first trial.
    trials
        How many.
    cluster
        See `gzscale.cluster.open_cluster`; one trial a worker at a time.

    Returns
    -------
    recipe : Recipe
        With the best trial's settings.
    lines : list of str
        One a trial, and what was chosen.

    Raises
    ------
    ConfigError
        If Optuna is not installed.
    """
    try:
        import optuna
    except ImportError as error:
        raise ConfigError("the search needs Optuna: install gzscale[train]") from error
    from distributed import as_completed

    require_enough(labelled.labels, "search")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    examples = examples_of(labelled)
    unseen = folds(labelled.labels.names, recipe.members) == 0
    known, asked = take_examples(examples, ~unseen), take_examples(examples, unseen)
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=recipe.fit.seed))
    study.enqueue_trial(_own(recipe))
    lines: list[str] = []
    with open_cluster(cluster) as client:
        data = client.scatter([known, asked], broadcast=True)
        running: dict[str, Any] = {}
        done = as_completed(loop=client.loop)
        left = trials
        for _ in range(len(client.scheduler_info(n_workers=-1)["workers"])):
            left -= _start(client, study, recipe, data, running, done) if left else 0
        for future in done:
            trial = running.pop(future.key)
            score = float(future.result()) if future.status == "finished" else None
            failed = optuna.trial.TrialState.FAIL
            study.tell(trial, score, state=None if score is not None else failed)
            lines.append(
                f"trial {trial.number}: {'failed' if score is None else f'RMSE {score:.4f}'} {trial.params}"
            )
            left -= _start(client, study, recipe, data, running, done) if left else 0
    lines.append(f"best: trial {study.best_trial.number}, RMSE {study.best_value:.4f}")
    found: dict[str, Any] = {"trials": len(study.trials), "best_rmse": round(study.best_value, 5)}
    found["best"] = study.best_trial.params
    return dataclasses.replace(_with(recipe, study.best_trial.params), search=found), lines


def try_recipe(recipe: Recipe, known: Examples, unseen: Examples) -> float:
    """Train one network for a part of the epochs; return its RMSE on galaxies that it has not seen."""
    settings = dataclasses.replace(recipe.fit, epochs=max(1, round(TRIAL_SHARE * recipe.fit.epochs)))
    if not torch.cuda.is_available():
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // 2))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        network = fit(build_network("equivariant", recipe.network), known, settings)
    return rmse(predict(network, unseen.pictures, settings), np.asarray(unseen.joint))


def _start(
    client: Any, study: Any, recipe: Recipe, data: list[Any], running: dict[str, Any], done: Any
) -> int:
    """Send one more trial."""
    trial = study.ask()
    future = client.submit(
        try_recipe, _with(recipe, _suggest(trial)), *data, pure=False, resources={"PREDICT": 1}
    )
    running[future.key] = trial
    done.add(future)
    return 1


def _suggest(trial: Any) -> dict[str, Any]:
    return {
        "stages": trial.suggest_int("stages", 3, 4),
        "blocks": trial.suggest_int("blocks", 1, 2),
        "width": trial.suggest_int("width", 3, 8),
        "kernel": trial.suggest_categorical("kernel", [3, 5]),
        "activation": trial.suggest_categorical("activation", ["relu", "gelu", "silu"]),
        "pooling": trial.suggest_categorical("pooling", ["mean", "mean-max"]),
        "dropout": trial.suggest_float("dropout", 0.0, 0.5),
        "rate": trial.suggest_float("rate", 0.005, 0.1, log=True),
        "decay": trial.suggest_float("decay", 0.005, 0.5, log=True),
        "batch": trial.suggest_categorical("batch", [16, 32]),
    }


def _own(recipe: Recipe) -> dict[str, Any]:
    """Return the recipe's settings as `_suggest` would name them."""
    network = recipe.network
    return {
        "stages": len(network["widths"]),
        "blocks": network["blocks"][0],
        "width": network["widths"][0],
        "kernel": network.get("kernel", 3),
        "activation": network.get("activation", "relu"),
        "pooling": network.get("pooling", "mean"),
        "dropout": network["dropout"],
        "rate": recipe.fit.rate,
        "decay": recipe.fit.decay,
        "batch": recipe.fit.batch,
    }


def _with(recipe: Recipe, chosen: Mapping[str, Any]) -> Recipe:
    """Return the recipe with other settings."""
    network = {
        **recipe.network,
        "widths": [chosen["width"] * 2**stage for stage in range(chosen["stages"])],
        "blocks": [chosen["blocks"]] * chosen["stages"],
        **{key: chosen[key] for key in ("kernel", "activation", "pooling", "dropout")},
    }
    change = {"rate": chosen["rate"], "decay": chosen["decay"]}
    fit_settings: Settings = dataclasses.replace(recipe.fit, batch=chosen["batch"], **change)
    sketch_fit: Settings = dataclasses.replace(recipe.sketch_fit, **change)
    return dataclasses.replace(recipe, network=network, fit=fit_settings, sketch_fit=sketch_fit)
