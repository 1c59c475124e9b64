"""What went wrong with a remote request, from the errors of aiohttp, botocore and s3fs."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from typing import Any

__all__ = ["describe", "is_missing", "passes", "remedy", "status_of"]

#: HTTP statuses that pass: throttled, in conflict, or a server's own trouble.
PASSING_STATUS = frozenset({408, 409, 429, 500, 502, 503, 504})

#: What S3 calls temporary credentials whose time is over.
_EXPIRED = frozenset({"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "RequestExpired"})


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__ or seen.__context__


def _answer(error: BaseException) -> dict[str, Any]:
    """Return the S3 answer behind an error, or an empty one."""
    for link in _chain(error):
        response = getattr(link, "response", None)
        if isinstance(response, dict):
            return response
    return {}


def status_of(error: BaseException) -> int | None:
    """Find the HTTP status behind an error of aiohttp, botocore or s3fs."""
    found = _answer(error).get("ResponseMetadata", {}).get("HTTPStatusCode")
    if isinstance(found, int):
        return found
    statuses = (getattr(link, "status", None) for link in _chain(error))
    return next((status for status in statuses if isinstance(status, int)), None)


def is_missing(error: BaseException) -> bool:
    """Say whether the store is there and nothing is stored under the name."""
    if _answer(error).get("Error", {}).get("Code") == "NoSuchBucket":
        return False
    return isinstance(error, FileNotFoundError) or status_of(error) in {404, 410}


def passes(error: BaseException) -> bool:
    """Say whether the same request may succeed a little later."""
    import aiohttp
    import botocore.exceptions as boto  # type: ignore[import-untyped]

    status = status_of(error)
    if status is not None:
        return status in PASSING_STATUS
    links = [*_chain(error)]
    if any(isinstance(link, ssl.SSLCertVerificationError) for link in links):
        return False
    passing = (
        TimeoutError,
        ConnectionError,
        aiohttp.ClientConnectionError,
        aiohttp.ClientPayloadError,
        boto.HTTPClientError,
        boto.ConnectionError,
        boto.IncompleteReadError,
        boto.ChecksumError,
    )
    return any(isinstance(link, passing) for link in links)


def describe(error: BaseException) -> str:
    """Tell the HTTP status and the server's words, or the error itself, in one line."""
    told, status = _answer(error).get("Error", {}), status_of(error)
    if status is not None:
        words = [f"HTTP {status}", told.get("Code"), told.get("Message") or getattr(error, "message", None)]
        return " ".join(str(word) for word in words if word)
    return f"{type(error).__name__}: {error}"


def remedy(error: BaseException) -> str:
    """Say what a person can do about it."""
    status, code = status_of(error), _answer(error).get("Error", {}).get("Code")
    if code == "NoSuchBucket":
        return "make the bucket, or correct the URL"
    if code in _EXPIRED:
        return "the credentials have expired: renew them, and run the same command; it goes on from here"
    if status in {401, 403} or "Credentials" in type(error).__name__:
        return "check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and what they may do (`gzscale doctor`)"
    if passes(error):
        return "the server is in trouble or out of reach: run the same command again later (`gzscale doctor`)"
    return "see `gzscale doctor` for the endpoint and the credentials in use"
