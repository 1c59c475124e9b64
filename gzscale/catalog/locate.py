"""Finding a table: the format it is in, the files it lies in, and a source of its rows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gzscale.catalog.formats.fits import FitsSource
from gzscale.catalog.formats.parquet import ParquetSource
from gzscale.catalog.formats.text import CsvSource
from gzscale.catalog.formats.votable import VotableSource
from gzscale.catalog.hats_tree import MAX_PROPERTIES_BYTES, find_tree, find_web_hats, read_properties
from gzscale.catalog.source import Source, SourceFile, find_files, find_folder, is_html
from gzscale.errors import CatalogError

__all__ = ["locate_table"]

_ENDINGS = {
    ".parquet": "parquet",
    ".parq": "parquet",
    ".pq": "parquet",
    ".fits": "fits",
    ".fit": "fits",
    ".vot": "votable",
    ".votable": "votable",
    ".xml": "votable",
    ".csv": "csv",
    ".tsv": "csv",
}


def locate_table(path: str, kind: str, scratch: Path) -> tuple[str, list[SourceFile], Source]:
    """Find a table of any format that is read.

    Parameters
    ----------
    path
        File, folder or URL.
    kind
        ``parquet``, ``hats``, ``fits``, ``votable``, ``csv``, or ``auto``: told by the name or content.
    scratch
        Folder for what must be fetched or unpacked.

    Returns
    -------
    kind : str
        The format.
    files : list of SourceFile
        Those that hold rows.
    source : Source
        The rows.

    Raises
    ------
    CatalogError
        If there is no such table, or its format is not one of these.
    """
    found, files, declared = _locate(path, kind, scratch)
    return found, files, _source(found, files, declared)


def _locate(path: str, kind: str, scratch: Path) -> tuple[str, list[SourceFile], int | None]:
    """Return the format, the data files, and the number of rows that a HATS catalog declares."""
    if _may_be_web_folder(path, kind):
        found = find_web_hats(path, scratch, required=kind == "hats" or path.endswith("/"))
        if found is not None:
            return "hats", *found
    files = find_files(path, scratch)
    if files is not None:
        if kind == "hats":
            raise CatalogError(f"{path}: a file; a HATS catalog is a folder")
        return _format_of_file(path, kind, files[0]), files, None
    files = find_folder(path, scratch)
    if kind not in ("auto", "hats", "parquet"):
        raise CatalogError(f"{path}: a folder; {kind} catalogs are single files")
    by_key = {file.entry.key: file for file in files}
    tree = find_tree(path, lambda key: _properties(by_key[key]) if key in by_key else None)
    if tree is None and kind == "hats":
        raise CatalogError(f"{path}: no hats.properties in it; it is not a whole HATS catalog")
    if tree is None or kind == "parquet":
        return "parquet", _data_files(files, "", path), None
    return "hats", _data_files(files, f"{tree.prefix}dataset/", path), tree.row_count


def _may_be_web_folder(path: str, kind: str) -> bool:
    """Say whether to ask for a HATS catalog: no request where the URL's ending is that of a file."""
    if not path.startswith(("http://", "https://")) or kind not in ("auto", "hats"):
        return False
    return kind == "hats" or path.endswith("/") or not ("?" in path or _ending(path) in _ENDINGS)


def _data_files(files: Sequence[SourceFile], prefix: str, path: str) -> list[SourceFile]:
    found = [
        file
        for file in files
        if file.entry.key.startswith(prefix)
        and file.name.lower().endswith((".parquet", ".parq", ".pq"))
        and not any(part.startswith(("_", ".")) for part in file.entry.key.split("/"))
    ]
    if not found:
        raise CatalogError(f"{path}: no Parquet files in it; name a file, or a folder that holds some")
    return found


def _properties(file: SourceFile) -> dict[str, str]:
    return read_properties(file.head(MAX_PROPERTIES_BYTES))


def _ending(name: str) -> str:
    return Path(name.lower().removesuffix(".gz")).suffix


def _format_of_file(path: str, kind: str, file: SourceFile) -> str:
    head = file.head(512)
    if is_html(head):
        raise CatalogError(f"{path}: an HTML page, not a table; check the URL (a login or error page?)")
    if kind != "auto":
        return kind
    ending = _ending(file.name)
    if ending in _ENDINGS:
        return _ENDINGS[ending]
    if head.startswith(b"PAR1"):
        return "parquet"
    if head.startswith(b"SIMPLE  ="):
        return "fits"
    if b"<VOTABLE" in head:
        return "votable"
    raise CatalogError(
        f"{path}: cannot tell its format from the ending {ending!r}; "
        "set catalog.format to parquet, hats, fits, votable or csv"
    )


def _source(kind: str, files: list[SourceFile], declared: int | None) -> Source:
    if kind in ("parquet", "hats"):
        return ParquetSource(files, declared)
    if kind == "fits":
        return FitsSource(files[0])
    if kind == "votable":
        return VotableSource(files[0])
    return CsvSource(files[0])
