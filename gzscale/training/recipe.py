"""What a morphology bundle is trained with, and whether that can work."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from gzscale.errors import ConfigError
from gzscale.models.backbone import Network
from gzscale.models.heads import DistanceHead, TreeHead
from gzscale.models.network import build_network
from gzscale.tasks.morphology import DISTANCE, OUTPUT
from gzscale.training.fit import Settings
from gzscale.training.shown import GEOMETRY

__all__ = ["NETWORK", "NO_TERMS", "SKETCHES", "Recipe", "require_member"]

#: Each member: 64 x 64 pixels, 2.6 R90 to each side, resampled to 96 x 96.
NETWORK: Mapping[str, Any] = {
    "widths": [6, 12, 24, 48],
    "blocks": [1, 1, 1, 1],
    "heads": {OUTPUT: "tree", DISTANCE: "distance"},
    "mean": 0.05,
    "spread": 0.1,
    "dropout": 0.2,
    "crop": 64,
    "size": 96,
}
#: Sketches that are learnt before the labelled galaxies.
SKETCHES = 65536
#: Terms of a bundle whose maker states none.
NO_TERMS: Mapping[str, Any] = {"licence": "not stated", "cite": []}
_HEADS = {OUTPUT: TreeHead, DISTANCE: DistanceHead}


@dataclass(frozen=True)
class Recipe:
    """How a bundle is trained.

    Attributes
    ----------
    members
        Folds, and members of the committee.
    start
        Path of a bundle of `gzscale train sketches` whose weights each member starts from; empty for weights
        drawn at random. See `gzscale.training.start`.
    sketches
        Sketched galaxies that are learnt then; 0 for none.
    faint
        Share of them that are fainter and smaller than those of Galaxy Zoo 2.
    sketch_fit
        How they are learnt.
    fit
        How labelled galaxies are learnt.
    network
        Keyword arguments of each member, see `gzscale.models.equivariant.EquivariantNetwork`. Its ``crop``
        and ``size`` are those of the views that it learns from, too.
    terms
        Licence and citations of the weights, the images and the votes, kept in the bundle.
    search
        How the settings were found, kept in the bundle; empty where they were given.
    """

    members: int = 5
    start: str = ""
    sketches: int = SKETCHES
    faint: float = 0.0
    sketch_fit: Settings = field(default_factory=lambda: Settings(epochs=3, batch=64))
    fit: Settings = field(default_factory=lambda: Settings(epochs=40, batch=32))
    network: Mapping[str, Any] = field(default_factory=lambda: dict(NETWORK))
    terms: Mapping[str, Any] = field(default_factory=lambda: dict(NO_TERMS))
    search: Mapping[str, Any] = field(default_factory=dict)

    def check(self) -> None:
        """Refuse a recipe that cannot be trained, before any work is done.

        Raises
        ------
        ConfigError
            If it cannot.
        """
        if self.members < 2:
            raise ConfigError(f"members={self.members}: at least 2, each scores the others' galaxies")
        if self.sketches < 0:
            raise ConfigError(f"sketches={self.sketches}: 0 or more")
        if not 0 <= self.faint <= 1:
            raise ConfigError(f"faint={self.faint}: a share from 0 to 1")
        if self.sketch_fit.patience:
            raise ConfigError(
                f"sketch_fit.patience={self.sketch_fit.patience}: no sketches are held back; set fit.patience"
            )
        require_member(self.network, GEOMETRY.size)


def require_member(parameters: Mapping[str, Any], side: int) -> None:
    """Refuse a network that cannot be a member of a morphology committee.

    Parameters
    ----------
    parameters
        Keyword arguments of `gzscale.models.equivariant.EquivariantNetwork`.
    side
        Of the pictures in pixels.

    Raises
    ------
    ConfigError
        If the network does not take them, they do not fit the pictures, or the votes would change with the
        orientation of the galaxy.
    """
    with torch.random.fork_rng(devices=[]):
        try:
            network = build_network("equivariant", parameters)
        except (ValueError, TypeError, IndexError, AttributeError, RuntimeError) as error:
            raise ConfigError(f"network: {error}") from error
    _require_views(network, len(parameters.get("widths", (0,) * 4)), side)
    if int(parameters.get("channels", 3)) != 3:
        raise ConfigError(f"network.channels={parameters['channels']}: pictures have 3")
    if {name: type(head) for name, head in network.heads.items()} != _HEADS:
        raise ConfigError(
            f"network.heads={dict(parameters.get('heads') or {})}: expected a tree head {OUTPUT!r} and a "
            f"distance head {DISTANCE!r}"
        )


def _require_views(network: Network, stages: int, side: int) -> None:
    for name in ("mean", "spread"):
        value = getattr(network, name)
        if not isinstance(value, int | float) or not math.isfinite(value):
            raise ConfigError(f"network.{name}={value!r}: expected a number")
    if network.spread <= 0:
        raise ConfigError(f"network.spread={network.spread}: above 0")
    crop = side if network.crop is None else network.crop
    if not isinstance(crop, int) or not 0 < crop <= side or crop % 2:
        raise ConfigError(
            f"network.crop={crop!r}: an even number of pixels, at most {side}, the side of the pictures"
        )
    size, step = crop if network.size is None else network.size, 2 ** (stages + 1)
    if not isinstance(size, int) or size < step or size % step:
        raise ConfigError(
            f"network.size={size!r}: with {stages} stages a multiple of {step}, or votes would change with "
            "the orientation of a galaxy"
        )
