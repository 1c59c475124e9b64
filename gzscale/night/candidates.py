"""Where a night's review lists and its completeness are, and how they are read back."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from gzscale.errors import DamageError
from gzscale.storage import Storage

__all__ = ["SHOWN", "completeness_key", "read_completeness", "read_head", "review_name"]

#: Candidates that a report shows.
SHOWN = 28


def review_name(task: str) -> str:
    """Name of a task's review list in a release."""
    return f"{task}_review.parquet"


def completeness_key(night: str, ending: str) -> str:
    """Name of a file of a night's completeness: ``json`` or ``parquet``."""
    return f"reports/{night}/completeness.{ending}"


def read_head(storage: Storage, release: str, task: str) -> pa.Table:
    """Return the first `SHOWN` rows of a task's review list.

    Raises
    ------
    MissingError
        If there is none.
    DamageError
        If it cannot be decoded.
    """
    key = f"releases/{release}/{review_name(task)}"
    data = storage.get(key)
    try:
        batches = pq.ParquetFile(pa.BufferReader(data)).iter_batches(SHOWN)
        first = next(batches, None)
    except (pa.ArrowInvalid, OSError) as error:
        raise DamageError(f"{storage.url(key)}: damaged ({error}); run the night again") from error
    return pa.Table.from_batches([first] if first is not None else [], schema=first.schema if first else None)


def read_completeness(storage: Storage, night: str) -> dict[str, Any] | None:
    """Return a night's completeness, None where it was not measured.

    Raises
    ------
    DamageError
        If the file is no JSON.
    """
    key = completeness_key(night, "json")
    if storage.stat(key) is None:
        return None
    try:
        found: dict[str, Any] = json.loads(storage.get(key))
    except ValueError as error:
        raise DamageError(f"{storage.url(key)}: damaged ({error}); measure it again") from error
    return found
