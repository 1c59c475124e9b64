"""Whether workers reach what a night reads and writes: asked before it begins, and of later ones.

Workers have paths, endpoints and credentials of their own. One that lacks them would fail with every
partition that it is given, or quarantine all of its objects as missing.
"""

from __future__ import annotations

import errno
import functools
from pathlib import Path
from typing import Any

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


def reach(output: str, root: str) -> dict[str, StorageError]:
    """Try to reach an output and a survey's root from this process.

    Parameters
    ----------
    output
        Of a night that was planned.
    root
        ``survey.root``. It may be denied to list it, as long as the credentials are known there.

    Returns
    -------
    dict
        ``output``, ``survey.root`` -> what is wrong with it; without those that are reached.
    """
    wrong = {}
    for name, location, prefix in ((_OUTPUT, output, _PLANNED), (_ROOT, root, "")):
        try:
            _touch(location, prefix)
        except StorageError as error:
            refused = isinstance(error, CredentialsError)
            if refused or name == _OUTPUT or error.errno != errno.EACCES:
                wrong[name] = error
    return wrong


def _touch(location: str, prefix: str) -> None:
    storage = open_storage(location)
    if isinstance(storage, LocalStorage):
        if not Path(storage.root, prefix).exists():
            raise StorageError(f"{storage.url(prefix)}: there is no such file or folder", errno.ENOENT)
    elif isinstance(storage, S3Storage):
        if next(iter(storage.list(prefix)), None) is None and prefix:
            raise StorageError(f"{storage.url(prefix)}: nothing is there; another endpoint?", errno.ENOENT)
    else:
        storage.stat(prefix)


def ask_workers(client: Any, config: NightConfig) -> None:
    """Ask every worker that is up whether it reaches what this process reaches, the survey only if it cuts.

    Parameters
    ----------
    client
        `distributed.Client`.
    config
        The configuration of a night that was planned.

    Raises
    ------
    CredentialsError
        If storage refuses this process's credentials, or a worker's.
    ClusterError
        If a worker does not reach the output, or a root of the survey that this process does.
    """
    places = config.output, config.survey.root
    own = reach(*places)
    for error in own.values():
        if isinstance(error, CredentialsError):
            raise error
    workers = client.scheduler_info(n_workers=-1)["workers"]
    try:
        answers = client.run(reach, *places, workers=list(workers), on_error="return")
    except Exception as error:
        raise ClusterError(f"the workers do not answer: {type(error).__name__}: {error}") from error
    troubles = [
        (f"worker {address}: {name}: {error}", isinstance(error, CredentialsError))
        for address, answer in answers.items()
        for name, error in _asked_for(answer, CUT in workers[address]["resources"]).items()
        if name not in own or isinstance(error, CredentialsError)
    ]
    if not troubles:
        return
    told = "; ".join(text for text, _ in troubles[:_TOLD])
    more = f"; and {len(troubles) - _TOLD} more" if len(troubles) > _TOLD else ""
    if any(refused for _, refused in troubles):
        raise CredentialsError(f"{told}{more}")
    raise ClusterError(
        f"{told}{more}; this night's main process reaches it: mount the same folders where workers run, give "
        "them the same endpoint (AWS_ENDPOINT_URL) and network, and start them anew"
    )


def _asked_for(answer: Any, cuts: bool) -> dict[str, Any]:
    """Return what matters of a worker's answer, which may be its failure to give one."""
    if not isinstance(answer, dict):
        return {"cannot say": answer}
    return {name: error for name, error in answer.items() if cuts or name != _ROOT}


@functools.lru_cache(maxsize=16)
def check_reach(output: str) -> None:
    """Check once in a worker's process that it reaches the output: it may have come after the others.

    Raises
    ------
    CredentialsError
        If storage refuses the worker's.
    WorkerError
        If it does not reach the output: another worker may.
    """
    try:
        _touch(output, _PLANNED)
    except CredentialsError:
        raise
    except StorageError as error:
        raise WorkerError(
            f"a worker does not reach the output: {error}; mount the same folders there, or give it the same "
            "endpoint (AWS_ENDPOINT_URL), and start it anew"
        ) from error
