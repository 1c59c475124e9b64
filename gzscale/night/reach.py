"""Whether workers reach what a night reads and writes: asked before it begins, and of later ones.

Workers have paths, endpoints and credentials of their own. One that lacks them would fail with every
partition that it is given, or quarantine all of its objects as missing.
"""

from __future__ import annotations

import errno
import functools
from pathlib import Path
from typing import Any

from gzscale.clusters.asking import ask_all
from gzscale.clusters.workers import CUT
from gzscale.config import NightConfig
from gzscale.errors import ClusterError, CredentialsError, StorageError, WorkerError
from gzscale.storage import LocalStorage, S3Storage, open_storage

__all__ = ["ask_workers", "check_reach", "reach"]

#: What is below every output once a night was planned.
_PLANNED = "ledger/rows"
_OUTPUT, _ROOT = "output", "survey.root"
#: Workers of which a message tells.
_TOLD = 3


def reach(output: str, root: str = "") -> dict[str, StorageError]:
    """Try to reach an output and a survey's root from this process.

    Parameters
    ----------
    output
        Of a night that was planned.
    root
        ``survey.root``, or nothing. It may be denied to list it, as long as the credentials are known there.

    Returns
    -------
    dict
        ``output``, ``survey.root`` -> what is wrong with it; without those that are reached.
    """
    wrong = {}
    for name, location, prefix in ((_OUTPUT, output, _PLANNED), (_ROOT, root, "")):
        try:
            if location:
                _touch(location, prefix)
        except StorageError as error:
            refused = isinstance(error, CredentialsError)
            if refused or name == _OUTPUT or error.errno != errno.EACCES:
                wrong[name] = error
    return wrong


def _touch(location: str, prefix: str) -> None:
    storage = open_storage(location)
    if isinstance(storage, LocalStorage):
        try:
            Path(storage.root, prefix).stat()
        except OSError as error:
            why = "there is no such file or folder" if error.errno == errno.ENOENT else error.strerror
            raise StorageError(f"{storage.url(prefix)}: {why}", errno.ENOENT) from error
    elif isinstance(storage, S3Storage):
        if next(iter(storage.list(prefix)), None) is None and prefix:
            raise StorageError(f"{storage.url(prefix)}: nothing is there; another endpoint?", errno.ENOENT)
    else:
        storage.stat(prefix)


def ask_workers(client: Any, config: NightConfig) -> bool:
    """Ask every worker that is up whether it reaches what this process reaches, the survey only if it cuts.

    Parameters
    ----------
    client
        `distributed.Client`.
    config
        The configuration of a night that was planned.

    Returns
    -------
    bool
        Whether a worker that comes later and cuts has to reach the survey's root: not one that this process
        does not reach either, unless it is only refused there.

    Raises
    ------
    CredentialsError
        If storage refuses this process's credentials for the output, or a worker's.
    ClusterError
        If a worker does not reach the output, or a root of the survey that this process does; if one cannot
        say, they do not answer in time, or none of a kind is left.
    """
    places = config.output, config.survey.root
    own = reach(*places)
    if isinstance(own.get(_OUTPUT), CredentialsError):
        raise own[_OUTPUT]
    # Where this process's credentials alone are refused, the workers' own may do.
    common = {name for name, error in own.items() if not isinstance(error, CredentialsError)}
    workers = client.scheduler_info(n_workers=-1)["workers"]
    answers = ask_all(client, workers, "whether they reach the output and survey.root", reach, *places)
    troubles = [
        (f"worker {address}: {name}: {error}", isinstance(error, CredentialsError))
        for address, answer in answers.items()
        if isinstance(answer, dict)
        for name, error in answer.items()
        if (CUT in workers[address]["resources"] or name != _ROOT)
        and (name not in common or isinstance(error, CredentialsError))
    ]
    if any(refused for _, refused in troubles):
        raise CredentialsError(_told([text for text, _ in troubles]))
    if troubles:
        others = "" if own else "this night's main process reaches it: "
        raise ClusterError(
            f"{_told([text for text, _ in troubles])}; {others}mount the same folders where workers run, "
            "give them the same endpoint (AWS_ENDPOINT_URL) and network, and start them anew"
        )
    silent = [
        f"worker {address} cannot say what it reaches ({type(answer).__name__}: {answer})"
        for address, answer in answers.items()
        if not isinstance(answer, dict)
    ]
    if silent:
        raise ClusterError(
            f"{_told(silent)}; look at its log, install the same gzscale there, and start it anew"
        )
    return _ROOT not in common


def _told(troubles: list[str]) -> str:
    more = f"; and {len(troubles) - _TOLD} more" if len(troubles) > _TOLD else ""
    return "; ".join(troubles[:_TOLD]) + more


@functools.lru_cache(maxsize=16)
def check_reach(output: str, root: str = "") -> None:
    """Check once in a worker's process what it reaches: it may have come after the others.

    Parameters
    ----------
    output
        Of a night that was planned.
    root
        ``survey.root``, if this worker cuts and there is such a place; else every image would be missing.

    Raises
    ------
    CredentialsError
        If storage refuses the worker's.
    WorkerError
        If it does not reach the output, or has no such root: another worker may.
    """
    wrong = reach(output, root)
    for error in wrong.values():
        if isinstance(error, CredentialsError):
            raise error
    for name, error in wrong.items():
        # What a survey's server does not answer for a while is the images' matter.
        if name == _OUTPUT or error.errno == errno.ENOENT:
            raise WorkerError(
                f"a worker does not reach the {name}: {error}; mount the same folders there, or give it the "
                "same endpoint (AWS_ENDPOINT_URL), and start it anew"
            ) from error
