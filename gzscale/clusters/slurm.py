"""Clusters of SLURM jobs: some cut, some predict, one scheduler; checked before, watched, renewed."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from typing import Any

import dask

from gzscale.clusters.keys import NO_PAGES, OwnKey, make_key
from gzscale.clusters.presets import JobPool, SlurmPreset
from gzscale.clusters.slurm_site import check_partitions, directives_of_nodes, run_command, try_submission
from gzscale.clusters.workers import (
    CUT,
    ENVIRONMENT,
    GRACE,
    KINDS,
    PREDICT,
    Limits,
    Workers,
    missing_extra,
)
from gzscale.errors import ClusterError

__all__ = ["SlurmWorkers", "make_slurm"]

#: Looks in a row at which jobs of one kind are started anew, none of which has brought a worker.
RENEWALS = 20
#: Seconds within which some of the jobs that were asked for are submitted. Dask tells of those that it
#: submits together when sbatch has taken the last of them, which a busy controller may let wait, and submits
#: no others before.
SUBMISSION = 300.0
#: Seconds within which workers that are let go have handed on the results that they alone hold.
RETIREMENT = 60.0


def make_slurm(preset: SlurmPreset) -> SlurmWorkers:
    """Check a preset with SLURM, start a scheduler here, and submit the first jobs.

    Raises
    ------
    ClusterError
        If dask-jobqueue or SLURM's commands are missing, or SLURM would refuse the jobs.
    """
    try:
        from dask_jobqueue import SLURMCluster
        from dask_jobqueue.slurm import SLURMJob
    except ImportError as error:
        raise missing_extra("slurm", "slurm", error) from error
    pools = {CUT: preset.cut} | ({PREDICT: preset.predict} if preset.predict else {})
    check_partitions(pools)
    options = {kind: job_options(preset, kind, pool) for kind, pool in pools.items()}
    for kind, chosen in options.items():
        try_submission(kind, SLURMJob("tcp://127.0.0.1:8786", name="gzscale-test", **chosen).job_script())
    key = _make_key(preset) if preset.tls else None
    try:
        if key is not None:
            for chosen in options.values():
                chosen["protocol"] = "tls://"
                chosen["job_script_prologue"] += key.exports()
                chosen["worker_extra_args"] += ["--no-dashboard"]
        return SlurmWorkers(_begin(SLURMCluster, preset, options[CUT], key), SLURMJob, pools, options, key)
    except BaseException:
        if key is not None:
            key.remove()
        raise


def _begin(cluster: Any, preset: SlurmPreset, options: dict[str, Any], key: OwnKey | None) -> Any:
    """Start the scheduler, without jobs."""
    security, pages = (None, {}) if key is None else (key.security, NO_PAGES)
    try:
        with dask.config.set(pages):
            return cluster(
                silence_logs=50,
                security=security,
                scheduler_options={"dashboard_address": ":0", "dashboard": False},
                **options,
            )
    except (RuntimeError, OSError, ValueError) as error:
        remedy = (
            f"is interface {preset.interface!r} one of its networks, that the nodes reach? "
            "`ip -brief address` lists them"
            if preset.interface
            else "`interface` of the preset may name the network that the nodes reach"
        )
        raise ClusterError(
            f"cluster slurm: the scheduler does not start on this host ({error}); {remedy}"
        ) from error


def _make_key(preset: SlurmPreset) -> OwnKey:
    """Make the key of a cluster where its jobs find it."""
    folder = Path(preset.logs) if preset.logs else Path.home() / ".gzscale"
    try:
        return make_key(folder)
    except ImportError as error:
        raise missing_extra("slurm", "slurm", error) from error
    except OSError as error:
        raise ClusterError(
            f"cluster slurm: the key of this night cannot be written into {str(folder)!r} ({error}); `logs` "
            "of the preset names a folder that all nodes see, `tls: false` does without a key"
        ) from error


class SlurmWorkers(Workers):
    """Jobs that bring workers to a scheduler in this process.

    Parameters
    ----------
    cluster
        `dask_jobqueue.SLURMCluster`, without jobs.
    job
        `dask_jobqueue.slurm.SLURMJob`.
    pools
        The preset's pools by kind of work.
    options
        Arguments of ``job`` by kind of work.
    key
        What workers and scheduler know each other by; removed with the cluster.
    """

    def __init__(
        self,
        cluster: Any,
        job: Any,
        pools: dict[str, JobPool],
        options: dict[str, dict[str, Any]],
        key: OwnKey | None = None,
    ) -> None:
        super().__init__(cluster, None if key is None else key.security)
        self._job = job
        self._key = key
        self._options = options
        self._renewed: Counter[str] = Counter()
        # Of jobs: since when they wait to be submitted, and when they were first seen to be.
        self._asked: dict[str, float] = {}
        self._seen: dict[str, float] = {}
        self.limits = {kind: Limits(pool.minimum, pool.most, pool.workers) for kind, pool in pools.items()}
        for kind, limit in self.limits.items():
            self.scale(kind, limit.minimum)

    def scale(self, kind: str, number: int) -> None:
        """Submit jobs of one kind, or drain and cancel those that have the least to do."""
        limit = self.limits[kind]
        wanted = max(limit.minimum, min(number, limit.maximum))
        names = [name for name in self.target.worker_spec if _kind_of(name) == kind]
        if len(names) > wanted:
            self._let_go(names, len(names) - wanted)
        for _ in range(wanted - len(names)):
            self._specify(kind)
        self._correct()

    def renew(self) -> int:
        """Submit jobs again that have ended, by their walltime, by `scancel` or with their node."""
        # First: what is submitted while squeue answers is not in its answer.
        submitted = dict(self.target.workers)
        self._note(submitted)
        queue = self._queue()
        if queue is None:
            return 0
        for worker in self.target.scheduler_info["workers"].values():
            self._renewed[_kind_of(str(worker["name"]))] = 0
        gone = [
            name
            for name in self.target.worker_spec
            if self._is_gone(name, submitted, queue) and self._renewed[_kind_of(name)] < RENEWALS
        ]
        # However many end together, as the jobs of one partition do: once.
        self._renewed.update({_kind_of(name) for name in gone})
        for name in gone:
            # Under another name: Dask cancels what has the name of a worker that it lost, a while later.
            del self.target.worker_spec[name]
            self._specify(_kind_of(name))
        if gone:
            self._correct()
        return len(gone)

    def _note(self, submitted: dict[str, Any]) -> None:
        """Note which jobs are submitted by now; as long as there are new ones, the others wait their turn."""
        now = time.monotonic()
        new = submitted.keys() - self._seen.keys()
        self._seen.update(dict.fromkeys(new, now))
        if new:
            self._asked.update(dict.fromkeys(self._asked.keys() - self._seen.keys(), now))

    def _is_gone(self, name: str, submitted: dict[str, Any], queue: dict[str, str]) -> bool:
        """Tell whether a job has ended; one that is on its way into the queue has not."""
        now = time.monotonic()
        if name in submitted:
            return str(submitted[name].job_id) not in queue and now - self._seen[name] >= GRACE
        # One whose workers have left is cancelled and struck off by Dask itself.
        return name in self._seen or now - self._asked[name] >= SUBMISSION

    def _let_go(self, names: list[str], number: int) -> None:
        """Ask for a number of jobs no more: those in the queue first, then those with the least to do."""
        workers = {name: self._workers_of(name) for name in names}
        # Sorting keeps the order of those that are alike: of these the last submitted go first.
        order = list(reversed(names))
        order.sort(key=lambda name: (sum(workers[name].values()), len(workers[name])))
        addresses = [address for name in order[:number] for address in workers[name]]
        # What they have in hand goes to others, and is not held against it as a death would be. Dask itself
        # would do so by name, which finds none: it is the job's, and a worker's is known by its address.
        retired = (
            self.target.sync(
                self.target.scheduler_comm.retire_workers,
                workers=addresses,
                close_workers=True,
                remove=True,
                callback_timeout=RETIREMENT,
            )
            if addresses
            else {}
        )
        for name in order[:number]:
            # A job stays where one of its workers could not hand on what it alone holds.
            if workers[name].keys() <= retired.keys():
                del self.target.worker_spec[name]

    def _workers_of(self, name: str) -> dict[str, int]:
        """Return the addresses of a job's workers, and how many tasks each has in hand."""
        group = self.target.worker_spec[name].get("group", [""])
        own = {name, *(f"{name}{suffix}" for suffix in group)}
        workers = list(self.target.scheduler.workers.values())
        return {worker.address: len(worker.processing) for worker in workers if str(worker.name) in own}

    def _specify(self, kind: str) -> None:
        """Ask for one more job; the next correction submits it."""
        workers = self.limits[kind].workers
        group = {"group": [f"-{place}" for place in range(workers)]} if workers > 1 else {}
        name = f"{kind.lower()}-{next(self._numbers)}"
        self._asked[name] = time.monotonic()
        self.target.worker_spec[name] = {"cls": self._job, "options": self._options[kind], **group}

    def _correct(self) -> None:
        """Bring what runs in line with what is asked for: scaling to the same number does that."""
        self.target.scale(jobs=len(self.target.worker_spec))

    def waits_for(self) -> str:
        """Say for each job what SLURM says of it."""
        queue = self._queue()
        if queue is None:
            return "squeue does not answer: is SLURM's controller running?"
        said = []
        for name, job in sorted(self.target.workers.items()):
            state = queue.get(str(job.job_id), "has ended; look at its log")
            said.append(f"job {job.job_id} ({name}) {state}")
        return "; ".join(said) or "no job was submitted"

    def close(self) -> None:
        """Cancel the jobs, and remove the key."""
        try:
            super().close()
        finally:
            if self._key is not None:
                self._key.remove()

    def _queue(self) -> dict[str, str] | None:
        """Return job -> state and reason, of this user's jobs; None if squeue fails."""
        try:
            lines = run_command(["squeue", "--me", "--noheader", "--format=%A|%T|%r"]).splitlines()
        except ClusterError:
            return None
        return {job: f"{state} ({reason})" for job, state, reason in (line.split("|", 2) for line in lines)}


