"""What a lens finder is trained with, by survey."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gzscale.errors import ConfigError
from gzscale.training.lens_examples import EXTENT, Mix
from gzscale.training.lens_fit import LensViews
from gzscale.training.loop import Pace

__all__ = ["RECIPES", "LensRecipe"]


@dataclass(frozen=True)
class LensRecipe:
    """How a lens finder is trained.

    Attributes
    ----------
    survey
        Whose filters and camera they are: a key of `gzscale.models.inputs.REDDENING`.
    bands
        The bands that it sees; all are required.
    held_out
        Parts of the names of images that are kept apart for the test.
    mix
        Of what the examples consist.
    views
        How views of an example differ.
    pace
        How fast and how long.
    extent
        Side in arcsec of the central part that is looked at.
    size
        Side in pixels that it is resampled to.
    network
        Keyword arguments of `gzscale.models.equivariant.EquivariantNetwork`.
    prevalence
        Share of lenses at which scores are stated.
    tested
        Lenses of the test.
    members
        Networks whose logits are averaged, each trained without a part of the images: see
        `gzscale.training.lens_members`. The second has the next seed, and so on.
    """

    survey: str = "sdss"
    bands: str = "gri"
    held_out: tuple[str, ...] = ()
    mix: Mix = field(default_factory=Mix)
    views: LensViews = field(default_factory=LensViews)
    pace: Pace = field(default_factory=lambda: Pace(epochs=10, batch=64, memory=0.995))
    extent: float = EXTENT
    size: int = 64
    network: Mapping[str, Any] = field(
        default_factory=lambda: {"widths": [6, 12, 24], "blocks": [1, 2, 1], "dropout": 0.1}
    )
    prevalence: float = 1e-3
    tested: int = 2000
    members: int = 1

    def check(self) -> None:
        """Refuse a recipe that cannot be trained.

        Raises
        ------
        ConfigError
            If it cannot.
        """
        for name in ("uniform", "mimics", "deflectors", "companions", "crowds", "stars"):
            if not 0 <= getattr(self.mix, name) <= 1:
                raise ConfigError(f"mix.{name}={getattr(self.mix, name)}: a share from 0 to 1")
        if self.mix.mimics + self.mix.deflectors > 1:
            raise ConfigError(
                f"mix.mimics={self.mix.mimics} and mix.deflectors={self.mix.deflectors}: more than all others"
            )
        if self.members < 1:
            raise ConfigError(f"members={self.members}: 1 or more")
        if self.members > 1 and self.pace.patience:
            raise ConfigError(
                f"pace.patience={self.pace.patience}: a member's fit would end by the fold that it is "
                "calibrated on; set pace.epochs, or members=1"
            )


#: Survey -> what its training starts from. For SDSS four networks, and mimics of the kinds that were taken
#: for lenses in its images. Rubin's sharper and deeper images show smaller lenses, in one band more; what is
#: looked at is all of a cutout.
RECIPES = {
    "sdss": LensRecipe(
        mix=Mix(mimics=0.4, companions=0.25, crowds=0.1, stars=0.25),
        pace=Pace(epochs=12, batch=64, memory=0.995),
        members=4,
    ),
    "rubin": LensRecipe(survey="rubin", bands="griz", mix=Mix(radii=(0.5, 4.0)), extent=12.8),
}
