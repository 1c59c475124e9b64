"""Names of files in a folder, sorted, in bounded memory however many there are."""

from __future__ import annotations

import contextlib
import heapq
import itertools
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

__all__ = ["sorted_files"]

#: Names that are sorted in memory; more are sorted in parts, which are merged from disk.
CHUNK = 65_536


def sorted_files(folder: Path, wanted: Callable[[str], bool], chunk: int = CHUNK) -> Iterator[Path]:
    """Yield the entries of a folder, sorted by name.

    Parameters
    ----------
    folder
        The folder; it is read once, when the first entry is asked for.
    wanted
        Which names are meant.
    chunk
        How many names are held at most, about.
    """
    with contextlib.ExitStack() as stack:
        entries = stack.enter_context(os.scandir(folder))
        names = (entry.name for entry in entries if wanted(entry.name))
        parts: list[Iterator[str]] = []
        while part := sorted(itertools.islice(names, chunk)):
            if len(part) < chunk and not parts:
                parts.append(iter(part))
                break
            file = stack.enter_context(tempfile.TemporaryFile("w+", encoding="ascii"))
            # A name may hold any character but "/": as JSON it is one line of ASCII.
            file.writelines(f"{json.dumps(name)}\n" for name in part)
            file.seek(0)
            parts.append(map(json.loads, file))
        for name in heapq.merge(*parts):
            yield folder / name
