"""What a partition's results come from, and whether its commits are of that still."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from gzscale.catalog.pixels import Partition
from gzscale.config import NightConfig
from gzscale.errors import CredentialsError, StorageError
from gzscale.night.fingerprint import code_digest, fingerprint, plugin_digest
from gzscale.night.images import is_unchanged
from gzscale.night.ledger import Ledger, Record
from gzscale.storage import Entry, open_storage
from gzscale.surveys.base import Filtered, Survey
from gzscale.surveys.registry import load_survey
from gzscale.tasks.base import load_task

if TYPE_CHECKING:  # torch takes two seconds to import, and commands that only read do without
    from gzscale.models.bundle import Bundle

__all__ = [
    "Origins",
    "cut_inputs",
    "cut_is_current",
    "cutouts_prefix",
    "filters_of",
    "is_current",
    "is_made_from",
    "location_of",
    "open_bundle",
    "origins",
    "predict_inputs",
    "predict_is_current",
    "rows_key",
    "survey_of",
]

#: State of a file that is not there.
_ABSENT = "absent"
#: Sources that shape the bytes of cutouts, and of predictions.
_CUT_CODE = (
    "surveys",
    "cutouts",
    "errors.py",
    "night/tables.py",
    "night/images.py",
    "night/sharing.py",
    "night/work.py",
)
_PREDICT_CODE = (
    "models",
    "tasks",
    "errors.py",
    "catalog/schema.py",
    "night/tables.py",
    "night/answering.py",
    "night/answers.py",
    "night/work.py",
)


@dataclass(frozen=True)
class Origins:
    """What a night's results come from, beside rows and images; workers must agree on it.

    Attributes
    ----------
    cut, predict
        Plain values, to be hashed: settings, hashes of bundles and of code.
    compute
        Device and precision of predictions (`gzscale.night.compute.compute_kind`); empty
        where none is prescribed, so that predictions of any kind count as current.
    rooted
        Whether every worker that cuts is to reach the survey's root (`gzscale.night.reach.ask_workers`).
    """

    cut: dict[str, Any]
    predict: dict[str, Any]
    compute: str = ""
    rooted: bool = False

    def as_made(self, record: Record) -> Origins:
        """Return these origins, with the kind of computing of a commit where none is prescribed."""
        return self if self.compute else replace(self, compute=record.inputs.get("compute", ""))


def rows_key(partition: Partition, digest: str) -> str:
    """Name of the table of a partition's catalog rows, which have that hash."""
    return f"ledger/rows/{partition.path}.{digest[:16]}.parquet"


def cutouts_prefix(partition: Partition) -> str:
    """Name of a partition's cutout store."""
    return f"cutouts/{partition.path}.zarr"


def survey_of(config: NightConfig) -> Survey:
    """Make the night's survey."""
    return load_survey(config.survey.kind, config.survey.root, config.survey.bands, config.survey.options)


def open_bundle(config: NightConfig, task: str) -> Bundle:
    """Return a task's bundle; its file is read only where it has changed since this process read it.

    Raises
    ------
    BundleError
        If it cannot be used.
    """
    location = location_of(config, task)
    try:
        entry = _entry_of(location)
    except CredentialsError:  # They concern more than the bundle.
        raise
    except StorageError:
        entry = None
    # What is not there is asked for, so that the error says what is wrong; and what has nothing but its size
    # to be told by, on a plain web server, may have changed.
    if entry is None or entry.tag in ("", str(entry.size)):
        return _load(location)
    return _unchanged(location, entry.tag)


def _load(location: str) -> Bundle:
    from gzscale.models.bundle import load_bundle

    return load_bundle(location)


@functools.lru_cache(maxsize=16)
def _unchanged(location: str, tag: str) -> Bundle:
    """Read a file in one of its states. Every partition asks for the bundles several times."""
    return _load(location)


