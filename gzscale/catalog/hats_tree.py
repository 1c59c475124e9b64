"""What a HATS catalog says of itself: enough to find its files on a web server, which lists none.

The layout is that of the IVOA Note "HATS" [1]_: a collection names its primary table, a table
has properties, and ``partition_info.csv`` names the HEALPix pixels whose files it consists of.

References
----------
.. [1] https://www.ivoa.net/documents/Notes/HATS/
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.csv

from gzscale._failures import is_missing, passes, status_of
from gzscale.catalog.source import SourceFile, is_html
from gzscale.errors import CatalogError, CredentialsError, StorageError
from gzscale.storage import Entry, Storage, open_storage

__all__ = ["HatsTree", "find_tree", "find_web_hats", "read_properties"]

#: A properties file has some dozens of lines; no more than this is read of what claims to be one.
MAX_PROPERTIES_BYTES = 1 << 20
#: Some million pixels.
MAX_PARTITION_INFO_BYTES = 64 << 20
#: HEAD requests under way at one time, and those that are planned at one time.
REQUESTS, PLANNED_REQUESTS = 16, 1024
#: Files of one folder (``Dir=``).
_PIXELS_PER_FOLDER = 10_000
_MAX_ORDER = 29
_COLLECTION = "collection.properties"
_TABLE = ("hats.properties", "properties")

_T = TypeVar("_T")


@dataclass(frozen=True)
class HatsTree:
    """A HATS table in a folder.

    Attributes
    ----------
    prefix
        Where it is below the folder: empty, or the name of a collection's primary table and ``/``.
    properties
        What its properties file says.
    """

    prefix: str
    properties: dict[str, str]

    @property
    def row_count(self) -> int | None:
        """Number of rows that it declares."""
        declared = self.properties.get("hats_nrows", "")
        return int(declared) if declared.isdigit() else None


def read_properties(data: bytes) -> dict[str, str]:
    """Return the keys and values of a properties file; comments and lines without ``=`` are passed over."""
    lines = data.decode("utf-8", "replace").splitlines()
    pairs = (line.partition("=") for line in lines if not line.lstrip().startswith(("#", "!")))
    return {
        key.strip(): re.sub(r"\\(.)", r"\1", value.strip()) for key, separator, value in pairs if separator
    }


def find_tree(path: str, read: Callable[[str], dict[str, str] | None]) -> HatsTree | None:
    """Find the HATS table of a folder, which may be a collection.

    Parameters
    ----------
    path
        The folder, for messages.
    read
        Returns the properties below the folder under a name, or None where there are none.

    Returns
    -------
    HatsTree or None
        None where the folder says nothing of HATS.

    Raises
    ------
    CatalogError
        If a collection's primary table is not in it.
    """
    prefix = ""
    collection = read(_COLLECTION)
    if collection is not None:
        prefix = collection.get("hats_primary_table_url", "").strip("/") + "/"
        if "://" in prefix:
            raise CatalogError(f"{path}: a collection whose table is elsewhere; set catalog.path to {prefix}")
    for name in _TABLE:
        properties = read(prefix + name)
        if properties is not None:
            return HatsTree(prefix, properties)
    if prefix:
        raise CatalogError(f"{path}: no {prefix}hats.properties in it; it is not a whole HATS catalog")
    return None


def find_web_hats(path: str, scratch: Path, required: bool) -> tuple[list[SourceFile], int | None] | None:
    """Find the data files of a HATS catalog or collection on a web server.

    Parameters
    ----------
    path
        ``http(s)://`` URL of its folder.
    scratch
        Folder for what must be fetched.
    required
        Whether ``path`` can be nothing else.

    Returns
    -------
    tuple or None
        The files, sorted by name as those of a folder are, and the number of rows that the
        catalog declares; None where ``path`` is no HATS catalog and need not be.

    Raises
    ------
    CatalogError
        If there is no such catalog, ``partition_info.csv`` or a file that it names is missing,
        or each pixel is a folder of files, whose names HATS does not publish.
    """
    storage = open_storage(path)
    strange: list[str] = []

    def read(key: str) -> dict[str, str] | None:
        data = _answered(lambda: storage.get_range(key, 0, MAX_PROPERTIES_BYTES))
        found = read_properties(data) if data is not None else {}
        if any(name.startswith("hats_") or name in ("obs_collection", "dataproduct_type") for name in found):
            return found
        if data is not None:
            strange.append(
                f"{storage.url(key)} is {'an HTML page' if is_html(data) else 'no properties file'}"
            )
        return None

    tree = find_tree(path, read)
    if tree is None and not required:
        return None
    if tree is None:
        why = strange[-1] if strange else "no collection.properties or hats.properties, or refused"
        raise CatalogError(
            f"{path}: no HATS catalog ({why}); check the URL. On a web server a folder is read only where it "
            "is one: name the folder that holds hats.properties, or a single file"
        )
    keys = _keys(storage, tree)
    return [SourceFile(storage, entry, scratch) for entry in _entries(storage, keys)], tree.row_count


def _keys(storage: Storage, tree: HatsTree) -> list[str]:
    suffix = tree.properties.get("hats_npix_suffix") or ".parquet"
    if suffix.endswith(("/", "\\")):
        raise CatalogError(
            f"{storage.url(tree.prefix)}: each pixel is a folder of files (hats_npix_suffix={suffix}), whose "
            "names a web server does not tell; download the catalog and name the local folder, or use S3"
        )
    return sorted(
        f"{tree.prefix}dataset/Norder={order}/Dir={pixel - pixel % _PIXELS_PER_FOLDER}/Npix={pixel}{suffix}"
        for order, pixel in _pixels(storage, f"{tree.prefix}partition_info.csv")
    )


def _pixels(storage: Storage, key: str) -> set[tuple[int, int]]:
    url = storage.url(key)
    data = _answered(lambda: storage.get_range(key, 0, MAX_PARTITION_INFO_BYTES + 1))
    if data is None:
        raise CatalogError(
            f"{url}: missing, or refused by the server; without it nobody knows the catalog's files on a web "
            "server. Write it (hats: PartitionInfo.read_from_dir(folder).write_to_file()), or download the "
            "catalog and name the local folder"
        )
    if is_html(data):
        raise CatalogError(f"{url}: an HTML page, not a table; check the URL (a login or error page?)")
    if len(data) > MAX_PARTITION_INFO_BYTES:
        raise CatalogError(
            f"{url}: more than {MAX_PARTITION_INFO_BYTES} bytes; it cannot be a list of pixels"
        )
    names = ["Norder", "Npix"]
    try:
        table = pa.csv.read_csv(
            io.BytesIO(data),
            convert_options=pa.csv.ConvertOptions(
                include_columns=names, column_types=dict.fromkeys(names, pa.int64())
            ),
        )
        orders, pixels = (table[name].to_numpy().astype(np.int64, casting="safe") for name in names)
    except (pa.ArrowException, KeyError, TypeError) as error:
        raise CatalogError(
            f"{url}: no table of the integers Norder and Npix ({error}); write it again with hats"
        ) from error
    if not len(table):
        raise CatalogError(f"{url}: names no pixels; the catalog has 0 rows, nothing can be done with it")
    wrong = (orders < 0) | (orders > _MAX_ORDER) | (pixels < 0)
    wrong |= pixels >= 12 << 2 * np.clip(orders, 0, _MAX_ORDER)
    if wrong.any():
        row = int(wrong.argmax())
        raise CatalogError(
            f"{url}: row {row} has Norder {orders[row]} and Npix {pixels[row]}, which is no HEALPix pixel; "
            "write it again with hats"
        )
    return set(zip(orders.tolist(), pixels.tolist(), strict=True))


def _entries(storage: Storage, keys: Sequence[str]) -> Iterator[Entry]:
    def entry(key: str) -> Entry:
        found = _answered(lambda: storage.stat(key))
        if found is None or found.size == 0:
            what = "missing, or refused by the server" if found is None else "the file has no bytes"
            raise CatalogError(
                f"{storage.url(key)}: {what}, though partition_info.csv names its pixel; the catalog is not "
                "whole on this server: publish it again, or read it from another place"
            )
        return found

    with ThreadPoolExecutor(REQUESTS, "hats-head") as pool:
        for start in range(0, len(keys), PLANNED_REQUESTS):
            yield from pool.map(entry, keys[start : start + PLANNED_REQUESTS])


def _answered(ask: Callable[[], _T]) -> _T | None:
    """Ask; None where nothing is there, or the server will not say: S3's web servers refuse missing files."""
    try:
        return ask()
    except CredentialsError:
        raise
    except StorageError as error:
        if is_missing(error) or (status_of(error) is not None and not passes(error)):
            return None
        raise
