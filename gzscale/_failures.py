"""What went wrong with a remote request, from the errors of aiohttp, botocore and s3fs."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from typing import Any

__all__ = [
    "describe",
    "finds_no_credentials",
    "is_denied",
    "is_missing",
    "passes",
    "refuses_credentials",
    "remedy",
    "status_of",
]

#: HTTP statuses that pass: throttled, in conflict, or a server's own trouble.
PASSING_STATUS = frozenset({408, 409, 429, 500, 502, 503, 504})

#: What S3 calls temporary credentials whose time is over.
_EXPIRED = frozenset({"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "RequestExpired"})
#: What S3, its imitators and AWS's token service call credentials that they do not know.
_UNKNOWN = frozenset(
    {
        "AuthFailure",
        "InvalidAccessKeyId",
        "InvalidClientTokenId",
        "InvalidIdentityToken",
        "InvalidSecurity",
        "InvalidToken",
        "InvalidTokenId",
        "SignatureDoesNotMatch",
        "UnrecognizedClientException",
    }
)
#: Signed at a time that is not the server's: refused as wrong credentials are, and mended otherwise.
_SKEWED = "RequestTimeTooSkewed"
#: Workers are this process's children, with its environment, or were started by somebody else with another.
_RENEW = (
    "renew them and run the same command, which goes on from here (workers that somebody else started, or in "
    "pods, have their own: renew those, and start the workers anew)"
)


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


def is_denied(error: BaseException) -> bool:
    """Say whether what was asked for may not be had, be it there or not."""
    return status_of(error) in {401, 403}


def refuses_credentials(error: BaseException) -> bool:
    """Say whether it is the credentials that are refused, or absent, whatever was asked for."""
    import botocore.exceptions as boto  # type: ignore[import-untyped]

    without = (
        boto.NoCredentialsError,
        boto.PartialCredentialsError,
        boto.CredentialRetrievalError,
        boto.TokenRetrievalError,
        boto.NoAuthTokenError,
        boto.SSOError,
    )
    code = _answer(error).get("Error", {}).get("Code")
    return (
        code in _EXPIRED
        or code in _UNKNOWN
        or code == _SKEWED
        or any(isinstance(link, without) for link in _chain(error))
    )


def finds_no_credentials(error: BaseException) -> bool:
    """Say whether there were none to be had: there are none, or their service was too busy to give them."""
    import botocore.exceptions as boto

    without = (boto.NoCredentialsError, boto.CredentialRetrievalError)
    return any(isinstance(link, without) for link in _chain(error))


def passes(error: BaseException) -> bool:
    """Say whether the same request may succeed a little later."""
    import aiohttp
    import botocore.exceptions as boto

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
        return f"the credentials have expired: {_RENEW}"
    if code == _SKEWED:
        return "synchronise this host's clock (chronyc makestep), and run the same command again"
    if finds_no_credentials(error):
        return (
            "no credentials were found: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or look whether the "
            "service answers that this host, or pod, has them from, and run the same command again"
        )
    if refuses_credentials(error):
        return (
            f"storage knows no such credentials: check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, {_RENEW}"
        )
    if status in {401, 403}:
        return "check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and what they may do (`gzscale doctor`)"
    if passes(error):
        return "the server is in trouble or out of reach: run the same command again later (`gzscale doctor`)"
    return "see `gzscale doctor` for the endpoint and the credentials in use"