def location_of(config: NightConfig, task: str) -> str:
    """Return where a task's bundle lies: the night's own, or the one in the package that fits the night.

    Raises
    ------
    BundleError
        If none of the package's bundles fits, with what each needs.
    """
    from gzscale.models.fitting import fitting

    settings = config.tasks[task]
    geometry = config.geometries[settings.geometry]
    return settings.bundle or str(fitting(task, config.survey.bands, geometry, filters_of(config, task)))


def filters_of(config: NightConfig, task: str) -> str | None:
    """Return whose filters a task's bundle must have learnt: the survey's, or what the night says knowingly.

    None where neither says.
    """
    survey = survey_of(config)
    return config.tasks[task].filters or (survey.filters if isinstance(survey, Filtered) else None)


def origins(config: NightConfig) -> Origins:
    """Find out what this process would make a night's results from.

    Parameters
    ----------
    config
        The night's configuration.

    Raises
    ------
    BundleError
        If a bundle cannot be loaded.
    """
    options = {key: value for key, value in config.survey.options.items() if not key.startswith("cache")}
    survey = survey_of(config)
    return Origins(
        cut={
            "survey": [config.survey.kind, config.survey.root, config.survey.bands, options],
            "index": _tag_of(options.get("index")),
            "geometries": {name: [item.size, item.scale] for name, item in config.geometries.items()},
            "code": [code_digest(*_CUT_CODE), plugin_digest(survey)],
        },
        predict={
            "tasks": {
                name: [open_bundle(config, name).sha256, task.geometry] for name, task in config.tasks.items()
            },
            "code": [code_digest(*_PREDICT_CODE), *(plugin_digest(load_task(name)) for name in config.tasks)],
        },
    )


def _tag_of(path: Any) -> str:
    if not isinstance(path, str):
        return ""
    entry = _entry_of(path)
    return entry.tag if entry else _ABSENT


def _entry_of(path: str) -> Entry | None:
    folder, _, name = path.rpartition("/")
    return open_storage(folder or ("/" if path.startswith("/") else ".")).stat(name)


def cut_inputs(origin: Origins, rows_digest: str) -> dict[str, Any]:
    """Return what a partition's cutouts come from, but for the images themselves."""
    return {"rows": rows_digest, **origin.cut}


def predict_inputs(origin: Origins, cut_content: str) -> dict[str, Any]:
    """Return what a partition's predictions come from."""
    return {"cutouts": cut_content, **origin.predict, "compute": origin.compute}


def is_current(
    config: NightConfig, origin: Origins, ledger: Ledger, partition: Partition, rows_digest: str
) -> bool:
    """Tell whether both stages are committed for what the night would make them from."""
    made = ledger.read("cut", partition)
    if made is None or not cut_is_current(config, origin, ledger, made, rows_digest):
        return False
    if ledger.storage.stat(rows_key(partition, rows_digest)) is None:
        return False
    predicted = ledger.read("predict", partition)
    return predicted is not None and predict_is_current(origin, ledger, predicted, made.content)


def is_made_from(origin: Origins, ledger: Ledger, partition: Partition, rows_digest: str) -> bool:
    """Tell whether both commits of a partition are of these rows and origins."""
    made, predicted = ledger.read("cut", partition), ledger.read("predict", partition)
    return (
        made is not None
        and predicted is not None
        and made.fingerprint == fingerprint(cut_inputs(origin, rows_digest))
        and predicted.fingerprint == fingerprint(predict_inputs(origin.as_made(predicted), made.content))
    )


def cut_is_current(
    config: NightConfig, origin: Origins, ledger: Ledger, record: Record, rows_digest: str
) -> bool:
    """Tell whether a commit of cutouts is of these rows and origins, stored, and its images unchanged."""
    return (
        record.fingerprint == fingerprint(cut_inputs(origin, rows_digest))
        and ledger.is_stored(record)
        and is_unchanged(survey_of(config), record.images)
    )


def predict_is_current(origin: Origins, ledger: Ledger, record: Record, cut_content: str) -> bool:
    """Tell whether a commit of predictions is of these cutouts and origins, and stored."""
    inputs = predict_inputs(origin.as_made(record), cut_content)
    return record.fingerprint == fingerprint(inputs) and ledger.is_stored(record)
