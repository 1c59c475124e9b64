"""Where SDSS keeps its files: path templates, and the names that a file may have.

References
----------
.. [1] SDSS data model, https://data.sdss.org/datamodel/ (``frame``, ``fpM``).
"""

from __future__ import annotations

import itertools
import re

__all__ = ["TREE", "fill", "frame_names", "mask_names", "path_pattern"]

#: Path of a frame below the root, in DR13 and later.
TREE = "eboss/photoObj/frames/{rerun}/{run}/{camcol}/frame-{band}-{run:06d}-{camcol}-{field:04d}.fits.bz2"


def fill(template: str, rerun: int, exposure: tuple[int, int, int], band: str) -> str:
    """Return the path of one file.

    Parameters
    ----------
    template
        With ``{rerun}``, ``{run}``, ``{camcol}``, ``{field}`` and ``{band}``.
    rerun
        Number of the reprocessing.
    exposure
        Run, camera column and field.
    band
        Letter of the filter.
    """
    run, camcol, field = exposure
    return template.format(rerun=rerun, run=run, camcol=camcol, field=field, band=band)


def frame_names(path: str) -> tuple[str, ...]:
    """Return the name of a file and of its twin, compressed or not."""
    return path, path.removesuffix(".bz2") if path.endswith(".bz2") else f"{path}.bz2"


def mask_names(path: str) -> tuple[str, ...]:
    """Return the name of a mask file and of its twins; SDSS keeps masks packed with gzip."""
    plain = path.removesuffix(".bz2").removesuffix(".gz")
    return tuple(dict.fromkeys((path, plain, f"{plain}.gz", f"{plain}.bz2")))


def path_pattern(template: str) -> re.Pattern[str]:
    """Turn a path template into a pattern that reads the numbers back."""
    seen = itertools.count()
    parts = re.split(r"\{(\w+)(?::[^}]*)?\}", template.removesuffix(".bz2"))
    names: set[str] = set()
    text = ""
    for part in parts:
        if next(seen) % 2 == 0:
            text += re.escape(part)
        elif part in names:
            text += rf"0*(?P={part})" if part != "band" else r"(?P=band)"
        else:
            names.add(part)
            text += r"(?P<band>[ugriz])" if part == "band" else rf"0*(?P<{part}>\d+)"
    return re.compile(text + r"(?:\.bz2)?")
