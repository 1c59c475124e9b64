"""The bundles in the package: where they lie, and what their bytes must be."""

from __future__ import annotations

from pathlib import Path

from gzscale.errors import BundleError

__all__ = ["SHIPPED", "pin", "shelf", "shipped"]

_FOLDER = Path(__file__).parent / "bundles"
#: Task -> file name -> SHA-256; SDSS's first.
SHIPPED: dict[str, dict[str, str]] = {
    "morphology": {
        "morphology-gz2.safetensors": "f983a4e1cddaf2c45a2635ad3bd542b52d3cb57707108fc0df5fa8379858b281",
    },
    "lenses": {
        "lenses-sdss.safetensors": "884a54956d91ca7980de81c05c5865744059a25eca9b59fed5059c08e537f94a",
        "lenses-rubin.safetensors": "5715aef5e031d94b01ad3357230075c5df4559c6820888e434c15db08cd59fe5",
    },
    "redshifts": {
        "redshifts-sdss.safetensors": "becad3a5e5dbb24fcca94573a6088726b275b3146c7523d937670595afb08d7d",
        "redshifts-rubin.safetensors": "8e6511261ce19649ebece32d772953f5fad6d78f84cf6d6f7d0f81f8a0f1ae75",
    },
}


def shelf(task: str) -> list[Path]:
    """Return the paths of a task's bundles.

    Raises
    ------
    BundleError
        If there is none.
    """
    if task not in SHIPPED:
        raise BundleError(f"no bundle for {task!r} in the package, only for {sorted(SHIPPED)}: name a file")
    return [_FOLDER / name for name in SHIPPED[task]]


def shipped(task: str) -> Path:
    """Return the path of a task's bundle for SDSS's images. See also `gzscale.models.fitting.fitting`.

    Raises
    ------
    BundleError
        If there is none.
    """
    return shelf(task)[0]


def pin(path: str) -> str | None:
    """Return what the SHA-256 of a file must be, None if it is none of these."""
    pins = {str(_FOLDER / name): digest for files in SHIPPED.values() for name, digest in files.items()}
    return pins.get(path)
