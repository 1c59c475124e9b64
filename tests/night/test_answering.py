"""Which tasks of a geometry are shown its cutouts together."""

import numpy as np

from gzscale.night.answering import _alike


def test_tasks_that_see_the_same_rows_are_shown_them_once():
    every, some = np.arange(9), np.array([1, 4])
    usable = {"morphology": every, "lenses": some, "redshifts": every.copy(), "other": some[:1]}
    assert _alike(usable) == [["morphology", "redshifts"], ["lenses"], ["other"]]


def test_tasks_that_see_nothing_are_alike():
    nothing = np.empty(0, np.int64)
    assert _alike({"morphology": nothing, "lenses": nothing}) == [["morphology", "lenses"]]
