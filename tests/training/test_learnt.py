import dataclasses
from collections import Counter

import numpy as np
import pytest
import torch

from gzscale.models.bundle import Bundle, BundleGeometry
from gzscale.models.inputs import SDSS_STRETCH
from gzscale.training.labelled import LabelledSet
from gzscale.training.labels import Labels, folds
from gzscale.training.learnt import learnt_folds, remember, unlike_names, unlike_votes


@pytest.fixture
def labelled():
    rng = np.random.default_rng(0)
    unknown = np.full(30, np.nan)
    single = unknown.astype(np.float32)
    names = tuple(f"{number}" for number in range(30))
    objects = tuple(f"58772295000000{number:04d}" if number != 3 else None for number in range(30))
    joint = np.zeros((30, 37), np.float32)
    labels = Labels(names, joint, single, unknown, unknown, single, Counter(), objects, "asset_id")
    return LabelledSet(labels, rng.integers(0, 255, (30, 3, 96, 96), np.uint8))


@pytest.fixture
def bundle(labelled):
    seen, seen_fold = remember(labelled, folds(labelled.labels.names, 5))
    return Bundle(
        "morphology",
        "x",
        "committee",
        {"members": 5},
        BundleGeometry(96, "0.08 * size"),
        SDSS_STRETCH,
        1,
        {},
        {"named_by": "asset_id"},
        {},
        {},
        {},
        seen=seen,
        seen_fold=seen_fold,
    )


def renamed(labelled, prefix, **changes):
    names = tuple(f"{prefix}{name}" for name in labelled.labels.names)
    return dataclasses.replace(
        labelled,
        labels=dataclasses.replace(labelled.labels, names=names, object_names=(), **changes),
    )


def test_by_name_by_catalog_and_by_picture(labelled, bundle):
    expected = folds(labelled.labels.names, 5)
    other = dataclasses.replace(labelled, pictures=255 - labelled.pictures)
    np.testing.assert_array_equal(learnt_folds(bundle, other), expected)
    by_picture = renamed(labelled, "other-")
    np.testing.assert_array_equal(learnt_folds(bundle, by_picture), expected)
    objects = tuple(name or "none" for name in labelled.labels.object_names)
    by_catalog = dataclasses.replace(other, labels=dataclasses.replace(other.labels, names=objects))
    found = learnt_folds(bundle, dataclasses.replace(by_catalog, labels=by_catalog.labels))
    np.testing.assert_array_equal(np.delete(found, 3), np.delete(expected, 3))
    assert found[3] == -1


def test_what_was_not_learnt(labelled, bundle):
    new = renamed(dataclasses.replace(labelled, pictures=255 - labelled.pictures), "new-")
    assert (learnt_folds(bundle, new) == -1).all()
    nothing = dataclasses.replace(bundle, seen=None, seen_fold=None)
    assert (learnt_folds(nothing, labelled) == -1).all()
    empty = dataclasses.replace(bundle, seen=torch.empty(0, dtype=torch.int64), seen_fold=None)
    assert (learnt_folds(empty, labelled) == -1).all()


def test_votes_of_another_kind_are_said(labelled, bundle):
    def told(learnt, given):
        other = dataclasses.replace(bundle, training={**bundle.training, "votes": learnt})
        return unlike_votes(other, dataclasses.replace(labelled.labels, kind=given))

    assert "learnt votes of the kind weighted_fraction, these are debiased" in told(
        "weighted_fraction", "debiased"
    )
    assert told("weighted_fraction", "weight") is None
    assert told("fraction", "count") is None
    assert told("weighted_fraction", "joint") is None
    assert told("not stated", "debiased") is None


def test_names_of_another_kind_are_said(labelled, bundle):
    assert unlike_names(bundle, labelled.labels) is None
    same = renamed(labelled, "new-").labels
    assert unlike_names(bundle, same) is None
    other = dataclasses.replace(same, named_by="GalaxyID")
    assert "named by asset_id, these by GalaxyID" in unlike_names(bundle, other)
    assert "does not say" in unlike_names(dataclasses.replace(bundle, seen=None), other)
