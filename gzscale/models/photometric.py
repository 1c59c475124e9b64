"""A network that also measures: fluxes, profiles and shapes beside what its convolutions find.

A convolutional network that pools rounded numbers measures colours to a percent or so at best, and needs
many galaxies to learn even that. Here what photometry measures is summed in single precision with fixed
weights, and stands beside the pooled features: the head has what an astronomer would have, and
the image beside it. For `gzscale.models.inputs.FluxInputs`.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from gzscale.models.backbone import HeadKind, Network
from gzscale.models.equivariant import EquivariantNetwork
from gzscale.models.heads import steady_linear
from gzscale.models.residual import ResidualNetwork

__all__ = ["PhotometricNetwork"]

_BODIES: dict[str, type[ResidualNetwork] | type[EquivariantNetwork]] = {
    "residual": ResidualNetwork,
    "equivariant": EquivariantNetwork,
}
#: Edges in pixels of the rings that profiles are summed in, and sigmas of the Gaussians of moments.
RINGS = (0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.5, 8.0, 10.0, 12.0, 15.0, 18.0, 23.0)
GAUSSIANS = (2.5, 5.0)
#: Moments of each Gaussian: 1, x^2 - y^2, 2 x y, x^2 + y^2.
_MOMENTS = 4


class PhotometricNetwork(Network):
    """A convolutional body, and measurements.

    Parameters
    ----------
    bands
        Number of bands: the input has twice as many channels, flux and how well it is known.
    reference
        Index of the band whose profile fluxes are weighted by.
    side
        Side in pixels of the square that is looked at, even.
    width
        Of the two layers that the measurements go through.
    body
        Kind of the body, ``residual`` or ``equivariant``, and its parameters.
    heads
        Name of an output -> kind of head, see `gzscale.models.backbone.Network.add_heads`.
    dropout, crop
        See `gzscale.models.backbone.Network`; ``crop`` is ``side`` or absent.
    """

    weights: Tensor
    middle: Tensor
    breadth: Tensor

    def __init__(
        self,
        bands: int = 5,
        reference: int = 2,
        side: int = 48,
        width: int = 256,
        body: Mapping[str, Any] | None = None,
        heads: Mapping[str, HeadKind] | None = None,
        dropout: float = 0.0,
        crop: int | None = None,
    ) -> None:
        super().__init__(0.0, 1.0, dropout, crop)
        self.bands, self.reference = bands, reference
        about = {"kind": "residual", **(body or {})}
        kind = _BODIES[about.pop("kind")]
        self.body = kind(channels=2 * bands, mean=0.0, spread=1.0, dropout=0.0, **about)
        self.register_buffer("weights", _weights(side), persistent=False)
        rings = len(RINGS) - 1
        measured = bands * (rings + 3) + 2 * bands * len(GAUSSIANS)
        self.register_buffer("middle", torch.zeros(measured))
        self.register_buffer("breadth", torch.ones(measured))
        self.first, self.second = nn.Linear(measured, width), nn.Linear(width, width)
        self.add_heads(self.body.length + width, heads)

    def measure(self, prepared: Tensor) -> Tensor:
        """Measure each image: the same for all 8 views.

        Parameters
        ----------
        prepared
            Shape (n, 2 bands, side, side), as `gzscale.models.inputs.to_channels` makes it.

        Returns
        -------
        Tensor
            float32, shape (n, measurements): colours within each ring's outer edge, from asinh fluxes in
            units of what noise would add; colours and flux that the reference band's profile fits; the growth
            of the reference band's flux; how much of each band is known, and how well; ellipticity and
            size of each band under each Gaussian.
        """
        with torch.no_grad(), torch.autocast(prepared.device.type, enabled=False):
            flux, known = torch.sinh(prepared[:, : self.bands].float()), prepared[:, self.bands :].float()
            rings, moments = self._sums(flux).split([len(RINGS) - 1, _MOMENTS * len(GAUSSIANS)], dim=2)
            area = self._sums((known > 0).float())[:, :, : len(RINGS) - 1]
            growth = rings.cumsum(dim=2) / area.cumsum(dim=2).clamp_min(1).sqrt()
            shape = (rings / area.clamp_min(1))[:, self.reference, None].clamp_min(0)
            fitted = (shape * rings).sum(dim=2) / (shape.square() * area).sum(dim=2).clamp_min(1e-6)
            total = fitted * shape.square().sum(dim=2).sqrt()
            share = area.sum(dim=2) / self.weights[: len(RINGS) - 1].sum()
            growth, total = torch.asinh(growth), torch.asinh(total)
            profile = growth[:, self.reference]
            parts = [
                (growth[:, :-1] - growth[:, 1:]).flatten(1),
                total[:, :-1] - total[:, 1:],
                total[:, self.reference, None],
                profile[:, :1],
                profile.diff(dim=1),
                share,
                known.amax(dim=(2, 3)),
                *_ellipses(moments),
            ]
            return torch.cat(parts, dim=1)

    def learn_scale(self, measured: Tensor) -> None:
        """Take the middle and the spread of measurements, shape (n, measurements), as the usual ones."""
        self.middle.copy_(measured.mean(dim=0))
        self.breadth.copy_(measured.std(dim=0).clamp_min(1e-3))

    def measured_features(self, measured: Tensor) -> Tensor:
        """Return what the head is given of measurements: float32, shape (n, width)."""
        scaled = ((measured - self.middle) / self.breadth).clamp(-8, 8)
        return silu(steady_linear(silu(steady_linear(scaled, self.first)), self.second))

    def features(self, prepared: Tensor) -> Tensor:
        """Return the pooled features of the body and those of the measurements, one vector a row."""
        return torch.cat(
            [self.body.features(prepared), self.measured_features(self.measure(prepared))], dim=1
        )

    def fuse(self) -> None:
        """Fold the body's normalisations into its convolutions."""
        self.body.fuse()

    def _sums(self, images: Tensor) -> Tensor:
        """Return the sums of images under all weights, shape (n, bands, weights)."""
        if self.training:
            return images.flatten(2) @ self.weights.flatten(1).T
        # Not a matrix product: the order of its sum depends on the threads.
        return torch.stack([(images * weight).sum(dim=(2, 3)) for weight in self.weights], dim=2)


def _weights(side: int) -> Tensor:
    """Return the weights of rings, whose edges are a pixel wide, and of the Gaussians' moments."""
    axis = torch.arange(side) - (side - 1) / 2
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    radius = torch.hypot(x, y)
    inside = [(edge - radius + 0.5).clamp(0, 1) if edge else torch.zeros_like(radius) for edge in RINGS]
    rings = [outer - inner for inner, outer in itertools.pairwise(inside)]
    moments = []
    for sigma in GAUSSIANS:
        weight = torch.exp(-(radius**2) / (2 * sigma**2))
        scaled = [weight * value / sigma**2 for value in (x**2 - y**2, 2 * x * y, radius**2)]
        moments += [weight, *scaled]
    return torch.stack([*rings, *moments])


def _ellipses(moments: Tensor) -> list[Tensor]:
    """Return ellipticity and size of each band and Gaussian; 0 where there is no flux."""
    flux, plus, cross, size = moments.unflatten(2, (len(GAUSSIANS), _MOMENTS)).unbind(dim=3)
    good = (flux > 1) & (size > 0.1 * flux)
    ellipticity = torch.where(good, torch.hypot(plus, cross) / torch.where(good, size, 1), 0)
    extent = torch.where(good, size / torch.where(good, flux, 1), 0)
    return [ellipticity.clamp(0, 2).flatten(1), extent.clamp(0, 5).flatten(1)]
