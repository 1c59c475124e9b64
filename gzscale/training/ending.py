"""How a training ends: members become a committee, weights half as long, and the bundle a file."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from gzscale.errors import ConfigError
from gzscale.models.backbone import Network
from gzscale.models.bundle import Bundle, write_bundle
from gzscale.models.network import Committee
from gzscale.storage import open_storage, sha256_hex

__all__ = ["beside", "committee_of", "finish", "half_weights", "require_place"]


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


def beside(output: str, ending: str) -> Path:
    """Return the path of what a training keeps beside its bundle.

    Parameters
    ----------
    output
        Path or URL of the bundle; what belongs to a URL is kept in the current folder.
    ending
        Of the name: ``work``, ``curve.csv``.
    """
    if "://" not in output:
        return Path(f"{output}.{ending}")
    # Two buckets may have bundles of one name.
    return Path(f"{output.rpartition('/')[2]}.{sha256_hex(output.encode())[:8]}.{ending}")


def require_place(output: str) -> None:
    """Refuse a URL that a bundle could not be written to, before it is trained for hours.

    Parameters
    ----------
    output
        Path or URL of the bundle.

    Raises
    ------
    ConfigError
        If it is no object of a bucket: ``s3://bucket/name``.
    StorageError
        If nothing can be written there.
    """
    if "://" not in output:
        return
    if not re.fullmatch(r"s3://[^/]+/.*[^/]", output):
        raise ConfigError(f"{output}: a bundle is written to a path, or to s3://bucket/name")
    folder, _, name = output.rpartition("/")
    storage = open_storage(folder)
    storage.put(f"{name}.part", b"")
    storage.delete(f"{name}.part")


def finish(bundle: Bundle, output: str, work: Path) -> None:
    """Write the bundle, whole or not at all, and remove what its training kept to go on from.

    Parameters
    ----------
    bundle
        What was trained.
    output
        Path or URL.
    work
        Folder of checkpoints.

    Raises
    ------
    StorageError
        If it cannot be written; the checkpoints stay.
    """
    if "://" in output:
        folder, _, name = output.rpartition("/")
        open_storage(folder).put(name, write_bundle(bundle))
    else:
        part = Path(f"{output}.part")
        part.write_bytes(write_bundle(bundle))
        part.replace(output)
    shutil.rmtree(work)
