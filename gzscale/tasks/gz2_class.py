"""Galaxy Zoo 2's class strings and clean-sample flags, from vote fractions by the rules of its data release.

Everything here takes and gives conditional fractions: of those asked, how many said so.

References
----------
.. [1] Willett et al. 2013, MNRAS 435, 2835: Section 3.3 and Table 3 (thresholds of clean samples),
       Appendix A (the class string).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from gzscale.models.votes import ANSWERS, QUESTIONS

__all__ = ["MAIN_SAMPLE", "STRIPE82_COADD", "CleanRule", "clean_flags", "gz2_class"]

#: Letters of each question's answers in the class string, by the question's number.
_ROUNDNESS, _BULGE_SHAPE, _BULGE = np.array(list("ric")), np.array(list("rbn")), np.array(list("dcba"))
_WINDING, _ARMS, _ODD = np.array(list("tml")), np.array(list("1234+?")), np.array(list("rldiomu"))
#: The answers that lead to each question, in the order in which they are given.
_LEADING: Mapping[int, tuple[str, ...]] = MappingProxyType(
    {
        2: ("features_or_disk",),
        3: ("features_or_disk", "a05_no"),
        4: ("features_or_disk", "a05_no"),
        5: ("features_or_disk", "a05_no"),
        7: ("a01_smooth",),
        8: ("a14_yes",),
        9: ("features_or_disk", "a04_yes"),
        10: ("features_or_disk", "a05_no", "a08_spiral"),
        11: ("features_or_disk", "a05_no", "a08_spiral"),
    }
)


@dataclass(frozen=True, slots=True)
class CleanRule:
    """When an answer counts as certain.

    Attributes
    ----------
    leading
        Smallest fraction of an answer that leads further, by the number of the question that it
        leads to. A question further down asks for all the answers above it, each by its own number.
    certain
        Smallest debiased fraction of the answer itself.
    certain_of
        The same for single questions, by number.
    votes
        How many must have been asked.
    votes_first
        The same for questions 1 and 6, which everybody is asked.
    """

    leading: Mapping[int, float]
    certain: float
    certain_of: Mapping[int, float]
    votes: int
    votes_first: int


#: The main sample: 20 votes and the thresholds of Table 3 [1]_ for them. Each number is that of the
#: last answer before the question; 0.602 is that of "edge-on" before question 9.
MAIN_SAMPLE = CleanRule(
    leading=MappingProxyType(
        {2: 0.430, 3: 0.715, 4: 0.715, 5: 0.715, 7: 0.469, 8: 0.420, 9: 0.602, 10: 0.619, 11: 0.619}
    ),
    certain=0.8,
    certain_of=MappingProxyType({}),
    votes=20,
    votes_first=20,
)
#: The flags of Table 5 (coadded images of Stripe 82), which follow other numbers than the paper's text:
#: found from the table, whose flags they give but for some that stand on a limit.
STRIPE82_COADD = CleanRule(
    leading=MappingProxyType(dict.fromkeys(_LEADING, 0.5)),
    certain=0.8,
    certain_of=MappingProxyType({2: 0.5, 3: 0.5}),
    votes=5,
    votes_first=10,
)


def gz2_class(fractions: NDArray[np.floating]) -> NDArray[np.str_]:
    """Return the class string of each galaxy, such as ``Ei``, ``SBc2m``, ``Seb(m)`` or ``A``.

    Each question is answered by its most voted answer. ``E`` smooth: round, in between or cigar
    (``r``, ``i``, ``c``). ``S`` features: edge-on ``e`` and the bulge's shape (``r``, ``b``, ``n`` for
    none), else ``B`` if barred, the bulge from none to dominant (``d``, ``c``, ``b``, ``a``) and, if
    spiral, the number of arms (``1`` to ``4``, ``+``, ``?``) and their winding (``t``, ``m``, ``l``).
    Behind it, if odd: ring, lens or arc, disturbed, irregular, other, merger or dust lane in brackets
    (``r``, ``l``, ``d``, ``i``, ``o``, ``m``, ``u``). ``A``: star or artifact [1]_, Appendix A.

    Parameters
    ----------
    fractions
        Conditional fractions, shape (n, 37). The release's own strings come from the debiased
        ones. An answer that alone is NaN in its question has what the others leave; other NaN count as 0.

    Returns
    -------
    NDArray[np.str_]
        Shape (n,).
    """
    votes = _filled(fractions)
    best = {question.number: votes[:, question.answers].argmax(axis=1) for question in QUESTIONS}

    def first_wins(number: int, ties: bool) -> NDArray[np.bool_]:
        start = QUESTIONS[number - 1].start
        yes, no = votes[:, start], votes[:, start + 1]
        return yes >= no if ties else yes > no

    def text(values: NDArray, where: NDArray[np.bool_]) -> NDArray[np.str_]:
        return np.where(where, values, "").astype(str)

    everywhere = np.ones(len(votes), bool)
    spiral = text(np.strings.add(_ARMS[best[11]], _WINDING[best[10]]), first_wins(4, ties=False))
    face_on = np.strings.add(text(np.full(len(votes), "B"), first_wins(3, ties=False)), _BULGE[best[5]])
    edge_on = np.strings.add(text(np.full(len(votes), "e"), everywhere), _BULGE_SHAPE[best[9]])
    disk = np.where(first_wins(2, ties=True), edge_on, np.strings.add(face_on, spiral))
    smooth = np.strings.add("E", _ROUNDNESS[best[7]])
    odd = np.strings.add(np.strings.add("(", _ODD[best[8]]), ")")
    odd = text(odd, first_wins(6, ties=True))
    galaxy = np.where(best[1] == 0, smooth, np.strings.add("S", disk))
    return np.where(best[1] == 2, "A", np.strings.add(galaxy, odd))


def _filled(fractions: NDArray[np.floating]) -> NDArray[np.float64]:
    """Replace NaN: the published table has some where the debiasing of one answer came to nothing."""
    votes = np.nan_to_num(np.asarray(fractions, np.float64), nan=0.0)
    unknown = np.isnan(fractions)
    for question in QUESTIONS:
        answers = question.answers
        alone = unknown[:, answers] & (unknown[:, answers].sum(axis=1, keepdims=True) == 1)
        rest = np.clip(1 - votes[:, answers].sum(axis=1, keepdims=True), 0, 1)
        votes[:, answers] += np.where(alone, rest, 0)
    return votes


def clean_flags(
    fractions: NDArray[np.floating],
    debiased: NDArray[np.floating],
    votes: NDArray[np.floating],
    rule: CleanRule = MAIN_SAMPLE,
) -> NDArray[np.bool_]:
    """Tell which answers are certain enough for a clean sample.

    An answer is, if enough volunteers were asked, each answer that leads to the question has enough
    of their votes, and the answer itself has nearly all of them [1]_, Section 3.3.

    Parameters
    ----------
    fractions
        Conditional fractions, shape (n, 37), which the answers that lead to a question are held to.
    debiased
        The same, debiased, which the answer itself is held to.
    votes
        How many were asked each question, shape (n, 11).
    rule
        The numbers.

    Returns
    -------
    NDArray[np.bool_]
        Shape (n, 37). False where a fraction is NaN.
    """
    flags = np.zeros(np.shape(fractions), bool)
    for index, question in enumerate(QUESTIONS):
        leading = _LEADING.get(question.number, ())
        usable = votes[:, index] >= (rule.votes if leading else rule.votes_first)
        for position, limit in _chain(question.number, rule):
            usable = usable & (fractions[:, position] >= limit)
        certain = rule.certain_of.get(question.number, rule.certain)
        flags[:, question.answers] = (debiased[:, question.answers] >= certain) & usable[:, None]
    return flags


def _chain(number: int, rule: CleanRule) -> list[tuple[int, float]]:
    """Return the answers that lead to a question with the smallest fraction of each."""
    links: list[tuple[int, float]] = []
    for depth, name in enumerate(_LEADING.get(number, ())):
        position = next(index for index, answer in enumerate(ANSWERS) if answer.endswith(name))
        last = depth == len(_LEADING[number]) - 1
        # An answer on the way has the number of the question that it leads to directly.
        stage = number if last else (2, 3)[depth]
        links.append((position, rule.leading[stage]))
    return links
