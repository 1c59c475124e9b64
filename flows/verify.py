"""The verify flow: everything that was committed is read back and held against its hash."""

from __future__ import annotations

from typing import Any

from flows.settings import apply_quiet_defaults

apply_quiet_defaults()

from prefect import flow  # noqa: E402
from prefect.artifacts import create_table_artifact  # noqa: E402

from gzscale.config import load_config  # noqa: E402
from gzscale.errors import ConfigError, DamageError, MissingError  # noqa: E402
from gzscale.night import verify as night_verify  # noqa: E402

__all__ = ["verify"]

#: Findings of one table: more are counted.
MOST_SHOWN = 1000


@flow(name="verify", persist_result=False)
def verify(output: str | None = None, repair: bool = False, config: str | None = None) -> dict[str, int]:
    """Re-hash everything that was committed below an output.

    Parameters
    ----------
    output
        Folder or URL; that of ``config`` by default.
    repair
        Whether to remove what is damaged, so that the next night makes it anew.
    config
        Path or URL of a night's configuration. What the environment sets goes before it, as for
        the night itself, so that both look at the same place.

    Returns
    -------
    dict
        ``files`` read, ``findings``, and files ``removed``.

    Raises
    ------
    ConfigError
        If neither an output nor a configuration is given.
    MissingError
        If nothing was committed there: the output is another one, or no night was run yet.
    DamageError
        If something is not what was committed, so that the run fails and notifies.
    """
    if output is None and config is None:
        raise ConfigError("give the output to verify, or the configuration of the nights that write it")
    output = output or load_config(str(config)).output
    files = 0

    def count(more: int) -> None:
        nonlocal files
        files += more

    removed = 0
    if repair:
        findings, removed = night_verify.verify_and_repair(output, count)
    else:
        findings = night_verify.verify(output, count)
    rows: list[dict[str, Any]] = [
        {"where": finding.where, "what": finding.what} for finding in findings[:MOST_SHOWN]
    ]
    about = f"{output}: {files} files read, {len(findings)} finding(s), {removed} removed"
    create_table_artifact(key="verify-findings", table=rows, description=about)
    if findings:
        raise DamageError(f"{about}; {findings[0].where}: {findings[0].what}")
    if not files:
        raise MissingError(f"{output}: nothing was committed here; is it the output of the nights?")
    return {"files": files, "findings": 0, "removed": removed}
