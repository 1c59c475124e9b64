"""Where the real data are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real survey data; the test is skipped where there is none."""
    path = Path(os.environ.get("GZSCALE_REAL_DATA") or Path(__file__).parents[3] / "shared" / "data")
    if not path.is_dir():
        pytest.skip(f"no real data at {path}: set GZSCALE_REAL_DATA to their folder")
    return path
