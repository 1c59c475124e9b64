"""Predicts a folder of pictures or FITS cutouts into one table: no survey, no catalog, no night."""

from __future__ import annotations

import itertools
import os
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
from numpy.typing import NDArray

from gzscale._listing import sorted_files
from gzscale.catalog.schema import arrow_schema
from gzscale.cutouts.pictures import FITS_SUFFIXES, PICTURE_SUFFIXES, FluxCutout, read_flux, read_picture
from gzscale.errors import BundleError, ConfigError, ImageError, Reason, StorageError
from gzscale.models.bundle import Bundle, load_bundle
from gzscale.models.engine import Engine
from gzscale.models.observation import Observation, background_noise
from gzscale.models.shipped import shipped
from gzscale.models.votes import KAGGLE_NAMES, Scheme
from gzscale.tasks.base import Seen, Task, load_task
from gzscale.tasks.morphology import MorphologyTask
from gzscale.tasks.seen import look

__all__ = ["FolderResult", "find_images", "predict_folder"]

_Image = TypeVar("_Image")

#: Images that are read, predicted and written together, unless a batch of the device is larger, which would
#: be padded; and threads that decode them.
BLOCK = 128
THREADS = 4
#: Column with the stem of the file's name.
NAME_COLUMN = "name"


@dataclass
class FolderResult:
    """What became of the images.

    Attributes
    ----------
    found
        Images that were named or found.
    done
        Rows of the table.
    refused
        Reason -> how many images.
    details
        One sentence for each of the first refused images.
    passed_over
        Entries of the folders that are no images by their names, folders among them.
    """

    found: int = 0
    done: int = 0
    refused: Counter[Reason] = field(default_factory=Counter)
    details: list[str] = field(default_factory=list)
    passed_over: int = 0

    def refuse(self, reason: Reason, detail: str) -> None:
        """Count an image that could not be predicted."""
        self.refused[reason] += 1
        if len(self.details) < 100:
            self.details.append(detail)


def find_images(
    paths: Iterable[str | Path], suffixes: frozenset[str] = PICTURE_SUFFIXES | FITS_SUFFIXES
) -> Iterator[Path]:
    """Yield the files named, and those of some suffixes in the folders named, sorted by name.

    Parameters
    ----------
    paths
        Files, of any suffix, and folders, of which not all names are held at once.
    suffixes
        Of the files in folders, lower case.

    Raises
    ------
    ConfigError
        If a path does not exist.
    """
    for path in map(Path, paths):
        if path.is_dir():
            yield from sorted_files(path, lambda name: Path(name).suffix.lower() in suffixes)
        elif path.exists():
            yield path
        else:
            raise ConfigError(f"{path}: no such file or folder")


def _count_others(places: Sequence[Path]) -> int:
    """Count the entries of folders that are not looked at, for they are no images by their names."""
    known = PICTURE_SUFFIXES | FITS_SUFFIXES
    count = 0
    for place in places:
        if place.is_dir():
            with os.scandir(place) as entries:
                count += sum(Path(entry.name).suffix.lower() not in known for entry in entries)
    return count


