"""How a training ends: members become a committee, weights half as long, and the bundle a file."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from gzscale.models.backbone import Network
from gzscale.models.bundle import Bundle, write_bundle
from gzscale.models.network import Committee

__all__ = ["committee_of", "finish", "half_weights"]


def committee_of(kind: str, members: Sequence[Network], parameters: Mapping[str, Any]) -> Committee:
    """Return the members as one network.

    Parameters
    ----------
    kind
        Of the members.
    members
        Trained.
    parameters
        Keyword arguments of each.
    """
    committee = Committee(kind, len(members), parameters)
    for place, member in zip(committee.members, members, strict=True):
        place.load_state_dict(member.state_dict())
    return committee


def half_weights(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Round weights to float16; the statistics of normalisation, few, stay float32."""
    return {
        name: tensor.half() if tensor.is_floating_point() and tensor.dim() > 1 else tensor
        for name, tensor in weights.items()
    }


def finish(bundle: Bundle, output: str, work: Path) -> None:
    """Write the bundle, whole or not at all, and remove what its training kept to go on from."""
    part = Path(f"{output}.part")
    part.write_bytes(write_bundle(bundle))
    part.replace(output)
    shutil.rmtree(work)
