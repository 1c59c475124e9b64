"""Which galaxies a bundle has learnt, by whatever they are called, and by which members."""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from numpy.typing import NDArray

from gzscale.models.bundle import Bundle
from gzscale.training.label_tables import KINDS
from gzscale.training.labelled import LabelledSet
from gzscale.training.labels import Labels, folds, name_hashes

__all__ = ["learnt_folds", "picture_hashes", "remember", "unlike_names", "unlike_votes"]

#: Numbers of votes, and the fractions that they come to.
_VOTES = {"count": "fraction", "weight": "weighted_fraction"}


def picture_hashes(pictures: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Return the first 64 bits of the SHA-256 of each picture's bytes, shape (n,)."""
    digests = b"".join(hashlib.sha256(np.ascontiguousarray(one).tobytes()).digest()[:8] for one in pictures)
    return np.frombuffer(digests, ">u8").astype(np.uint64)


def remember(labelled: LabelledSet, fold: NDArray[np.integer]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what a bundle keeps of the galaxies that it learnt.

    Parameters
    ----------
    labelled
        The galaxies.
    fold
        Of each, shape (n,): the member that has not learnt it.

    Returns
    -------
    seen : torch.Tensor
        Hashes of their names, their names in the survey's catalog, and their pictures, int64, sorted.
    seen_fold : torch.Tensor
        The fold of each hash, int16.
    """
    columns = _hashes(labelled)
    hashes = np.concatenate([values[known] for values, known in columns])
    of_each = np.concatenate([fold[known] for _, known in columns])
    unique, first = np.unique(hashes, return_index=True)
    return torch.from_numpy(unique), torch.from_numpy(of_each[first].astype(np.int16))


def learnt_folds(bundle: Bundle, labelled: LabelledSet) -> NDArray[np.int64]:
    """Return the fold of each galaxy that the bundle has learnt, -1 for one that it has not, shape (n,).

    A galaxy is recognised by its name, its name in the survey's catalog, or its picture, which must be the
    same to the bit.
    """
    found = np.full(len(labelled), -1, np.int64)
    if bundle.seen is None or not len(bundle.seen):
        return found
    seen = bundle.seen.numpy()
    # A bundle that keeps no folds was split by the names alone.
    by_name = folds(labelled.labels.names, max(1, int(bundle.parameters.get("members", 1))))
    for values, known in _hashes(labelled):
        place = np.minimum(np.searchsorted(seen, values), len(seen) - 1)
        same = known & (seen[place] == values) & (found < 0)
        fold = by_name if bundle.seen_fold is None else bundle.seen_fold.numpy()[place].astype(np.int64)
        found[same] = fold[same]
    return found


def unlike_votes(bundle: Bundle, labels: Labels) -> str | None:
    """Return a warning where other votes were learnt than those that are scored, else None."""
    learnt = str(bundle.training.get("votes", ""))
    kinds = {labels.kind, learnt}
    if not kinds <= {*KINDS} or len({_VOTES.get(kind, kind) for kind in kinds}) == 1:
        return None
    return (
        f"bundle {bundle.name!r} has learnt votes of the kind {learnt}, these are {labels.kind}: part of the "
        f"error is theirs; evaluate with --kind {learnt}"
    )


def unlike_names(bundle: Bundle, labels: Labels) -> str | None:
    """Return a warning where names cannot tell what the bundle has learnt, else None."""
    named_by = str(bundle.training.get("named_by", ""))
    if bundle.seen is None:
        return f"bundle {bundle.name!r} does not say which galaxies it has learnt: these may be among them"
    if labels.object_names or not named_by or not labels.named_by or named_by == labels.named_by:
        return None
    return (
        f"the galaxies that bundle {bundle.name!r} has learnt were named by {named_by}, these by "
        f"{labels.named_by}: they are recognised by their pictures alone, and not where those were "
        "rendered or compressed anew"
    )


def _hashes(labelled: LabelledSet) -> list[tuple[NDArray[np.int64], NDArray[np.bool_]]]:
    """Return each kind of hash as int64 and where there is one, shape (n,) each."""
    labels = labelled.labels
    every = np.ones(len(labels), bool)
    kinds = [
        (name_hashes(labels.names).view(np.int64), every),
        (picture_hashes(labelled.pictures).view(np.int64), every),
    ]
    if labels.object_names:
        texts = [name or "" for name in labels.object_names]
        kinds.append((name_hashes(texts).view(np.int64), np.array([bool(text) for text in texts])))
    return kinds
