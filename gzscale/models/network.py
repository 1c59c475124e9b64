"""Networks by name: what a bundle says of its network, turned into one.

Several networks of one kind make a committee: its outputs are the means of the members', logits of lenses.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from gzscale.models.backbone import Network
from gzscale.models.equivariant import EquivariantNetwork
from gzscale.models.photometric import PhotometricNetwork
from gzscale.models.residual import ResidualNetwork

__all__ = ["Committee", "build_network", "fuse"]


class Committee(Network):
    """Several networks of one kind, each with its own weights; what they say together.

    Parameters
    ----------
    kind
        Of the members.
    members
        How many.
    parameters
        Keyword arguments of each.
    """

    def __init__(self, kind: str, members: int, parameters: Mapping[str, Any]) -> None:
        made = [build_network(kind, parameters) for _ in range(members)]
        first = made[0]
        super().__init__(first.mean, first.spread, 0.0, first.crop, first.size)
        self.members = nn.ModuleList(made)

    def features(self, prepared: Tensor) -> Tensor:
        """Return the members' feature vectors side by side."""
        return torch.cat([member.features(prepared) for member in self._networks()], dim=1)

    def outputs(self, prepared: Tensor) -> dict[str, Tensor]:
        """Return what the members say together of each head: the mean, or as the head pools it."""
        every = [member.outputs(prepared) for member in self._networks()]
        return {name: self.together(name, torch.stack([said[name] for said in every])) for name in every[0]}

    def together(self, name: str, said: Tensor) -> Tensor:
        """Return what several say together, as the members have it."""
        return self._networks()[0].together(name, said)

    def evidence(self, prepared: Tensor, head: str) -> Tensor:
        """Return the mean of the members' maps."""
        return torch.stack([member.evidence(prepared, head) for member in self._networks()]).mean(dim=0)

    def fuse(self) -> None:
        """Fuse every member."""
        for member in self._networks():
            member.fuse()

    def _networks(self) -> list[Network]:
        return [member for member in self.members if isinstance(member, Network)]


_NETWORKS: dict[str, type[Network]] = {
    "residual": ResidualNetwork,
    "equivariant": EquivariantNetwork,
    "photometric": PhotometricNetwork,
    "committee": Committee,
}


def build_network(name: str, parameters: Mapping[str, Any]) -> Network:
    """Make a network, its weights at random, from what a bundle says of it.

    Parameters
    ----------
    name
        ``residual``, ``equivariant``, ``photometric`` or ``committee``.
    parameters
        Keyword arguments of the network.

    Raises
    ------
    ValueError
        If the name, a head or a parameter is not known.
    """
    if name not in _NETWORKS:
        raise ValueError(f"network {name!r} is not one of {sorted(_NETWORKS)}")
    try:
        return _NETWORKS[name](**parameters)
    except (TypeError, KeyError) as error:
        raise ValueError(f"network {name!r} does not take {dict(parameters)!r}: {error}") from error


def fuse(network: Network) -> Network:
    """Fold what is constant in evaluation; the network must be in eval mode."""
    network.fuse()
    return network