def predict_folder(
    task: str,
    paths: Iterable[str | Path],
    output: str | Path,
    scheme: str = "tree",
    bundle: str | Path | None = None,
    progress: Callable[[int], None] = lambda found: None,
) -> FolderResult:
    """Predict images into a table, in bounded memory however many there are.

    Parameters
    ----------
    task
        Name of the task.
    paths
        Files and folders.
    output
        Table to write: ``.csv`` or ``.parquet``. Written whole, or not at all.
    scheme
        ``tree``: the task's own columns, keyed by ``name``, the stem of the file. Of a folder's pictures of
        one stem the first that can be read is taken, as of its FITS cutouts; in another folder, or
        as the other of the two, it is another image. ``kaggle``
        (morphology): ``Class1.1`` ... ``Class11.6``, multiplied down the tree, keyed by ``GalaxyID``;
        ``kaggle-tree``: the same, but question 6 asked only of those who saw a galaxy. Kaggle's columns
        have no room for the flag of images unlike the training set: use ``tree`` where that matters.
    bundle
        Path or URL of a bundle; the shipped one if absent.
    progress
        Called with the number of images read so far, as they are.

    Returns
    -------
    FolderResult
        ``found = done + refused``.

    Raises
    ------
    ConfigError
        If the scheme, the suffix or a path is not usable.
    BundleError
        If the bundle is of another task or damaged.
    StorageError
        If the table cannot be written.
    """
    target = Path(output)
    if target.suffix.lower() not in _WRITERS:
        raise ConfigError(f"{output}: the table's name must end in one of {sorted(_WRITERS)}")
    made = load_task(task)
    fields, to_table = _columns(made, scheme)
    places = [Path(path) for path in paths]
    missing = next((path for path in places if not path.exists()), None)
    if missing is not None:
        raise ConfigError(f"{missing}: no such file or folder")
    loaded = load_bundle(shipped(task) if bundle is None else bundle)
    if loaded.task != task:
        raise BundleError(f"bundle {loaded.name!r} is for the task {loaded.task!r}, not {task!r}")
    engine = Engine(loaded)
    result = FolderResult(passed_over=_count_others(places))
    key = NAME_COLUMN if scheme == "tree" else "GalaxyID"
    schema = pa.schema([pa.field(key, pa.string()), *fields])
    part = target.with_name(f".{target.name}.part")
    try:
        with _WRITERS[target.suffix.lower()](str(part), schema) as writer:
            for names, outputs, seen in _predictions(engine, places, result):
                values, finite = to_table(outputs, loaded.calibration, seen)
                for row in np.flatnonzero(~finite):
                    result.refuse(Reason.NONFINITE_OUTPUT, f"{names[row]}: the output is not finite")
                kept = {
                    item.name: pa.array(
                        np.ma.getdata(values[item.name])[finite],
                        mask=np.ma.getmaskarray(values[item.name])[finite],
                    )
                    for item in fields
                }
                stems = [name for name, good in zip(names, finite, strict=True) if good]
                writer.write_table(pa.table({key: pa.array(stems, pa.string()), **kept}, schema=schema))
                result.done += len(stems)
                progress(result.found)
        part.replace(target)
    except OSError as error:
        raise StorageError(f"{target}: cannot be written: {error}") from error
    finally:
        part.unlink(missing_ok=True)
    return result


def _csv_writer(path: str, schema: pa.Schema) -> pa.csv.CSVWriter:
    # The published tables of this layout have no quotes around their columns' names.
    return pa.csv.CSVWriter(path, schema, write_options=pa.csv.WriteOptions(quoting_header="none"))


_WRITERS = {".csv": _csv_writer, ".parquet": pa.parquet.ParquetWriter}

_Table = Callable[[Mapping[str, NDArray], Mapping[str, Any], Seen], tuple[dict[str, NDArray], NDArray]]

#: Names of the schemes of Kaggle's columns.
_KAGGLE = {"kaggle": Scheme.KAGGLE, "kaggle-tree": Scheme.TREE}


def _columns(task: Task, scheme: str) -> tuple[list[pa.Field], _Table]:
    """Return the table's columns and what makes them of a network's outputs."""
    if scheme == "tree":
        return list(arrow_schema(task.columns)), task.table
    if scheme in _KAGGLE and isinstance(task, MorphologyTask):
        morphology, chosen = task, _KAGGLE[scheme]
        fields = [pa.field(name, pa.float32()) for name in KAGGLE_NAMES]
        return fields, lambda outputs, _, __: morphology.kaggle_table(outputs, chosen)
    raise ConfigError(
        f"task {task.name!r} has no scheme {scheme!r}: tree, or kaggle or kaggle-tree for morphology"
    )


def _predictions(
    engine: Engine, places: Sequence[Path], result: FolderResult
) -> Iterator[tuple[list[str], dict[str, NDArray], Seen]]:
    """Yield stems, outputs and what was seen, block after block: pictures first, then FITS cutouts."""
    waiting: deque[list[str]] = deque()
    pictures = (
        path for path in find_images(places, PICTURE_SUFFIXES) if path.suffix.lower() not in FITS_SUFFIXES
    )
    first = next(pictures, None)
    together = _together(engine)
    in_order = all(place.is_dir() for place in places)

    def blocks() -> Iterator[NDArray[np.uint8]]:
        every = itertools.chain([first] if first else [], pictures)
        for names, read in _read_blocks(every, read_picture, result, together, _Alike(in_order)):
            waiting.append(names)
            yield np.stack(read)

    if first is not None:
        for outputs in engine.run_pictures(blocks()):
            names = waiting.popleft()
            yield names, outputs, _nothing_seen(len(names))

    def usable(path: Path) -> FluxCutout:
        return _pick(path, read_flux(path), engine.bundle)

    fits = (path for path in find_images(places, FITS_SUFFIXES) if path.suffix.lower() in FITS_SUFFIXES)
    for names, cutouts in _read_blocks(fits, usable, result, together, _Alike(in_order)):
        scale = np.array([cutout.scale for cutout in cutouts])
        flux = np.stack([cutout.flux for cutout in cutouts])
        observation = Observation.of(flux, cutouts[0].bands, scale, background_noise(flux))
        yield names, engine.run(observation), look(observation)


