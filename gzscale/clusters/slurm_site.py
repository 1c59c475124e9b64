"""What SLURM says of a site: whether it would take a preset's jobs, where, and of its nodes."""

from __future__ import annotations

import shutil
import subprocess

from gzscale.clusters.presets import JobPool
from gzscale.clusters.walltimes import walltime_seconds
from gzscale.errors import ClusterError

__all__ = ["check_partitions", "directives_of_nodes", "run_command", "try_submission"]

_COMMAND_TIMEOUT = 60


def run_command(command: list[str], text: str | None = None) -> str:
    """Run one of SLURM's commands; return what it prints."""
    try:
        done = subprocess.run(
            command, input=text, capture_output=True, text=True, check=False, timeout=_COMMAND_TIMEOUT
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ClusterError(
            f"cluster slurm: {command[0]}: {error}; is this a submit host, and SLURM running?"
        ) from error
    if done.returncode:
        raise ClusterError(f"cluster slurm: {' '.join(command)}: {done.stderr.strip() or done.returncode}")
    return done.stdout


def check_partitions(pools: dict[str, JobPool]) -> None:
    """Hold the partitions' names, walltimes and GPUs against what SLURM has."""
    if shutil.which("sbatch") is None:
        raise ClusterError("cluster slurm: there is no sbatch here; run gzscale on a submit host")
    # With those that are hidden from this user's group: jobs may go there all the same.
    lines = run_command(["sinfo", "--all", "--noheader", "--format=%R|%l|%G"]).splitlines()
    rows = [line.split("|", 2) for line in lines]
    limits = {name: limit for name, limit, _ in rows}
    gpus = {name for name, _, resources in rows if "gpu" in resources}
    for kind, pool in pools.items():
        # Of several that are named, separated by commas, a job runs in the first that has room for it.
        names = pool.partition.split(",") if pool.partition else []
        missing = [name for name in names if name not in limits]
        if missing:
            raise ClusterError(
                f"cluster slurm: {kind.lower()}.partition {missing[0]!r} does not exist; "
                f"sinfo knows {', '.join(sorted(limits)) or 'none'}"
            )
        if pool.gpus and gpus.isdisjoint(names or gpus):
            raise ClusterError(
                f"cluster slurm: {kind.lower()} asks for {pool.gpus} GPU(s) a job, and partition "
                f"{pool.partition!r} has none; those with GPUs: {', '.join(sorted(gpus)) or 'none'}"
            )
        if names and not any(_allows(limits[name], pool.walltime) for name in names):
            told = ", ".join(limits[name] for name in names)
            raise ClusterError(
                f"cluster slurm: {kind.lower()}.walltime {pool.walltime} is longer than partition "
                f"{pool.partition!r} allows ({told})"
            )


def _allows(limit: str, walltime: str) -> bool:
    """Tell whether a partition's limit has room for a walltime; one that is no time ("n/a") is none."""
    try:
        return walltime_seconds(walltime) <= walltime_seconds(limit)
    except ValueError:
        return True


def try_submission(kind: str, script: str) -> None:
    """Ask SLURM whether it would take a job: account, nodes, constraint, memory, further directives."""
    try:
        run_command(["sbatch", "--test-only"], script)
    except ClusterError as error:
        raise ClusterError(
            f"cluster slurm: SLURM would refuse the jobs of `{kind.lower()}`: {error}"
        ) from error


def directives_of_nodes(nodes: str) -> list[str]:
    """Return what keeps a job to some nodes: one of them, since sbatch gives a job all that it names.

    Parameters
    ----------
    nodes
        As sbatch takes them: ``n7`` or ``n[1-4],m2``.

    Returns
    -------
    list of str
        ``--nodelist`` of a single node, or ``--exclude`` of all others.

    Raises
    ------
    ClusterError
        If SLURM does not know all of these names.
    """
    one = [f"--nodelist={nodes}"]
    if not set(nodes) & set("[,/"):
        return one
    meant = set(run_command(["scontrol", "show", "hostnames", nodes]).split())
    if len(meant) == 1:
        return one
    known = set(run_command(["sinfo", "--all", "--noheader", "--Node", "--format=%N"]).split())
    unknown = ", ".join(sorted(meant - known)[:3])
    if unknown:
        raise ClusterError(
            f"cluster slurm: {unknown} of nodes {nodes!r} are none of this site's, of which sinfo --Node "
            f"lists {len(known)}"
        )
    others = sorted(known - meant)
    return [f"--exclude={','.join(others)}"] if others else []
