"""A key of a cluster's own, made as it starts and gone as it ends: nobody without it can listen or send.

Dask runs what it is sent: on nodes that others use, too, a scheduler without a key would run anybody's code
under the name of whoever started it. `distributed.Security.temporary` makes such a key, but one that is valid
from now on alone: a node whose clock is behind would refuse it.
"""

from __future__ import annotations

import datetime
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["OwnKey", "make_key"]

#: Days before today from which on a key is valid, whatever a node's clock says, and after it.
_BEFORE, _AFTER = 2, 365
_ROLES = ("client", "scheduler", "worker")


@dataclass(frozen=True)
class OwnKey:
    """A key and its certificate.

    Attributes
    ----------
    folder
        Where the files lie; nobody else can read it.
    security
        `distributed.Security` of client, scheduler and workers, which names the files.
    """

    folder: Path
    security: Any

    def remove(self) -> None:
        """Remove the files."""
        shutil.rmtree(self.folder, ignore_errors=True)


def make_key(parent: Path) -> OwnKey:
    """Make a key in a new folder.

    Parameters
    ----------
    parent
        Folder that all hosts of the cluster see; it is made if it is not there.

    Raises
    ------
    ImportError
        If cryptography is not installed.
    OSError
        If the folder cannot be written.
    """
    from distributed import Security

    key, certificate = _pems()
    parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=".gzscale-key-", dir=parent)).resolve()
    paths = {"key": folder / "key.pem", "cert": folder / "certificate.pem"}
    paths["key"].touch(0o600)
    paths["key"].write_bytes(key)
    paths["cert"].write_bytes(certificate)
    files = {f"tls_{role}_{what}": str(path) for role in _ROLES for what, path in paths.items()}
    return OwnKey(folder, Security(require_encryption=True, tls_ca_file=str(paths["cert"]), **files))


def _pems() -> tuple[bytes, bytes]:
    """Return a new key and its self-signed certificate."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "gzscale")])
    today = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(today - datetime.timedelta(days=_BEFORE))
        .not_valid_after(today + datetime.timedelta(days=_AFTER))
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return private, certificate.public_bytes(serialization.Encoding.PEM)
