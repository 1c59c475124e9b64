"""The exception tree, and the reasons for which an object is quarantined.

Every error carries a stable ``code``; where a caller would already catch a
built-in (a missing file, a wrong value), the type subclasses that built-in too.
"""

from __future__ import annotations

import errno
from enum import StrEnum
from typing import ClassVar

__all__ = [
    "BundleError",
    "CatalogError",
    "ClusterError",
    "ConfigError",
    "CredentialsError",
    "DamageError",
    "GzscaleError",
    "ImageError",
    "LedgerError",
    "LockedError",
    "MissingError",
    "Reason",
    "StorageError",
    "WorkerError",
]


class Reason(StrEnum):
    """Why an object was not done.

    The enumeration is append-only: a value that was ever written to a
    quarantine table keeps its name and its meaning.
    """

    BAD_COORDINATES = "BAD_COORDINATES"
    """ra or dec is missing, not finite, or outside [0, 360) x [-90, 90] degrees."""
    BAD_ID = "BAD_ID"
    """The identifier is missing, or names no image of this survey."""
    DUPLICATE_ID = "DUPLICATE_ID"
    """Another row of the catalog has the same identifier: a newer one, or an earlier one of equal version."""
    MISSING_SIZE = "MISSING_SIZE"
    """The geometry is tied to the object's size, and the size is missing."""
    BAD_SIZE = "BAD_SIZE"
    """The size is not positive, or so large that the cutout leaves what can be cut."""
    OFF_FOOTPRINT = "OFF_FOOTPRINT"
    """No image of the survey covers the object's position."""
    MISSING_IMAGE = "MISSING_IMAGE"
    """The images that cover the object do not exist where they should be."""
    MISSING_BAND = "MISSING_BAND"
    """The object is covered, but not in every band that is needed."""
    EMPTY_IMAGE = "EMPTY_IMAGE"
    """The image file has no bytes."""
    TRUNCATED_IMAGE = "TRUNCATED_IMAGE"
    """The image file ends before its data do."""
    CHECKSUM = "CHECKSUM"
    """The image file's bytes do not match its own checksum."""
    NOT_FITS = "NOT_FITS"
    """The file is not a FITS image (an HTML error page, for example)."""
    BAD_IMAGE = "BAD_IMAGE"
    """The file is FITS, but not the image that its name promises."""
    OVERSIZED_IMAGE = "OVERSIZED_IMAGE"
    """The image claims, or unpacks to, more pixels than an image of the survey has."""
    BAD_UNIT = "BAD_UNIT"
    """The image's pixel unit is not one that can be calibrated."""
    BAD_WCS = "BAD_WCS"
    """The image's world coordinate system is missing or singular."""
    ALL_NAN = "ALL_NAN"
    """Every pixel of the cutout is missing."""
    UNREACHABLE_IMAGE = "UNREACHABLE_IMAGE"
    """The server that holds the image did not deliver it, after all retries."""
    NONFINITE_OUTPUT = "NONFINITE_OUTPUT"
    """The network's output for this object is not finite."""
    BLANK_BAND = "BLANK_BAND"
    """Every measured pixel of a band that is needed is zero."""
    WORKER_LOST = "WORKER_LOST"
    """Workers died, one after the other, while they worked on the object's partition alone."""
    TIME_LIMIT = "TIME_LIMIT"
    """The object's partition took longer than the cluster's preset allows, twice."""
    BAD_VERSION = "BAD_VERSION"
    """The catalog has a column of versions, and the row's is missing, or neither an integer nor a time."""
    UNDERSIZED_IMAGE = "UNDERSIZED_IMAGE"
    """The picture has too few pixels to tell what it shows."""


class GzscaleError(Exception):
    """Base of every error that gzscale raises on purpose."""

    code: ClassVar[str] = "GZSCALE"


class ConfigError(GzscaleError, ValueError):
    """The night's configuration cannot be used."""

    code = "CONFIG"


class CatalogError(GzscaleError, ValueError):
    """The input catalog as a whole cannot be used."""

    code = "CATALOG"


class StorageError(GzscaleError, OSError):
    """Storage refused, after all retries.

    Parameters
    ----------
    message
        The full name of what was asked for, what happened, and what to do.
    number
        The operating system's error number (`errno.ENOSPC` ...), where there is one;
        kept as ``errno``.
    """

    code = "STORAGE"

    def __init__(self, message: str, number: int | None = None) -> None:
        super().__init__(message)
        self.errno = number

    def __reduce__(self) -> tuple[type[StorageError], tuple[str, int | None]]:
        return type(self), (str(self), self.errno)


class MissingError(StorageError, FileNotFoundError):
    """Nothing is stored under that name."""

    code = "MISSING"

    def __init__(self, message: str, number: int | None = errno.ENOENT) -> None:
        super().__init__(message, number)


class CredentialsError(StorageError, PermissionError):
    """Storage refuses this process's credentials, whatever is asked for; no image is to blame."""

    code = "CREDENTIALS"

    def __init__(self, message: str, number: int | None = errno.EACCES) -> None:
        super().__init__(message, number)


class ImageError(GzscaleError, OSError):
    """One image cannot be used; its objects are quarantined, the rest goes on.

    Parameters
    ----------
    reason
        What is wrong, as the quarantine table will say it.
    message
        The file, the numbers, and what to do.
    """

    code = "IMAGE"

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason

    def __reduce__(self) -> tuple[type[ImageError], tuple[Reason, str]]:
        return type(self), (self.reason, str(self))


class BundleError(GzscaleError, ValueError):
    """A model bundle is damaged, or does not fit what it would be fed."""

    code = "BUNDLE"


class LedgerError(GzscaleError, RuntimeError):
    """The ledger contradicts itself or what is stored."""

    code = "LEDGER"


class LockedError(LedgerError):
    """Another night is running on the same output."""

    code = "LOCKED"


class DamageError(GzscaleError, ValueError):
    """What is stored is not what was committed."""

    code = "DAMAGE"


class ClusterError(GzscaleError, RuntimeError):
    """The Dask cluster cannot be made or reached."""

    code = "CLUSTER"


class WorkerError(ClusterError):
    """One worker cannot do this night's work, while another may: it is let go.

    Parameters
    ----------
    message
        The worker, what is wrong with it, and what to do.
    worker
        Its address, where it is known.
    """

    code = "WORKER"

    def __init__(self, message: str, worker: str = "") -> None:
        super().__init__(message)
        self.worker = worker

    def __reduce__(self) -> tuple[type[WorkerError], tuple[str, str]]:
        return type(self), (str(self), self.worker)
