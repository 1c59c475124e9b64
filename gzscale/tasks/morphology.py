"""Morphology: the distribution of Galaxy Zoo 2 volunteers' votes, 37 fractions a galaxy."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from gzscale.catalog.schema import MORPHOLOGY_COLUMNS, Column
from gzscale.models.votes import ANSWERS, KAGGLE_NAMES, to_conditional

__all__ = ["OUTPUT", "MorphologyTask"]

#: The head that this task reads: joint fractions in the Kaggle scheme.
OUTPUT = "vote_fractions"


class MorphologyTask:
    """The 37 vote fractions of Galaxy Zoo 2, each of those who were asked the question.

    They are fractions as volunteers would have voted on the image, weighted for the
    volunteers' consistency; they are not corrected for what redshift hides (not "debiased").
    """

    name = "morphology"
    columns: tuple[Column, ...] = MORPHOLOGY_COLUMNS

    def table(self, outputs: Mapping[str, NDArray]) -> tuple[dict[str, NDArray], NDArray]:
        """Turn joint fractions into conditional ones.

        Parameters
        ----------
        outputs
            ``vote_fractions``: joint fractions in the Kaggle scheme, shape (n, 37).

        Returns
        -------
        values : dict[str, NDArray[np.float32]]
            ``t01_smooth_or_features_a01_smooth_fraction`` ..., shape (n,); the answers of a
            question sum to 1.
        finite : NDArray[np.bool_]
            False where any of the 37 is not finite, shape (n,).
        """
        joint = np.asarray(outputs[OUTPUT], np.float64)
        with np.errstate(invalid="ignore"):
            conditional = to_conditional(joint).astype(np.float32)
        names = [f"{answer}_fraction" for answer in ANSWERS]
        finite = np.logical_and.reduce(np.isfinite(conditional), axis=1)
        return dict(zip(names, np.ascontiguousarray(conditional.T), strict=True)), finite

    def kaggle_table(self, outputs: Mapping[str, NDArray]) -> tuple[dict[str, NDArray], NDArray]:
        """Return the joint fractions as Kaggle's ``Class1.1`` ... ``Class11.6``. See `table`."""
        joint = np.asarray(outputs[OUTPUT], np.float32)
        finite = np.logical_and.reduce(np.isfinite(joint), axis=1)
        return dict(zip(KAGGLE_NAMES, np.ascontiguousarray(joint.T), strict=True)), finite
