"""The hash of what a bundle holds, which the bundle itself states: changed bytes are noticed anywhere.

A file in the package is known by the hash of all its bytes (`gzscale.models.shipped`); one that a survey has
trained, copied or put into object storage states its own.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from gzscale.errors import BundleError

__all__ = ["content_digest", "described", "require_unchanged", "sealed"]

#: In the description, the hash of all the rest; files from before it have none.
_DIGEST = "digest"


def sealed(about: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """Return a description that states the hash of itself and of the tensors, as JSON."""
    # What JSON makes of it: a tuple comes back as a list.
    told = json.loads(described(about))
    return described({**told, _DIGEST: content_digest(told, tensors)})


def require_unchanged(path: str, about: dict[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Take the stated hash out of a description, and refuse what it is not that of.

    Raises
    ------
    BundleError
        If description or tensors were changed.
    """
    stated = about.pop(_DIGEST, None)
    if stated is not None and content_digest(about, tensors) != stated:
        raise BundleError(
            f"{path}: its description and weights are not those of which it states the SHA-256 {stated}: the "
            "file was changed or damaged; copy or train it again"
        )


def described(about: Mapping[str, Any]) -> str:
    """Return a bundle's description as JSON whose bytes depend on the values alone.

    Raises
    ------
    ValueError
        If a number is not finite.
    """
    return json.dumps(about, sort_keys=True, allow_nan=False)


def content_digest(about: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of a bundle's description and of its tensors.

    Parameters
    ----------
    about
        The description, plain values.
    tensors
        All tensors of the file by name; their types, shapes and values count.
    """
    digest = hashlib.sha256(described(about).encode())
    for name, tensor in sorted(tensors.items()):
        kept = tensor.contiguous().cpu()
        digest.update(f"|{name}|{kept.dtype}|{tuple(kept.shape)}|".encode())
        # As bytes, since NumPy knows no bfloat16; a number without a shape has none to see otherwise.
        digest.update(kept.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
