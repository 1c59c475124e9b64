"""Morphology: the distribution of Galaxy Zoo 2 volunteers' votes, 37 fractions a galaxy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gzscale.catalog.schema import MORPHOLOGY_COLUMNS, Column
from gzscale.errors import BundleError
from gzscale.models.votes import (
    ANSWERS,
    KAGGLE_NAMES,
    USUAL_VOTES,
    Scheme,
    asked,
    to_conditional,
    to_joint,
)
from gzscale.tasks.base import Seen
from gzscale.tasks.gz2_class import clean_flags, gz2_class
from gzscale.tasks.vote_spread import joint_standard_deviations, standard_deviations

__all__ = ["DISTANCE", "OUTPUT", "MorphologyTask"]

#: The head that has joint fractions in the Kaggle scheme.
OUTPUT = "vote_fractions"
#: The head that has the distance from the training set.
DISTANCE = "distance"


class MorphologyTask:
    """The 37 vote fractions of Galaxy Zoo 2, and what follows from them.

    They are fractions as volunteers would have voted on the image, weighted for the
    volunteers' consistency; they are not corrected for what redshift hides (not "debiased"): see
    `gzscale.tasks.debias` and ``gzscale debias``. So the class string and the clean flags are those of the
    fractions as seen.
    """

    name = "morphology"
    columns: tuple[Column, ...] = MORPHOLOGY_COLUMNS

    def table(
        self, outputs: Mapping[str, NDArray], calibration: Mapping[str, Any], seen: Seen | None = None
    ) -> tuple[dict[str, NDArray], NDArray]:
        """Turn joint fractions into columns.

        Parameters
        ----------
        outputs
            ``vote_fractions``: joint fractions in the Kaggle scheme, shape (n, 37); ``distance``: shape
            (n, 1).
        calibration
            ``vote_spread``: two numbers a question, see `gzscale.tasks.vote_spread`; ``usual_distance``.
        seen
            Nothing follows from it here.

        Returns
        -------
        values : dict[str, NDArray]
            Name of each of ``columns`` -> shape (n,). The answers' ``_fraction`` sum to 1 in a question;
            their ``_joint`` to the share that is asked it (Kaggle's scheme: question 6 of everybody).
        finite : NDArray[np.bool_]
            False where an output is not finite, shape (n,).

        Raises
        ------
        BundleError
            If an output or a number of the calibration is missing.
        """
        try:
            joint, distance = np.asarray(outputs[OUTPUT], np.float64), np.asarray(outputs[DISTANCE])[:, 0]
            spread, usual = calibration["vote_spread"], float(calibration["usual_distance"])
        except KeyError as error:
            raise BundleError(f"the bundle has no {error}, which morphology needs; train it again") from error
        finite = np.isfinite(joint).all(axis=1) & np.isfinite(distance)
        joint = np.where(finite[:, None], joint, 1.0)
        conditional = to_conditional(joint)
        std = standard_deviations(conditional, spread)
        of_answers = {
            "fraction": conditional.astype(np.float32),
            "std": std.astype(np.float32),
            "joint": joint.astype(np.float32),
            "joint_std": joint_standard_deviations(conditional, std).astype(np.float32),
            "clean": clean_flags(conditional, conditional, USUAL_VOTES * asked(joint)),
        }
        unlikeness = np.where(finite, distance / usual, np.nan).astype(np.float32)
        values: dict[str, NDArray] = {
            "gz2_class": gz2_class(conditional),
            "unlikeness": unlikeness,
            "unlike_training": unlikeness > 1,
        }
        for ending, numbers in of_answers.items():
            names = [f"{answer}_{ending}" for answer in ANSWERS]
            values |= dict(zip(names, np.ascontiguousarray(numbers.T), strict=True))
        return values, finite

    def kaggle_table(
        self, outputs: Mapping[str, NDArray], scheme: Scheme = Scheme.KAGGLE
    ) -> tuple[dict[str, NDArray], NDArray]:
        """Return the joint fractions as Kaggle's ``Class1.1`` ... ``Class11.6``.

        Parameters
        ----------
        outputs
            See `table`.
        scheme
            Whether question 6 is asked of everybody, as Kaggle has it, or as the tree is printed.
        """
        joint = np.asarray(outputs[OUTPUT], np.float32)
        finite = np.logical_and.reduce(np.isfinite(joint), axis=1)
        if scheme == Scheme.TREE:
            with np.errstate(invalid="ignore"):
                joint = to_joint(to_conditional(joint), scheme)
        return dict(zip(KAGGLE_NAMES, np.ascontiguousarray(joint.T), strict=True)), finite
