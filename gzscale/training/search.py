"""Searches better settings of the recipe: Optuna proposes, Dask workers try.

A trial trains one network, from weights drawn at random, on all folds of the labelled galaxies but one, for a
part of the recipe's epochs, and is scored on that one. So the scores of the bundle that is trained afterwards
are, for the galaxies of that fold, a little better than they would be without the search; the difference is
that of the best of a few trials. What was tried is kept in a journal: killed and started again, the search
goes on, and one that has ended chooses the same settings again.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gzscale.cluster import count_slots, open_cluster
from gzscale.errors import ClusterError, ConfigError
from gzscale.models.network import build_network
from gzscale.training.fit import Examples, Settings, fit, predict, rmse
from gzscale.training.labelled import LabelledSet
from gzscale.training.labels import name_hashes, positions, require_enough
from gzscale.training.members import examples_of
from gzscale.training.processes import own_device
from gzscale.training.recipe import SKETCHES, Recipe
from gzscale.training.start import other_settings

__all__ = ["search_settings", "try_recipe"]

#: Share of the recipe's epochs that a trial has.
TRIAL_SHARE = 0.25
#: Galaxies that the trials are made with, at most: every worker has them in memory, 27 kB each.
MOST_GALAXIES = 8192
#: Settings that the search and the network call the same.
_SAME = ("kernel", "activation", "pooling", "dropout")


def search_settings(
    labelled: LabelledSet, recipe: Recipe, trials: int, journal: Path, cluster: str = "local"
) -> tuple[Recipe, list[str]]:
    """Search layers, width, kernels, pooling, non-linearity, dropout, learning rate, decay and batch.

    Parameters
    ----------
    labelled
        Pictures and votes.
    recipe
        What the search starts from; its first trial.
    trials
        How many in all, with those of the journal.
    journal
        File that keeps what was tried with these labels and this recipe.
    cluster
        See `gzscale.cluster.open_cluster`; one trial a worker at a time.

    Returns
    -------
    recipe : Recipe
        With the best trial's settings, and the search on record.
    lines : list of str
        One a trial, and what was chosen.

    Raises
    ------
    ConfigError
        If Optuna is not installed, or no trial could be done.
    ClusterError
        If no worker offers ``PREDICT``.
    """
    require_enough(labelled.labels, "search")
    study = _open_study(labelled, recipe, journal)
    lines = [_line(trial) for trial in study.trials if trial.value is not None or _failure(trial)]
    left = trials - len(lines)
    if left > 0:
        with open_cluster(cluster) as opened:
            lines += _try_all(opened.client, study, labelled, recipe, left)
    if not any(trial.value is not None for trial in study.trials):
        raise ConfigError(f"search: none of {len(lines)} trials could be done; {lines[-1]}")
    best = study.best_trial
    found = _with(recipe, best.params)
    record = {"trials": len(lines), "best_rmse": round(study.best_value, 5), "best": best.params}
    lines.append(
        f"best: trial {best.number}, RMSE {study.best_value:.4f}; --set {' --set '.join(_pairs(found))}"
    )
    return dataclasses.replace(found, search=record), lines


def try_recipe(recipe: Recipe, known: Examples, unseen: Examples) -> float:
    """Train one network for a part of the epochs; return its RMSE on galaxies that it has not seen."""
    recipe.check()
    epochs = max(1, round(TRIAL_SHARE * recipe.fit.epochs))
    settings = dataclasses.replace(recipe.fit, epochs=epochs, patience=0)
    _use_own_threads()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        network = fit(build_network("equivariant", recipe.network), known, settings)
    device = own_device()
    score = rmse(predict(network.to(device), unseen, device), np.asarray(unseen.joint))
    if not np.isfinite(score):
        raise FloatingPointError(f"RMSE {score}: the fit has diverged")
    return score


def _open_study(labelled: LabelledSet, recipe: Recipe, journal: Path) -> Any:
    """Return the study of these labels and this recipe; trials that a kill has cut off are tried again."""
    try:
        import optuna
    except ImportError as error:
        raise ConfigError("the search needs Optuna: install gzscale[train]") from error
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    digest = hashlib.sha256(json.dumps(dataclasses.asdict(recipe), sort_keys=True).encode())
    digest.update(name_hashes(labelled.labels.names).tobytes())
    for values in (labelled.labels.joint, labelled.labels.votes()):
        digest.update(np.ascontiguousarray(values).tobytes())
    journal.parent.mkdir(parents=True, exist_ok=True)
    storage = JournalStorage(JournalFileBackend(str(journal)))
    study = optuna.create_study(storage=storage, study_name=digest.hexdigest(), load_if_exists=True)
    for trial in study.get_trials(states=[optuna.trial.TrialState.RUNNING]):
        study.enqueue_trial(trial.params)
        study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
    if not study.trials:
        study.enqueue_trial(_own(recipe))
    # Another seed for each start, or the proposals would be those of the first one again.
    study.sampler = optuna.samplers.TPESampler(seed=recipe.fit.seed + len(study.trials))
    return study


def _try_all(client: Any, study: Any, labelled: LabelledSet, recipe: Recipe, left: int) -> Iterator[str]:
    """Try so many more recipes, as many at a time as the workers take; yield a line for each that ends."""
    from distributed import as_completed
    from optuna.trial import TrialState

    slots = count_slots(client)["PREDICT"]
    if not slots:
        raise ClusterError(
            'no worker offers PREDICT; start them with `dask worker ... --resources "PREDICT=1"`'
        )
    data = client.scatter(list(_split(labelled, recipe)), broadcast=True)
    running: dict[str, Any] = {}
    done = as_completed(loop=client.loop)

    def start() -> None:
        trial = study.ask()
        task = (try_recipe, _with(recipe, _suggest(trial)), *data)
        future = client.submit(*task, pure=False, resources={"PREDICT": 1})
        running[future.key] = trial
        done.add(future)

    for _ in range(min(slots, left)):
        start()
    left -= min(slots, left)
    for future in done:
        trial = running.pop(future.key)
        if future.status == "finished":
            study.tell(trial, float(future.result()))
        else:
            trial.set_user_attr("failure", str(future.exception()) or future.status)
            study.tell(trial, state=TrialState.FAIL)
        yield _line(study.trials[trial.number])
        if left:
            left -= 1
            start()


def _split(labelled: LabelledSet, recipe: Recipe) -> tuple[Examples, Examples]:
    """Return the galaxies that a trial learns, and those it is scored on: the first fold."""
    place = positions(labelled.labels.names) * recipe.members
    some = place % 1 < MOST_GALAXIES / max(MOST_GALAXIES, len(labelled))
    examples = examples_of(labelled)
    return _copied(examples, some & (place >= 1)), _copied(examples, some & (place < 1))


def _copied(examples: Examples, chosen: NDArray[np.bool_]) -> Examples:
    taken = examples.take(chosen)
    return dataclasses.replace(taken, pictures=taken.shown(np.arange(len(taken))), rows=None)


def _use_own_threads() -> None:
    """Take as many threads as the Dask worker has, where there is one: its neighbours have the others."""
    from distributed import get_worker

    try:
        torch.set_num_threads(get_worker().state.nthreads)
    except ValueError:
        return


def _line(trial: Any) -> str:
    said = f"RMSE {trial.value:.4f}" if trial.value is not None else "failed"
    failure = _failure(trial)
    return f"trial {trial.number}: {said} {trial.params}{f' ({failure})' if failure else ''}"


def _failure(trial: Any) -> str:
    """Return why a trial failed; nothing for one that did not, or was cut off."""
    return str(trial.user_attrs.get("failure", ""))


def _pairs(recipe: Recipe) -> list[str]:
    """Return what sets a recipe's searched settings on the command line."""
    network = {key: recipe.network[key] for key in ("widths", "blocks", *_SAME)}
    pairs = {f"network.{key}": value for key, value in network.items()}
    pairs |= {"start": recipe.start, "sketches": recipe.sketches}
    pairs |= {f"fit.{key}": getattr(recipe.fit, key) for key in ("rate", "decay", "batch")}
    pairs |= {f"sketch_fit.{key}": getattr(recipe.sketch_fit, key) for key in ("rate", "decay")}
    return [f"{key}={json.dumps(value, separators=(',', ':'))}" for key, value in pairs.items()]


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
        **{key: chosen[key] for key in _SAME},
    }
    change = {"rate": chosen["rate"], "decay": chosen["decay"]}
    fit_settings: Settings = dataclasses.replace(recipe.fit, batch=chosen["batch"], **change)
    sketch_fit: Settings = dataclasses.replace(recipe.sketch_fit, **change)
    found = dataclasses.replace(recipe, network=network, fit=fit_settings, sketch_fit=sketch_fit)
    if not recipe.start or not other_settings(recipe.network, network):
        return found
    # The recipe's start is of another network: this one learns sketches itself.
    return dataclasses.replace(found, start="", sketches=recipe.sketches or SKETCHES)
