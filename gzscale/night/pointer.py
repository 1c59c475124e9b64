"""Which release is the latest, and what is in one: the pointer and the manifests."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from gzscale.errors import DamageError, LedgerError, MissingError
from gzscale.night.fingerprint import canonical_json
from gzscale.night.ledger import unseal
from gzscale.storage import Storage

__all__ = ["POINTER", "Pointer", "holds", "manifest_key", "move_pointer", "read_manifest", "read_pointer"]

POINTER = "releases/LATEST"


@dataclass(frozen=True)
class Pointer:
    """Which release is the latest.

    Attributes
    ----------
    release
        Its name.
    night
        The run that published it.
    manifest
        SHA-256 of its manifest.
    """

    release: str
    night: str
    manifest: str


def read_pointer(storage: Storage) -> Pointer | None:
    """Return the latest release of an output, or None where nothing is released.

    Raises
    ------
    DamageError
        If the pointer cannot be read.
    """
    try:
        return Pointer(**json.loads(storage.get(POINTER)))
    except MissingError:
        return None
    except (ValueError, TypeError) as error:
        raise DamageError(
            f"{storage.url(POINTER)}: not a release pointer ({error}); delete it and run the night again, "
            "which writes it anew; the releases stay"
        ) from error


def manifest_key(release: str) -> str:
    """Name of a release's manifest."""
    return f"releases/{release}/manifest.json"


def read_manifest(storage: Storage, release: str) -> dict[str, Any]:
    """Read a release's manifest, checking its seal."""
    key = manifest_key(release)
    return unseal(storage.get(key), storage.url(key))


def holds(storage: Storage, release: str, content: str) -> bool:
    """Tell whether a release has some content, and all of its files in their length."""
    try:
        manifest = read_manifest(storage, release)
    except (DamageError, MissingError):
        return False
    top = f"releases/{release}/"
    sizes = {entry.key: entry.size for entry in storage.list(top.rstrip("/"))}
    complete = all(sizes.get(top + key) == size for key, (_, size) in manifest["files"].items())
    return complete and manifest["content"] == content


def move_pointer(storage: Storage, pointer: Pointer) -> None:
    """Make a release the latest one, atomically, and only if no other night does so at the same time.

    Raises
    ------
    LedgerError
        If the pointer was moved by somebody else meanwhile.
    """
    data = canonical_json(asdict(pointer)) + b"\n"
    entry = storage.stat(POINTER)
    moved = storage.put_new(POINTER, data) if entry is None else storage.replace(POINTER, data, entry.tag)
    if not moved:
        raise LedgerError(
            f"{storage.url(POINTER)}: another night moved it at the same time; its release stays, "
            f"{pointer.release} is written beside it; run the night again"
        )
