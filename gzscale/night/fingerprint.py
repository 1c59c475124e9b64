"""What a result came from, as one hash: rows, settings, images, bundle and code."""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

import gzscale

__all__ = ["canonical_json", "code_digest", "fingerprint", "plugin_digest", "table_digest"]


def canonical_json(value: Any) -> bytes:
    """Encode a value as JSON whose bytes depend on the value alone (RFC 8785 in spirit).

    Raises
    ------
    ValueError
        If a number is not finite.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def fingerprint(inputs: Mapping[str, Any]) -> str:
    """Return the SHA-256 of what a result is made from.

    Parameters
    ----------
    inputs
        Plain values (numbers, strings, lists, mappings) by name.
    """
    return hashlib.sha256(canonical_json(inputs)).hexdigest()


def table_digest(table: pa.Table) -> str:
    """Return the SHA-256 of a table's names, types and values.

    The hash is of the values, not of a file's bytes: another version of the
    Parquet writer does not change it.

    Parameters
    ----------
    table
        Numeric and string columns; null and NaN hash differently.
    """
    digest = hashlib.sha256(str(table.num_rows).encode())
    for field in table.schema:
        column = table[field.name].combine_chunks()
        digest.update(f"|{field.name}:{field.type}|".encode())
        if pa.types.is_floating(field.type) or pa.types.is_integer(field.type):
            valid = column.is_valid()
            digest.update(np.packbits(valid.to_numpy(zero_copy_only=False)).tobytes())
            filled = column.fill_null(0) if column.null_count else column
            digest.update(filled.to_numpy(zero_copy_only=False).tobytes())
        else:
            digest.update(canonical_json(column.to_pylist()))
    return digest.hexdigest()


@functools.cache
def code_digest(*places: str) -> str:
    """Return the SHA-256 of the sources of some of gzscale's packages and modules.

    A partition that was made by other code is made again; so only those places
    are named that shape the bytes in question.

    Parameters
    ----------
    places
        Names below `gzscale`, such as ``"surveys"`` or ``"errors.py"``.
    """
    top = Path(gzscale.__file__).parent
    digest = hashlib.sha256()
    for place in sorted(places):
        paths = [top / place] if place.endswith(".py") else sorted((top / place).rglob("*.py"))
        for path in paths:
            digest.update(path.relative_to(top).as_posix().encode() + b"\0")
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def plugin_digest(instance: object) -> str:
    """Return the SHA-256 of the module that an object's class is defined in.

    Surveys and tasks can come from other packages, whose code `code_digest` does not see.
    """
    source = inspect.getsourcefile(type(instance))
    return hashlib.sha256(Path(source).read_bytes()).hexdigest() if source else ""