def _together(engine: Engine) -> int:
    """Return how many images are read and predicted together."""
    return max(BLOCK, engine.batch)


def _nothing_seen(count: int) -> Seen:
    """Say that nothing is known of pictures: they are colours, not flux."""
    return look(Observation.of(np.empty((count, 0, 1, 1), np.float32), "", np.ones(count)))


def _pick(path: Path, cutout: FluxCutout, bundle: Bundle) -> FluxCutout:
    """Keep the bands that the bundle uses, NaN where it can do without, and refuse what it cannot be fed."""
    size, bands = bundle.geometry.size, "".join(sorted(bundle.bands))
    missing = [band for band in bundle.required if band not in cutout.bands]
    if missing:
        raise ImageError(Reason.MISSING_BAND, f"{path}: bands {cutout.bands!r}, without {''.join(missing)}")
    if cutout.flux.shape[1:] != (size, size):
        raise ImageError(
            Reason.BAD_IMAGE, f"{path}: {cutout.flux.shape[1:]} pixels; the bundle needs {size} x {size}"
        )
    flux = np.full((len(bands), size, size), np.nan, np.float32)
    for place, band in enumerate(bands):
        if band in cutout.bands:
            flux[place] = cutout.flux[cutout.bands.index(band)]
    needed = flux[[bands.index(band) for band in bundle.required]]
    if not np.isfinite(needed).any(axis=(1, 2)).all():
        raise ImageError(Reason.ALL_NAN, f"{path}: a band has no measured pixel")
    if bundle.measures_flux and not (np.nan_to_num(needed) != 0).any(axis=(1, 2)).all():
        raise ImageError(Reason.BLANK_BAND, f"{path}: a band that is needed is 0 throughout")
    return FluxCutout(flux, bands, cutout.scale)


class _Alike:
    """Which images of a folder have the same stem, told of one after the other.

    A folder's are sorted: names that begin alike up to their first dot follow each other, so that only theirs
    are kept. Images that were named are in any order, and all are.
    """

    def __init__(self, in_order: bool) -> None:
        self._in_order = in_order
        self._beginning: tuple[Path, str] | None = None
        self._known: dict[tuple[Path, str], str] = {}

    def first(self, path: Path) -> str | None:
        """Return the name of the one that was there before, None if this is the first."""
        beginning = path.parent, path.name.partition(".")[0]
        if self._in_order and beginning != self._beginning:
            self._beginning, self._known = beginning, {}
        known = self._known.get((path.parent, path.stem))
        if known is None:
            self._known[path.parent, path.stem] = path.name
        return known


def _read_blocks(
    paths: Iterable[Path],
    read: Callable[[Path], _Image],
    result: FolderResult,
    together: int,
    alike: _Alike,
) -> Iterator[tuple[list[str], list[_Image]]]:
    """Read files on threads, a block at a time; those that cannot be used are counted and left out."""

    def attempt(path: Path) -> _Image | ImageError:
        try:
            return read(path)
        except ImageError as error:
            return error

    with ThreadPoolExecutor(THREADS, thread_name_prefix="read") as pool:
        remaining = iter(paths)
        while block := list(itertools.islice(remaining, together)):
            names: list[str] = []
            images: list[_Image] = []
            result.found += len(block)
            for path, image in zip(block, pool.map(attempt, block), strict=True):
                if isinstance(image, ImageError):
                    result.refuse(image.reason, str(image))
                elif first := alike.first(path):
                    result.refuse(
                        Reason.DUPLICATE_ID,
                        f"{path}: another image of {path.stem!r} beside {first}, which is taken",
                    )
                else:
                    names.append(path.stem)
                    images.append(image)
            if names:
                yield names, images
