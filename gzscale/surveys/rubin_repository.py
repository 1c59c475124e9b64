"""A Butler repository, opened to read, and whether it has what a night asks of it."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from gzscale.errors import ConfigError

if TYPE_CHECKING:  # lsst.daf.butler takes three seconds to import
    from lsst.daf.butler import Butler

__all__ = [
    "BANDS",
    "DIMENSIONS",
    "check_repository",
    "open_repository",
    "readable_location",
    "without_secrets",
]

#: Bands of LSST.
BANDS = "ugrizy"
#: What a coadd image is looked up by.
DIMENSIONS = ("band", "skymap", "tract", "patch")
#: Names of what a repository has that a message lists at most.
_LISTED = 20
#: What the file that ``butler export`` writes begins with.
_EXPORT = "description: Butler Data Repository Export"
#: User and password of a URL.
_SECRET = re.compile(r"(?<=://)[^/@\s]+(?=@)")


@lru_cache(maxsize=8)
def open_repository(root: str) -> Butler:
    """Open a repository to read; one a process.

    Parameters
    ----------
    root
        Folder, ``butler.yaml``, URL, label or alias of the repository: whatever `Butler.from_config` takes.
        Its registry may be SQLite or PostgreSQL; a database's password comes from the file that
        ``LSST_DB_AUTH`` names, by default ``~/.lsst/db-auth.yaml``, or from ``PGPASSWORD``.

    Raises
    ------
    ConfigError
        If it cannot be read; the message holds no password.
    """
    try:
        from lsst.daf.butler import Butler
    except ImportError as error:
        raise ConfigError(
            "a Butler repository is read with lsst-daf-butler, which is not installed: pip install "
            "'gzscale[rubin]', or set survey.options.tree to read a plain tree of coadds"
        ) from error
    try:
        name = root.rstrip("/").rpartition("/")[2]
        # A configuration's relative paths are made absolute, and so is the alias of a repository.
        alias = "://" not in root and not os.path.exists(root) and name in Butler.get_known_repos()
        return Butler.from_config(name if alias else root, writeable=False)
    except Exception as error:
        # Wrong paths, other schemas, unreachable databases: each has a type of its own. The error is not
        # chained, since a traceback would show what the message hides.
        raise ConfigError(_refusal(root, error)) from None


def check_repository(
    butler: Butler, root: str, dataset_type: str, collections: Sequence[str], skymap: str | None, bands: str
) -> str:
    """Find that what a night's settings name exists in a repository, and return the skymap's name.

    Parameters
    ----------
    butler
        The opened repository.
    root
        Its name, for messages.
    dataset_type
        Type of the coadd images.
    collections
        Collections to search.
    skymap
        The skymap's name, or None where the repository has only one.
    bands
        Bands of interest.

    Raises
    ------
    ConfigError
        With what was asked for, and what there is.
    """
    _check_universe(butler, root)
    _check_type(butler, root, dataset_type)
    _check_collections(butler, root, collections)
    skymap = _choose_skymap(butler, root, skymap)
    _check_datasets(butler, root, dataset_type, collections, skymap, bands)
    return skymap


def readable_location(url: str) -> str:
    """Return the URL of a dataset's file that is not on this machine, if files are read from there.

    Raises
    ------
    ConfigError
        If it is of another protocol than http, https and s3, of an S3 profile of lsst-resources (files are
        read with one endpoint and one set of credentials), or signed: what a Butler server signs expires.
    """
    protocol, _, rest = url.partition("://")
    remedy = "read the same coadds as a plain tree (survey.options.tree)"
    if protocol not in ("http", "https", "s3"):
        raise ConfigError(f"{url}: coadds are read from file, http, https and s3; {remedy}")
    if "?" in rest:
        raise ConfigError(
            f"{url.partition('?')[0]}: a Butler server gives signed URLs, which expire before a night ends; "
            f"set survey.root to the repository's own butler.yaml, or {remedy}"
        )
    if "@" in rest.partition("/")[0]:
        raise ConfigError(
            f"{url}: names an S3 profile, and coadds are read with the environment's AWS_PROFILE and "
            f"AWS_ENDPOINT_URL; set those, and {remedy}"
        )
    return url


def without_secrets(message: str) -> str:
    """Return a message without users and passwords of the URLs in it."""
    return _SECRET.sub("***", message)


def _refusal(root: str, error: Exception) -> str:
    told = without_secrets(f"{type(error).__name__}: {error}")
    export = _export_universe(root)
    if export:
        return (
            f"{root}: an export of a repository ({export}), and not a repository; make one with "
            "`butler create` and `butler import`, and set survey.root to it"
        )
    if isinstance(error, ImportError):
        return (
            f"{root}: this kind of Butler repository needs a package that is not installed ({told}): pip "
            "install 'gzscale[rubin]' (PostgreSQL, s3://) or 'lsst-daf-butler[remote]' (a Butler server)"
        )
    return f"{root}: not a Butler repository that can be read ({told}); check survey.root"


def _export_universe(path: str) -> str:
    """Return the dimension universe of an export, in words; empty where a file is no export."""
    try:
        with open(path, encoding="utf-8") as file:
            start = file.read(1000)
    except (OSError, UnicodeDecodeError):
        return ""
    if not start.startswith(_EXPORT):
        return ""
    # Exports say which universe they are of since the first one was replaced.
    found = dict(re.findall(r"^universe_(version|namespace): *'?(\w+)", start, re.MULTILINE))
    return f"dimension universe {found.get('namespace', 'daf_butler')} {found.get('version', '0')}"


def _check_universe(butler: Butler, root: str) -> None:
    universe = butler.dimensions
    missing = [name for name in DIMENSIONS if name not in universe]
    if missing:
        raise ConfigError(
            f"{root}: its dimension universe, {universe.namespace} {universe.version}, has no "
            f"{', '.join(missing)}; coadds are looked up by {', '.join(DIMENSIONS)}, which the universes "
            "of daf_butler have. Set survey.root to another repository"
        )


def _check_type(butler: Butler, root: str, dataset_type: str) -> None:
    from lsst.daf.butler import MissingDatasetTypeError

    try:
        dimensions = set(butler.get_dataset_type(dataset_type).dimensions.required)
    except MissingDatasetTypeError as error:
        found = butler.registry.queryDatasetTypes("*")
        there = [kind.name for kind in found if set(DIMENSIONS) <= set(kind.dimensions.required)]
        raise ConfigError(
            f"{root}: the repository has no dataset type {dataset_type!r}; dataset types by "
            f"tract, patch and band are {_listed(there)}. Set survey.options.dataset_type"
        ) from error
    if dimensions != set(DIMENSIONS):
        raise ConfigError(
            f"{root}: dataset type {dataset_type!r} has the dimensions "
            f"{', '.join(sorted(dimensions))}; a coadd image has {', '.join(DIMENSIONS)}. "
            "Set survey.options.dataset_type"
        )


def _check_collections(butler: Butler, root: str, collections: Sequence[str]) -> None:
    from lsst.daf.butler import MissingCollectionError

    try:
        butler.collections.query_info(collections)
    except MissingCollectionError as error:
        raise ConfigError(
            f"{root}: {error} survey.options.collections names what is not there; there are "
            f"{_listed(butler.collections.query('*'))}"
        ) from error


def _choose_skymap(butler: Butler, root: str, skymap: str | None) -> str:
    records = butler.query_dimension_records("skymap", explain=False, limit=None)
    names = sorted(str(record.name) for record in records)
    chosen = names[0] if skymap is None and len(names) == 1 else skymap
    if chosen not in names:
        raise ConfigError(f"{root}: no skymap {skymap!r}; survey.options.skymap is one of {_listed(names)}")
    return chosen


def _check_datasets(
    butler: Butler, root: str, dataset_type: str, collections: Sequence[str], skymap: str, bands: str
) -> None:
    """Refuse collections without any image in the bands: a night would quarantine every object."""
    with butler.query() as query:
        images = query.datasets(dataset_type, collections=collections, find_first=False).where(skymap=skymap)
        if any(images.where(band=band).any() for band in bands):
            return
        # Not the registry's own bands: it knows those of its filters, and may have none.
        there = [band for band in BANDS if images.where(band=band).any()]
        raise ConfigError(
            f"{root}: no {dataset_type} of skymap {skymap!r} in bands {bands} in {', '.join(collections)}; "
            f"bands with images are {_listed(there)}. Check survey.options.collections and survey.bands"
        )


def _listed(names: Sequence[str]) -> str:
    """Write names out, the first of them where there are many."""
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(sorted(names)[:_LISTED]) + more or "none"
