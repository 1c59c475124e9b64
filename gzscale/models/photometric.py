"""A network that also measures: aperture fluxes beside what its convolutions find.

A convolutional network that pools rounded numbers measures colours to a percent or so at best. Here the
fluxes within fixed apertures are summed in single precision, and stand beside the pooled features:
the head has what photometry has, and the image beside it. For `gzscale.models.inputs.FluxInputs`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gzscale.models.backbone import HeadKind, Network
from gzscale.models.equivariant import EquivariantNetwork
from gzscale.models.residual import ResidualNetwork

__all__ = ["PhotometricNetwork"]

_BODIES: dict[str, type[ResidualNetwork] | type[EquivariantNetwork]] = {
    "residual": ResidualNetwork,
    "equivariant": EquivariantNetwork,
}


class PhotometricNetwork(Network):
    """A convolutional body, and apertures.

    Parameters
    ----------
    bands
        Number of bands: the input has twice as many channels, flux and how well it is known.
    side
        Side in pixels of the square that is looked at, even.
    apertures
        Radii in pixels of the circular apertures; their edges are a pixel wide.
    body
        Kind of the body, ``residual`` or ``equivariant``, and its parameters.
    heads
        Name of an output -> kind of head, see `gzscale.models.backbone.Network.add_heads`.
    dropout, crop
        See `gzscale.models.backbone.Network`; ``crop`` is ``side`` or absent.
    """

    weights: Tensor

    def __init__(
        self,
        bands: int = 5,
        side: int = 48,
        apertures: Sequence[float] = (1.5, 3, 5, 8, 12, 18),
        body: Mapping[str, Any] | None = None,
        heads: Mapping[str, HeadKind] | None = None,
        dropout: float = 0.0,
        crop: int | None = None,
    ) -> None:
        super().__init__(0.0, 1.0, dropout, crop)
        self.bands = bands
        about = {"kind": "residual", **(body or {})}
        kind = _BODIES[about.pop("kind")]
        self.body = kind(channels=2 * bands, mean=0.0, spread=1.0, dropout=0.0, **about)
        middle = torch.arange(side) - (side - 1) / 2
        radius = torch.hypot(middle[:, None], middle)
        shapes = torch.stack([(radius_of - radius + 0.5).clamp(0, 1) for radius_of in apertures])
        self.register_buffer("weights", shapes, persistent=False)
        measured = bands * (2 * len(apertures) + 1)
        self.scale = nn.BatchNorm1d(measured)
        self.add_heads(self.body.length + measured, heads)

    def measure(self, prepared: Tensor) -> Tensor:
        """Return asinh fluxes in the apertures, the share of them that is known, and the noise of each band.

        Parameters
        ----------
        prepared
            Shape (n, 2 bands, side, side), as `gzscale.models.inputs.to_channels` makes it.

        Returns
        -------
        Tensor
            float32, shape (n, bands * (2 apertures + 1)).
        """
        flux, known = torch.sinh(prepared[:, : self.bands].float()), prepared[:, self.bands :].float()
        measured = known > 0
        area = self.weights.sum(dim=(1, 2))
        # Not a matrix product: the order of its sum depends on the threads.
        summed = (flux[:, :, None] * self.weights).sum(dim=(3, 4))
        share = (measured[:, :, None] * self.weights).sum(dim=(3, 4)) / area
        parts = [torch.asinh(summed / area.sqrt()).flatten(1), share.flatten(1), known.amax(dim=(2, 3))]
        return torch.cat(parts, dim=1)

    def features(self, prepared: Tensor) -> Tensor:
        """Return the pooled features of the body and the scaled measurements, one vector a row."""
        return torch.cat([self.body.features(prepared), self.scale(self.measure(prepared))], dim=1)

    def fuse(self) -> None:
        """Fold the body's normalisations into its convolutions."""
        self.body.fuse()
