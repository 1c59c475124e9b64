"""A key of a cluster's own, made as it starts and gone as it ends: without it no message is taken or told.

Dask runs what it is sent: on nodes that others use, too, a scheduler without a key would run anybody's code
under the name of whoever started it. `distributed.Security.temporary` makes such a key, but one that is valid
from now on alone: a node whose clock is behind would refuse it.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import shlex
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["NO_PAGES", "OwnKey", "make_key"]

#: Days before today from which on a key is valid, whatever a node's clock says, and after it.
_BEFORE, _AFTER = 2, 30
_KEY, _CERTIFICATE = "key.pem", "certificate.pem"
_ROLES = ("client", "scheduler", "worker")
#: Begin of the names of the folders.
_PREFIX = ".gzscale-key-"
#: Settings of a scheduler that serves no web pages, which ask for no key.
NO_PAGES: dict[str, list[str]] = {"distributed.scheduler.http.routes": []}


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

    def exports(self) -> list[str]:
        """Return shell lines by which a Dask process on another host takes the key, or says that it cannot.

        As settings, for arguments are not quoted on their way into a job's script.
        """
        key, certificate = shlex.quote(str(self.folder / _KEY)), shlex.quote(str(self.folder / _CERTIFICATE))
        blind = f"the key of this night, {self.folder}, is not seen from here: let `logs` of the preset"
        said = shlex.quote(f"{blind} name a folder that all nodes see")
        return [
            f'test -r {key} || {{ echo "$(hostname):" {said} >&2; exit 1; }}',
            f"export DASK_DISTRIBUTED__COMM__TLS__CA_FILE={certificate}",
            f"export DASK_DISTRIBUTED__COMM__TLS__WORKER__CERT={certificate}",
            f"export DASK_DISTRIBUTED__COMM__TLS__WORKER__KEY={key}",
            "export DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION=True",
            "export DASK_DISTRIBUTED__WORKER__HTTP__ROUTES='[]'",
        ]

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
    # Not what links lead to: it may be another path on another host.
    parent = Path(os.path.abspath(parent))
    parent.mkdir(parents=True, exist_ok=True)
    _sweep(parent)
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
    paths = {"key": folder / _KEY, "cert": folder / _CERTIFICATE}
    try:
        paths["key"].touch(0o600)
        paths["key"].write_bytes(key)
        paths["cert"].write_bytes(certificate)
    except OSError:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    files = {f"tls_{role}_{what}": str(path) for role in _ROLES for what, path in paths.items()}
    return OwnKey(folder, Security(require_encryption=True, tls_ca_file=str(paths["cert"]), **files))


def _sweep(parent: Path) -> None:
    """Remove keys that are valid no more, left by nights that were killed, on whatever host."""
    for folder in parent.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            if time.time() - folder.stat().st_mtime > _AFTER * 86_400:
                shutil.rmtree(folder, ignore_errors=True)


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
