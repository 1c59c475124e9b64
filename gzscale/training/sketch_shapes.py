"""What sketched galaxies are: shapes drawn at random, and the votes that a rule gives them.

The rules stand for what volunteers do (an arm that is seen makes features, a galaxy that is too small to
be resolved looks smooth), with numbers set by eye. They need not be right: a network that has
learnt them knows an arm from a bar, and learns from real votes how much each counts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from gzscale.models.votes import QUESTIONS

__all__ = ["Shapes", "draw_shapes", "rule_votes"]

#: Shares of smooth galaxies and of disks seen edge-on; the rest are disks seen face-on.
SMOOTH_SHARE, EDGE_ON_SHARE = 0.30, 0.20
#: Shares with a bar, a ring (of the face-on), a dust lane, a boxy bulge, no bulge (of the edge-on).
BAR_SHARE, RING_SHARE, DUST_SHARE, BOXY_SHARE, BULGELESS_SHARE = 0.30, 0.10, 0.15, 0.15, 0.35
#: Shares with a companion, and of clumpy irregulars.
MERGER_SHARE, IRREGULAR_SHARE = 0.22, 0.08
#: How many arms, 1 to 5, and the share of disks that have any.
ARM_SHARES, ARMED_SHARE = (0.10, 0.50, 0.20, 0.12, 0.08), 0.85
#: Petrosian R90 in arcsec, from and to, of those as bright as Galaxy Zoo 2's, which were above 3 arcsec.
SIZES = (5.0, 20.0)
#: By how many magnitudes faint ones are fainter, and how much smaller: as most galaxies of a night are.
FAINTER, SMALLER = (0.5, 3.0), (0.4, 0.8)


@dataclass(frozen=True)
class Shapes:
    """Some galaxies. Lengths are in units of 0.08 R90; each attribute is a tensor of shape (n,).

    Attributes
    ----------
    smooth, edge_on, face_on
        1 for the kind it is, else 0.
    flattening
        Axis ratio: of the smooth body, or the cosine of the disk's inclination.
    size
        Petrosian R90 in arcsec, to which blurring is relative.
    bulge
        Share of the bulge's light in a disk.
    arm_contrast, arm_sharpness, arm_number, arm_pitch
        Arms: share of the disk's light 0 to 1, how narrow, how many, and the angle in radians.
    bar, ring
        Share of their light; 0 for none.
    thickness
        Scale height of a disk seen edge-on.
    boxy, dust
        1 with a boxy bulge, and the depth of the dust lane.
    companion
        Light of a second galaxy relative to the first; 0 for none.
    irregular
        1 for a clumpy irregular.
    fainter
        Magnitudes by which it is fainter than is usual for its size.
    """

    smooth: Tensor
    edge_on: Tensor
    face_on: Tensor
    flattening: Tensor
    size: Tensor
    bulge: Tensor
    arm_contrast: Tensor
    arm_sharpness: Tensor
    arm_number: Tensor
    arm_pitch: Tensor
    bar: Tensor
    ring: Tensor
    thickness: Tensor
    boxy: Tensor
    dust: Tensor
    companion: Tensor
    irregular: Tensor
    fainter: Tensor

    def __len__(self) -> int:
        return len(self.smooth)


def uniform(count: int, generator: torch.Generator, low: float, high: float) -> Tensor:
    """Draw numbers between two limits, shape (count,)."""
    return torch.rand(count, generator=generator) * (high - low) + low


def draw_shapes(count: int, generator: torch.Generator, faint: float = 0.0) -> Shapes:
    """Draw galaxies of all kinds.

    Parameters
    ----------
    count
        How many.
    generator
        Where the draws come from, on the CPU.
    faint
        Share of fainter and smaller ones.
    """

    def draw(low: float, high: float) -> Tensor:
        return uniform(count, generator, low, high)

    def happens(share: float) -> Tensor:
        return (draw(0, 1) < share).float()

    kind = draw(0, 1)
    smooth = (kind < SMOOTH_SHARE).float()
    edge_on = ((kind >= SMOOTH_SHARE) & (kind < SMOOTH_SHARE + EDGE_ON_SHARE)).float()
    face_on = 1 - smooth - edge_on
    round_or_not = torch.where(draw(0, 1) < 0.5, draw(0.75, 1), draw(0.2, 0.9))
    disk_bulge = 0.7 * draw(0, 1) ** 1.5
    edge_bulge = (1 - happens(BULGELESS_SHARE)) * draw(0.05, 0.6)
    arms = torch.multinomial(torch.tensor(ARM_SHARES), count, True, generator=generator) + 1.0
    shapes = Shapes(
        smooth=smooth,
        edge_on=edge_on,
        face_on=face_on,
        flattening=torch.where(smooth > 0, round_or_not, draw(0.35, 1)),
        size=torch.exp(draw(math.log(SIZES[0]), math.log(SIZES[1]))),
        bulge=torch.where(edge_on > 0, edge_bulge, disk_bulge),
        arm_contrast=face_on * happens(ARMED_SHARE) * draw(0.1, 1),
        arm_sharpness=draw(0.8, 4),
        arm_number=arms,
        arm_pitch=torch.deg2rad(draw(10, 42)),
        bar=face_on * happens(BAR_SHARE) * draw(0.05, 0.35),
        ring=face_on * happens(RING_SHARE) * draw(0.1, 0.5),
        thickness=draw(0.35, 1.1),
        boxy=happens(BOXY_SHARE),
        dust=edge_on * happens(DUST_SHARE) * draw(0.3, 0.8),
        companion=happens(MERGER_SHARE) * draw(0.25, 1),
        irregular=happens(IRREGULAR_SHARE),
        fainter=torch.zeros(count),
    )
    if not faint:
        return shapes
    chosen = happens(faint)
    smaller = torch.where(chosen > 0, draw(*SMALLER), torch.tensor(1.0))
    return replace(shapes, size=shapes.size * smaller, fainter=chosen * draw(*FAINTER))


def rule_votes(shapes: Shapes) -> Tensor:
    """Return joint vote fractions in the Kaggle scheme by rule, shape (n, 37).

    Parameters
    ----------
    shapes
        The galaxies.
    """
    answers = [answer(shapes) for answer in _RULES]
    joint: list[Tensor] = []
    for question, conditional in zip(QUESTIONS, answers, strict=True):
        fractions = conditional / conditional.sum(dim=1, keepdim=True)
        if question.parent is not None:
            fractions = fractions * torch.cat(joint, dim=1)[:, question.parent, None]
        joint.append(fractions)
    return torch.cat(joint, dim=1)


def _resolved(shapes: Shapes) -> Tensor:
    """How well details are seen, 0 to 1: half at an R90 of 5 arcsec, some four times the seeing.

    Noise hides them as a smaller size would: three magnitudes like a quarter of it.
    """
    return torch.sigmoid(2 * torch.log(shapes.size / 5) - shapes.fainter * 2 * math.log(4) / 3)


def _arms_seen(shapes: Shapes) -> Tensor:
    sharp = torch.sigmoid(shapes.arm_sharpness - 0.5)
    return shapes.arm_contrast * sharp * (1 - 0.5 * shapes.bulge) * shapes.flattening.clamp_min(0.5)


def _two(yes: Tensor, low: float, high: float) -> Tensor:
    yes = yes.clamp(low, high)
    return torch.stack([yes, 1 - yes], dim=1)


def _nearest(value: Tensor, centres: tuple[float, ...], width: float) -> Tensor:
    """Votes for ordered answers: most for the one whose centre is near."""
    apart = (value[:, None] - torch.tensor(centres)) / width
    return torch.exp(-apart.square()) + 0.02


def _smooth_or_features(shapes: Shapes) -> Tensor:
    on_disk = 2.2 * _arms_seen(shapes) + 4 * shapes.bar + 2 * shapes.ring + 0.5 * (1 - shapes.bulge) - 0.35
    face_on = 0.12 + 0.85 * torch.tanh(on_disk).clamp_min(0)
    edge_on = 0.55 + 0.4 * torch.sigmoid(4 * (0.8 - shapes.thickness)) * (1 - 0.5 * shapes.bulge)
    smooth = 0.06 + 0.25 * (shapes.flattening < 0.3).float()
    features = shapes.smooth * smooth + shapes.edge_on * edge_on + shapes.face_on * face_on
    features = (features * (0.45 + 0.55 * _resolved(shapes))).clamp(0.02, 0.97)
    features = torch.where(shapes.irregular > 0, torch.tensor(0.7), features) * 0.98
    return torch.stack([0.98 - features, features, torch.full_like(features, 0.02)], dim=1)


def _edge_on(shapes: Shapes) -> Tensor:
    smooth = (0.8 - 1.2 * shapes.flattening).clamp(0.03, 0.8)
    face_on = (0.75 - 1.4 * shapes.flattening).clamp(0.02, 0.8)
    return _two(shapes.smooth * smooth + shapes.edge_on * 0.9 + shapes.face_on * face_on, 0.0, 1.0)


def _bar(shapes: Shapes) -> Tensor:
    seen = (shapes.bar > 0).float() * (0.3 + 1.5 * shapes.bar) * (0.4 + 0.6 * _resolved(shapes))
    return _two(seen + 0.06, 0.03, 0.95)


def _spiral_share(shapes: Shapes) -> Tensor:
    seen = 0.1 + 1.3 * _arms_seen(shapes) * (0.4 + 0.6 * _resolved(shapes))
    return torch.where(shapes.face_on > 0, seen, torch.tensor(0.25)).clamp(0.04, 0.97)


def _spiral(shapes: Shapes) -> Tensor:
    return _two(_spiral_share(shapes), 0.0, 1.0)


def _bulge_prominence(shapes: Shapes) -> Tensor:
    prominence = torch.where(shapes.smooth > 0, torch.tensor(0.6), shapes.bulge + 0.3 * shapes.bar)
    return _nearest(prominence, (0.0, 0.2, 0.45, 0.75), 0.2)


def _odd(shapes: Shapes) -> Tensor:
    merger = (shapes.companion > 0).float() * (0.25 + 0.6 * shapes.companion)
    ring = (shapes.ring > 0).float() * (0.2 + 1.2 * shapes.ring)
    dust = 0.45 * (shapes.dust > 0).float()
    return _two(0.06 + merger + ring + 0.45 * shapes.irregular + dust, 0.04, 0.96)


def _rounded(shapes: Shapes) -> Tensor:
    seen = torch.where(shapes.edge_on > 0, torch.tensor(0.15), shapes.flattening)
    return _nearest(seen, (0.95, 0.6, 0.25), 0.22)


def _odd_feature(shapes: Shapes) -> Tensor:
    merger, dust = (shapes.companion > 0).float(), (shapes.dust > 0).float()
    constant = torch.ones(len(shapes))
    answers = (
        0.02 + 0.9 * (shapes.ring > 0).float(),
        0.02 * constant,
        0.12 + 0.25 * merger,
        0.12 + 0.6 * shapes.irregular,
        0.15 * constant,
        0.05 + 0.8 * merger,
        0.01 + 0.8 * dust,
    )
    return torch.stack(answers, dim=1)


def _bulge_shape(shapes: Shapes) -> Tensor:
    bulge = torch.sigmoid(15 * (shapes.bulge - 0.12))
    return torch.stack([bulge * (1 - 0.7 * shapes.boxy), 0.02 + 0.7 * bulge * shapes.boxy, 1 - bulge], dim=1)


def _winding(shapes: Shapes) -> Tensor:
    return _nearest(torch.rad2deg(shapes.arm_pitch), (10.0, 20.0, 33.0), 8.0)


def _arm_number(shapes: Shapes) -> Tensor:
    counted = _nearest(shapes.arm_number, (1.0, 2.0, 3.0, 4.0, 5.0), 0.6)
    counted = counted / counted.sum(dim=1, keepdim=True)
    unsure = 0.1 + 0.6 * (1 - _spiral_share(shapes))
    return torch.cat([counted * (1 - unsure)[:, None], unsure[:, None]], dim=1)


#: In the order of the questions.
_RULES = (
    _smooth_or_features,
    _edge_on,
    _bar,
    _spiral,
    _bulge_prominence,
    _odd,
    _rounded,
    _odd_feature,
    _bulge_shape,
    _winding,
    _arm_number,
)