def job_options(preset: SlurmPreset, kind: str, pool: JobPool) -> dict[str, Any]:
    """Return the arguments of `dask_jobqueue.slurm.SLURMJob` for one pool.

    Workers leave before the walltime: what they have not finished goes to others, and is
    not held against the partition as the death of a worker would be.
    """
    shortest, longest = pool.lives
    resources = {kind: 1} if preset.predict else dict.fromkeys(KINDS, 1)
    directives = [*pool.directives]
    directives += directives_of_nodes(pool.nodes) if pool.nodes else []
    directives += [f"--constraint={pool.constraint}"] if pool.constraint else []
    directives += [f"--gres=gpu:{pool.gpus}"] if pool.gpus else []
    options: dict[str, Any] = {
        "job_name": f"gzscale-{kind.lower()}",
        "queue": pool.partition,
        "account": pool.account,
        "walltime": pool.walltime,
        # A worker does one task at a time; the job's other cores are its threads'.
        "cores": pool.workers,
        "processes": pool.workers,
        "job_cpu": pool.cores,
        "memory": pool.memory,
        "interface": preset.interface,
        "local_directory": preset.scratch,
        "log_directory": preset.logs,
        "job_extra_directives": directives,
        "worker_extra_args": [
            "--resources",
            '"' + " ".join(f"{name}={number}" for name, number in resources.items()) + '"',
        ],
        "job_script_prologue": [
            *(f"export {name}={value}" for name, value in ENVIRONMENT.items()),
            # Drawn apart, so that jobs that began together do not leave together.
            f'export DASK_DISTRIBUTED__WORKER__LIFETIME__DURATION="{shortest} seconds"',
            f'export DASK_DISTRIBUTED__WORKER__LIFETIME__STAGGER="{longest - shortest} seconds"',
            "export DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED=False",
            *preset.prologue,
        ],
    }
    if preset.python:
        options["python"] = preset.python
    if pool.gpus:
        # One process a GPU, each seeing its own. The module itself is the command.
        options["worker_command"] = "dask_cuda.cli"
    return options


def _kind_of(name: str) -> str:
    return name.partition("-")[0].upper()
