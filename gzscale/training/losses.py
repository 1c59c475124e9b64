"""Losses: how far predicted vote fractions are from the votes.

All take joint fractions in the Kaggle scheme, shape (n, 37), and are means over galaxies.

References
----------
.. [1] Walmsley et al. 2020, MNRAS 491, 1554 (votes as counts: a multinomial likelihood).
.. [2] Walmsley et al. 2022, MNRAS 509, 3966 (Dirichlet-multinomial likelihood of Galaxy Zoo's votes).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from gzscale.models.votes import QUESTIONS

__all__ = ["LOSSES", "Loss", "dirichlet_multinomial", "multinomial", "squared"]

#: Predicted fractions, observed fractions, how many were asked each question (n, 11), and the logarithm of
#: each question's concentration (11) -> a number.
Loss = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]

#: No predicted fraction counts as less.
_LEAST = 1e-6


def squared(predicted: Tensor, joint: Tensor, votes: Tensor, concentration: Tensor) -> Tensor:
    """Return the squared error summed over the answers: Kaggle's measure, squared, times 37."""
    return (predicted - joint).square().sum(dim=1).mean()


def multinomial(predicted: Tensor, joint: Tensor, votes: Tensor, concentration: Tensor) -> Tensor:
    """Return the negative logarithm of the multinomial likelihood [1]_, per volunteer.

    Every question counts by the share of volunteers who were asked it: one who was asked four
    questions has said four times as much as one who was asked one.
    """
    total = predicted.new_zeros(())
    for question in QUESTIONS:
        conditional = _conditional(predicted, question.start, question.stop, question.parent)
        total = total - (joint[:, question.answers] * conditional.clamp_min(_LEAST).log()).sum(dim=1).mean()
    return total


def dirichlet_multinomial(predicted: Tensor, joint: Tensor, votes: Tensor, concentration: Tensor) -> Tensor:
    """Return the negative logarithm of the Dirichlet-multinomial likelihood [2]_, per volunteer.

    The votes on a question are counts k of n, drawn with probabilities that are themselves drawn from
    a Dirichlet distribution around the prediction p, of concentration s:
    log P = log G(s) - log G(s + n) + sum_i log G(k_i + s p_i) - log G(s p_i), but for a constant. It knows
    that the fractions of a question that 5 were asked say less than those of one that 40 were.
    """
    total = predicted.new_zeros(())
    for index, question in enumerate(QUESTIONS):
        conditional = _conditional(predicted, question.start, question.stop, question.parent)
        asked = votes[:, index, None]
        counts = asked * _conditional(joint, question.start, question.stop, question.parent)
        total = total - log_likelihood(counts, conditional, concentration[index].exp()).mean()
    return total / votes[:, 0].mean()


def log_likelihood(counts: Tensor, fractions: Tensor, concentration: Tensor) -> Tensor:
    """Return the logarithm of the Dirichlet-multinomial likelihood but for a constant, shape (n,).

    Parameters
    ----------
    counts
        Votes for each answer, shape (n, answers); they need not be whole.
    fractions
        Expected fractions, shape (n, answers).
    concentration
        Of each galaxy or of all, shape (n, 1) or ().
    """
    alpha = concentration * fractions.clamp_min(_LEAST)
    whole, given = alpha.sum(dim=1), counts.sum(dim=1)
    parts = (torch.lgamma(counts + alpha) - torch.lgamma(alpha)).sum(dim=1)
    return torch.lgamma(whole) - torch.lgamma(whole + given) + parts


def _conditional(joint: Tensor, start: int, stop: int, parent: int | None) -> Tensor:
    if parent is None:
        return joint[:, start:stop]
    return joint[:, start:stop] / joint[:, parent, None].clamp_min(_LEAST)


LOSSES: dict[str, Loss] = {
    "squared": squared,
    "multinomial": multinomial,
    "dirichlet": dirichlet_multinomial,
}
