"""Images of labelled galaxies, joined to their votes: from a folder of pictures, or from a cutout store.

Both doors end in the same: what the network sees of each galaxy, 96 x 96 pixels of
0.08 x petroR90, eight bits a colour. They lie in a file that is mapped into memory, so that
the number of galaxies is bounded by the disk.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from astropy import units
from astropy.coordinates import SkyCoord
from numpy.typing import NDArray

from gzscale.cutouts.pictures import PICTURE_SUFFIXES, read_picture
from gzscale.cutouts.store import Cutouts, read_cutouts
from gzscale.errors import ImageError, MissingError
from gzscale.models.inputs import SDSS_STRETCH, Stretch, from_flux, from_pictures
from gzscale.storage import open_storage
from gzscale.training.labels import Labels, Refusal

__all__ = ["SIDE", "LabelledSet", "partitions", "read_labelled"]

#: Side of the images in pixels.
SIDE = 96
#: Images that are read together.
_BLOCK = 256
#: Labels are joined to cutouts by position within this angle in arcsec, if not by identifier.
MATCH_RADIUS = 2.0


@dataclass(frozen=True)
class LabelledSet:
    """Galaxies with an image and votes.

    Attributes
    ----------
    labels
        The votes; ``labels.refused`` counts what was left out, of labels and of images.
    pictures
        What the network sees, uint8, shape (n, 3, 96, 96), in the order of the labels.
    """

    labels: Labels
    pictures: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.labels)


def read_labelled(labels: Labels, images: str | Path, geometry: str = "galaxy") -> LabelledSet:
    """Join labels to their images.

    Parameters
    ----------
    labels
        The votes.
    images
        Folder of JPEG or PNG pictures ``<name>.jpg``, or a cutout store: the ``cutouts`` folder of a
        night's output, or the output itself, local or ``s3://``.
    geometry
        Of the store: which cutouts.

    Returns
    -------
    LabelledSet
        A label without an image, an image without a label, and an image that cannot be read are
        counted in ``labels.refused``.

    Raises
    ------
    MissingError
        If there is neither a picture nor a cutout.
    """
    folder = Path(images)
    if "://" not in str(images) and folder.is_dir():
        files = {path.stem: path for path in folder.iterdir() if path.suffix.lower() in PICTURE_SUFFIXES}
        if files:
            return _from_folder(labels, files)
    return _from_store(labels, str(images), geometry)


def _from_folder(labels: Labels, files: dict[str, Path]) -> LabelledSet:
    refused = Counter(labels.refused)
    found = [index for index, name in enumerate(labels.names) if name in files]
    refused[Refusal.NO_IMAGE] += len(labels) - len(found)
    refused[Refusal.NO_LABEL] += len(set(files) - set(labels.names))
    pictures = _room(len(found))
    kept: list[int] = []
    for start in range(0, len(found), _BLOCK):
        block = found[start : start + _BLOCK]
        read = list(_decode((files[labels.names[index]] for index in block), refused))
        good = [index for index, picture in zip(block, read, strict=True) if picture is not None]
        if good:
            stack = np.stack([picture for picture in read if picture is not None])
            pictures[len(kept) : len(kept) + len(good)] = _eight_bit(
                from_pictures(torch.from_numpy(stack), SIDE)
            )
            kept += good
    return _joined(labels, np.array(kept, np.int64), pictures[: len(kept)], refused)


def _decode(paths: Iterable[Path], refused: Counter[str]) -> Iterator[NDArray[np.uint8] | None]:
    def attempt(path: Path) -> NDArray[np.uint8] | ImageError:
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


def _from_store(labels: Labels, location: str, geometry: str) -> LabelledSet:
    refused = Counter(labels.refused)
    by_name = {name: index for index, name in enumerate(labels.names)}
    taken: list[NDArray[np.int64]] = []
    blocks: list[NDArray[np.uint8]] = []
    groups = 0
    for cutouts in partitions(location, geometry):
        groups += 1
        label = _match(labels, by_name, cutouts)
        usable = (cutouts.coverage[:, [cutouts.bands.index(band) for band in SDSS_STRETCH.bands]] > 0).all(
            axis=1
        )
        refused[Refusal.NO_LABEL] += int((label < 0).sum())
        chosen = np.flatnonzero((label >= 0) & usable)
        blocks.append(_render(cutouts, chosen, SDSS_STRETCH))
        taken.append(label[chosen])
    if not groups:
        raise MissingError(
            f"{location}: neither pictures ({', '.join(sorted(PICTURE_SUFFIXES))}) nor cutouts "
            f"of a geometry {geometry!r} in it"
        )
    order, first = np.unique(np.concatenate(taken), return_index=True)
    refused[Refusal.NO_IMAGE] += len(labels) - len(order)
    return _joined(labels, order, np.concatenate(blocks)[first], refused)


def partitions(location: str, geometry: str) -> Iterator[Cutouts]:
    """Yield the cutouts of each partition below a folder or URL, in the order of their names."""
    storage = open_storage(location)
    ending = f".zarr/{geometry}/zarr.json"
    for key in sorted(entry.key for entry in storage.list("") if entry.key.endswith(ending)):
        if json.loads(storage.get(key)).get("node_type") == "group":
            yield read_cutouts(storage, key.removesuffix(f"/{geometry}/zarr.json"), geometry)


def _match(labels: Labels, by_name: dict[str, int], cutouts: Cutouts) -> NDArray[np.int64]:
    """Return the label of each cutout, -1 where there is none: by identifier, else by position."""
    found = np.array([by_name.get(str(number), -1) for number in cutouts.object_id.tolist()], np.int64)
    known = np.flatnonzero(np.isfinite(labels.ra) & np.isfinite(labels.dec))
    lost = np.flatnonzero(found < 0)
    if len(known) and len(lost):
        where = SkyCoord(labels.ra[known], labels.dec[known], unit="deg")
        nearest, angle, _ = SkyCoord(cutouts.ra[lost], cutouts.dec[lost], unit="deg").match_to_catalog_sky(
            where
        )
        near = angle < MATCH_RADIUS * units.arcsec
        found[lost[near]] = known[nearest[near]]
    return found


def _render(cutouts: Cutouts, chosen: NDArray[np.int64], stretch: Stretch) -> NDArray[np.uint8]:
    parts = [np.empty((0, 3, SIDE, SIDE), np.uint8)]
    for start in range(0, len(chosen), _BLOCK):
        block = chosen[start : start + _BLOCK]
        flux, scale = torch.from_numpy(cutouts.images[block]), torch.from_numpy(cutouts.scale[block])
        parts.append(_eight_bit(from_flux(flux, scale, cutouts.bands, stretch)))
    return np.concatenate(parts)


def _eight_bit(images: torch.Tensor) -> NDArray[np.uint8]:
    rounded: NDArray[np.uint8] = (images * 255).round_().to(torch.uint8).numpy()
    return rounded


def _room(count: int) -> NDArray[np.uint8]:
    """Return room for some images, in a temporary file that goes with the array."""
    with tempfile.TemporaryFile(prefix="gzscale-labelled-") as file:
        file.truncate(max(1, count) * 3 * SIDE * SIDE)
        return np.memmap(file, np.uint8, "r+", shape=(max(1, count), 3, SIDE, SIDE))


def _joined(
    labels: Labels, index: NDArray[np.int64], pictures: NDArray[np.uint8], refused: Counter[str]
) -> LabelledSet:
    chosen = labels.take(index)
    chosen.refused.clear()
    chosen.refused.update(+refused)
    return LabelledSet(chosen, pictures)
