"""The exception tree: stable codes, the built-ins that callers catch, and the way through pickle."""

import errno
import inspect
import pickle

import pytest

import gzscale.errors
from gzscale.errors import GzscaleError, ImageError, MissingError, Reason, StorageError

TYPES = [
    kind
    for _, kind in inspect.getmembers(gzscale.errors, inspect.isclass)
    if issubclass(kind, Exception) and kind.__module__ == "gzscale.errors"
]
#: Scripts and tables rely on these; a code may be added, never changed.
CODES = {
    "GzscaleError": "GZSCALE",
    "ConfigError": "CONFIG",
    "CatalogError": "CATALOG",
    "StorageError": "STORAGE",
    "MissingError": "MISSING",
    "ImageError": "IMAGE",
    "BundleError": "BUNDLE",
    "LedgerError": "LEDGER",
    "LockedError": "LOCKED",
    "DamageError": "DAMAGE",
    "ClusterError": "CLUSTER",
    "CredentialsError": "CREDENTIALS",
}
#: Append only: quarantine tables of years ago hold these.
REASONS = [
    "BAD_COORDINATES",
    "BAD_ID",
    "DUPLICATE_ID",
    "MISSING_SIZE",
    "BAD_SIZE",
    "OFF_FOOTPRINT",
    "MISSING_IMAGE",
    "MISSING_BAND",
    "EMPTY_IMAGE",
    "TRUNCATED_IMAGE",
    "CHECKSUM",
    "NOT_FITS",
    "BAD_IMAGE",
    "OVERSIZED_IMAGE",
    "BAD_UNIT",
    "BAD_WCS",
    "ALL_NAN",
    "UNREACHABLE_IMAGE",
    "NONFINITE_OUTPUT",
]


def _make(kind: type[GzscaleError]) -> GzscaleError:
    if issubclass(kind, ImageError):
        return kind(Reason.BAD_WCS, "frame.fits: no CD1_1; fetch it again")
    return kind("night.yaml: survey.root: 3 of 5; do that")


def test_codes_are_unique_and_stay() -> None:
    codes = {kind.__name__: kind.code for kind in TYPES}
    assert len(set(codes.values())) == len(codes)
    assert {name: codes[name] for name in CODES} == CODES


def test_all_are_one_tree_and_public() -> None:
    for kind in TYPES:
        assert issubclass(kind, GzscaleError)
        assert kind.__name__ in gzscale.errors.__all__


def test_reasons_keep_name_and_value() -> None:
    assert [reason.name for reason in Reason][: len(REASONS)] == REASONS
    assert all(reason.value == reason.name for reason in Reason)


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("kind", TYPES)
def test_every_error_crosses_processes(kind: type[GzscaleError], protocol: int) -> None:
    error = _make(kind)
    back = pickle.loads(pickle.dumps(error, protocol))
    assert type(back) is kind
    assert str(back) == str(error)
    assert back.code == kind.code
    assert getattr(back, "reason", None) == getattr(error, "reason", None)
    assert getattr(back, "errno", None) == getattr(error, "errno", None)


def test_what_a_caller_already_catches() -> None:
    assert issubclass(MissingError, FileNotFoundError)
    assert MissingError("k").errno == errno.ENOENT
    assert issubclass(gzscale.errors.ConfigError, ValueError)
    full = StorageError("k: full", errno.ENOSPC)
    assert isinstance(full, OSError)
    assert pickle.loads(pickle.dumps(full)).errno == errno.ENOSPC
    assert str(full) == "k: full"
    assert ImageError(Reason.CHECKSUM, "f").reason is Reason.CHECKSUM
