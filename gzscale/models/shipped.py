"""The bundles in the package: where they lie, and what their bytes must be."""

from __future__ import annotations

from pathlib import Path

from gzscale.errors import BundleError

__all__ = ["SHIPPED", "pin", "shelf", "shipped"]

_FOLDER = Path(__file__).parent / "bundles"
#: Task -> file name -> SHA-256; SDSS's first.
SHIPPED: dict[str, dict[str, str]] = {
    "morphology": {
        "morphology-gz2.safetensors": "c81e563e90e14979734e36d058dbb26e2ae63870604a1cb21ccbe54583e7d6ef",
    },
    "lenses": {
        "lenses-sdss.safetensors": "34dd143935d4167c022ca5e50bc6c9a81e0bb0863eaa5f3583fa81a64b9840ea",
        "lenses-rubin.safetensors": "d042ed2bf45af295504da51ee198defad61c048c0f00518cb51e8173d6bdc36f",
    },
    "redshifts": {
        "redshifts-sdss.safetensors": "6c00c858b9e542c0fee1d85df210479c17000085cb96a75ae06f1888fea78693",
        "redshifts-rubin.safetensors": "c886fc8ec5aee0646e010288c701228460433c736a9945fd7596d29eb6473c87",
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
