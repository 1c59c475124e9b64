"""Images of labelled galaxies, joined to their votes: from a folder of pictures, or from a cutout store.

Both doors end in the same: what the network sees of each galaxy, 96 x 96 pixels of
0.08 x petroR90, eight bits a colour. They lie in a file that is mapped into memory, so that
the number of galaxies is bounded by the disk.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from gzscale.cutouts.pictures import PICTURE_SUFFIXES, read_picture
from gzscale.errors import ConfigError, ImageError
from gzscale.models.inputs import from_pictures
from gzscale.training.labels import Labels, Refusal
from gzscale.training.shown import BLOCK, SIDE, PictureFile, eight_bit
from gzscale.training.stored import join_store

__all__ = ["LabelledSet", "read_labelled"]


@dataclass(frozen=True)
class LabelledSet:
    """Galaxies with an image and votes.

    Attributes
    ----------
    labels
        The votes; ``labels.refused`` counts what was left out, of labels and of images.
    pictures
        What the network sees, uint8, shape (n, 3, 96, 96), in the order of the labels.
    origin
        Where the images come from, in words.
    """

    labels: Labels
    pictures: NDArray[np.uint8]
    origin: str = "not stated"

    def __len__(self) -> int:
        return len(self.labels)


def read_labelled(labels: Labels, images: str | Path, geometry: str | None = None) -> LabelledSet:
    """Join labels to their images.

    Parameters
    ----------
    labels
        The votes.
    images
        Folder of JPEG or PNG pictures ``<name>.jpg``, or a cutout store: the ``cutouts`` folder of a
        night's output, or the output itself, local or ``s3://``.
    geometry
        Of the store: which cutouts, ``galaxy`` if absent. Pictures have none.

    Returns
    -------
    LabelledSet
        A label without an image, an image without a label, a further image of a galaxy, and an image that
        cannot be read are counted in ``labels.refused``.

    Raises
    ------
    ConfigError
        If the store's cutouts are of another geometry, or lack a band; or if one is asked of pictures.
    MissingError
        If there is neither a picture nor a cutout.
    """
    folder = Path(images)
    if "://" not in str(images) and folder.is_dir():
        files, further = _pictures_by_stem(folder)
        if files and geometry is not None:
            raise ConfigError(
                f"{folder}: {len(files)} pictures, which have no geometry {geometry!r}; leave it out, or "
                "give the output of a night"
            )
        if files:
            return _from_folder(labels, files, further)
    geometry = geometry or "galaxy"
    index, pictures, refused = join_store(labels, str(images), geometry)
    origin = f"cutouts of the geometry {geometry!r}, rendered in SDSS's colours"
    return _joined(labels, index, pictures, Counter(labels.refused) + refused, origin)


def _pictures_by_stem(folder: Path) -> tuple[dict[str, str], int]:
    """Return the first picture of each stem, and how many there are beside."""
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries)
    found: dict[str, str] = {}
    pictures = 0
    for name in names:
        path = Path(name)
        if path.suffix.lower() in PICTURE_SUFFIXES:
            pictures += 1
            found.setdefault(path.stem, f"{folder}/{name}")
    return found, pictures - len(found)


def _from_folder(labels: Labels, files: dict[str, str], further: int) -> LabelledSet:
    refused = Counter(labels.refused)
    refused[Refusal.DUPLICATE_IMAGE] += further
    found = [index for index, name in enumerate(labels.names) if name in files]
    refused[Refusal.NO_IMAGE] += len(labels) - len(found)
    refused[Refusal.NO_LABEL] += len(set(files) - set(labels.names) - labels.refused_names)
    file = PictureFile()
    kept: list[int] = []
    for start in range(0, len(found), BLOCK):
        block = found[start : start + BLOCK]
        read = list(_decode((files[labels.names[index]] for index in block), refused))
        good = [index for index, picture in zip(block, read, strict=True) if picture is not None]
        if good:
            stack = np.stack([picture for picture in read if picture is not None])
            file.add(eight_bit(from_pictures(torch.from_numpy(stack), SIDE)))
            kept += good
    return _joined(labels, np.array(kept, np.int64), file.pictures(), refused, "JPEG or PNG pictures")


def _decode(paths: Iterable[str], refused: Counter[str]) -> Iterator[NDArray[np.uint8] | None]:
    def attempt(path: str) -> NDArray[np.uint8] | ImageError:
        try:
            return read_picture(path)
        except ImageError as error:
            return error

    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for result in pool.map(attempt, paths):
            if isinstance(result, ImageError):
                refused[result.reason] += 1
                yield None
            else:
                yield result


def _joined(
    labels: Labels,
    index: NDArray[np.int64],
    pictures: NDArray[np.uint8],
    refused: Counter[str],
    origin: str,
) -> LabelledSet:
    chosen = labels.take(index)
    chosen.refused.clear()
    chosen.refused.update(+refused)
    return LabelledSet(chosen, pictures, origin)
