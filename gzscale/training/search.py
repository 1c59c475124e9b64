"""Searches better settings of the recipe: Optuna proposes, Dask workers try.

A trial begins as the training would: from the recipe's start, whose network is then given, or from weights
drawn at random. It learns a part of the sketches, then all folds of the labelled galaxies but one for a part
of the epochs, and is scored on that one. So the scores of the bundle that is trained afterwards are, for the
galaxies of that fold, a little better than they would be without the search; the difference is that of the
best of a few trials. What was tried is kept in a journal: killed and started again, the search goes on, and
one that has ended chooses the same settings again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gzscale.cluster import count_slots, open_cluster
from gzscale.errors import ClusterError, ConfigError, StorageError
from gzscale.models.network import build_network
from gzscale.training.fit import Examples, fit, predict, rmse
from gzscale.training.labelled import LabelledSet
from gzscale.training.labels import name_hashes, positions, require_enough
from gzscale.training.members import examples_of
from gzscale.training.processes import own_device
from gzscale.training.recipe import Recipe
from gzscale.training.search_space import (
    own_settings,
    require_searchable,
    settings_pairs,
    suggest,
    with_settings,
)
from gzscale.training.sketch import DRAWING
from gzscale.training.start import learn_from, start_of

__all__ = ["search_settings", "try_recipe"]

#: Share of the recipe's sketches, which it sees once, and of its epochs that a trial has.
TRIAL_SHARE = 0.25
#: Galaxies that the trials are made with, at most: every worker has them in memory, 27 kB each.
MOST_GALAXIES = 8192


def search_settings(
    labelled: LabelledSet, recipe: Recipe, trials: int, journal: Path, cluster: str = "local"
) -> tuple[Recipe, list[str]]:
    """Search layers, width, kernels, pooling, non-linearity, dropout, learning rate, decay and batch.

    Where the recipe has a start, its network is given: dropout, learning rate, decay and batch are searched.

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
        If Optuna is not installed, the recipe is none that would be proposed, or no trial could be done.
    ClusterError
        If no worker offers ``PREDICT``.
    StorageError
        If a worker's disk has no room for the sketches.
    """
    require_enough(labelled.labels, "search")
    require_searchable(recipe)
    study = _open_study(labelled, recipe, journal)
    lines = [_line(trial) for trial in study.trials if trial.value is not None or _failure(trial)]
    left = trials - len(lines)
    if left > 0:
        start = start_of(recipe)
        weights = None if start is None else dict(start.tensors)
        with open_cluster(cluster) as opened:
            lines += _try_all(opened.client, study, labelled, recipe, weights, left)
    if not any(trial.value is not None for trial in study.trials):
        raise ConfigError(f"search: none of {len(lines)} trials could be done; {lines[-1]}")
    best = study.best_trial
    found = with_settings(recipe, best.params)
    record = {
        "trials": len(lines),
        "best_rmse": round(study.best_value, 5),
        "best": best.params,
        "trial": _learnt_by_each(recipe),
    }
    settings = " --set ".join(["", *settings_pairs(found)])
    lines.append(f"best: trial {best.number}, RMSE {study.best_value:.4f};{settings}")
    return dataclasses.replace(found, search=record), lines


def try_recipe(
    recipe: Recipe, start: Mapping[str, torch.Tensor] | None, known: Examples, unseen: Examples
) -> float:
    """Train one network for a part of the recipe; return its RMSE on galaxies that it has not seen.

    Parameters
    ----------
    recipe
        What is tried.
    start
        Weights of the recipe's start, if it has one: the worker need not reach its file.
    known, unseen
        Galaxies to learn, and to be scored on.

    Raises
    ------
    ConfigError
        If the recipe cannot be trained.
    FloatingPointError
        If the fit diverges.
    """
    recipe.check()
    tried = _part(recipe)
    with _own_folder() as folder, torch.random.fork_rng(devices=[]):
        weights = learn_from(start, tried, folder)
        torch.manual_seed(tried.fit.seed)
        network = build_network("equivariant", tried.network)
        network.load_state_dict(weights)
        network = fit(network, known, tried.fit)
    device = own_device()
    score = rmse(predict(network.to(device), unseen, device), np.asarray(unseen.joint))
    if not np.isfinite(score):
        raise FloatingPointError(f"RMSE {score}: the fit has diverged")
    return score


def _part(recipe: Recipe) -> Recipe:
    """Return what a trial does of a recipe."""
    epochs = max(1, round(TRIAL_SHARE * recipe.fit.epochs))
    return dataclasses.replace(
        recipe,
        sketches=round(TRIAL_SHARE * recipe.sketches),
        sketch_fit=dataclasses.replace(recipe.sketch_fit, epochs=1),
        fit=dataclasses.replace(recipe.fit, epochs=epochs, patience=0),
    )


def _open_study(labelled: LabelledSet, recipe: Recipe, journal: Path) -> Any:
    """Return the study of these labels and this recipe; trials that a kill has cut off are tried again."""
    try:
        import optuna
    except ImportError as error:
        raise ConfigError("the search needs Optuna: install gzscale[train]") from error
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    given = start_of(recipe)
    tried = {
        **dataclasses.asdict(recipe),
        "start": "" if given is None else given.sha256,
        "trial": _learnt_by_each(recipe),
        "drawing": DRAWING,
    }
    digest = hashlib.sha256(json.dumps(tried, sort_keys=True).encode())
    digest.update(name_hashes(labelled.labels.split_names()).tobytes())
    for values in (labelled.labels.joint, labelled.labels.votes()):
        digest.update(np.ascontiguousarray(values).tobytes())
    journal.parent.mkdir(parents=True, exist_ok=True)
    storage = JournalStorage(JournalFileBackend(str(journal)))
    study = optuna.create_study(storage=storage, study_name=digest.hexdigest(), load_if_exists=True)
    for trial in study.get_trials(states=[optuna.trial.TrialState.RUNNING]):
        study.enqueue_trial(trial.params)
        study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
    if not study.trials:
        study.enqueue_trial(own_settings(recipe))
    # Another seed for each start, or the proposals would be those of the first one again.
    study.sampler = optuna.samplers.TPESampler(seed=recipe.fit.seed + len(study.trials))
    return study


def _try_all(
    client: Any,
    study: Any,
    labelled: LabelledSet,
    recipe: Recipe,
    weights: dict[str, torch.Tensor] | None,
    left: int,
) -> Iterator[str]:
    """Try so many more recipes, as many at a time as the workers take; yield a line for each that ends.

    ``weights`` are those of the recipe's start, if it has one.
    """
    from distributed import as_completed
    from optuna.trial import TrialState

    slots = count_slots(client)["PREDICT"]
    if not slots:
        raise ClusterError(
            'no worker offers PREDICT; start them with `dask worker ... --resources "PREDICT=1"`'
        )
    data = client.scatter([weights, *_split(labelled, recipe)], broadcast=True)
    running: dict[str, Any] = {}
    done = as_completed(loop=client.loop)

    def start() -> None:
        trial = study.ask()
        task = (try_recipe, with_settings(recipe, suggest(trial, recipe)), *data)
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
        elif isinstance(future.exception(), StorageError):
            # Not the settings' fault: tried again by the next search, which may find more room.
            study.enqueue_trial(trial.params)
            study.tell(trial, state=TrialState.FAIL)
            raise StorageError(f"trial {trial.number}: {future.exception()}")
        else:
            trial.set_user_attr("failure", str(future.exception()) or future.status)
            study.tell(trial, state=TrialState.FAIL)
        yield _line(study.trials[trial.number])
        if left:
            left -= 1
            start()


def _split(labelled: LabelledSet, recipe: Recipe) -> tuple[Examples, Examples]:
    """Return the galaxies that a trial learns, and those it is scored on: the first fold."""
    place = positions(labelled.labels.split_names()) * recipe.members
    some = place % 1 < MOST_GALAXIES / max(MOST_GALAXIES, len(labelled))
    examples = examples_of(labelled)
    return _copied(examples, some & (place >= 1)), _copied(examples, some & (place < 1))


def _copied(examples: Examples, chosen: NDArray[np.bool_]) -> Examples:
    taken = examples.take(chosen)
    return dataclasses.replace(taken, pictures=taken.shown(np.arange(len(taken))), rows=None)


@contextlib.contextmanager
def _own_folder() -> Iterator[Path]:
    """Yield a folder for the sketches: a Dask worker's own, so that its next trial finds them there.

    Take as many threads as that worker has, too: its neighbours have the others.
    """
    from distributed import get_worker

    try:
        worker = get_worker()
    except ValueError:
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)
        return
    torch.set_num_threads(worker.state.nthreads)
    yield Path(worker.local_directory)


def _learnt_by_each(recipe: Recipe) -> dict[str, int]:
    """Return what a trial learns, as it is kept in the bundle."""
    tried = _part(recipe)
    return {"sketches": tried.sketches, "epochs": tried.fit.epochs, "scored_on_fold": 1}


def _line(trial: Any) -> str:
    said = f"RMSE {trial.value:.4f}" if trial.value is not None else "failed"
    failure = _failure(trial)
    return f"trial {trial.number}: {said} {trial.params}{f' ({failure})' if failure else ''}"


def _failure(trial: Any) -> str:
    """Return why a trial failed; nothing for one that did not, or was cut off."""
    return str(trial.user_attrs.get("failure", ""))
