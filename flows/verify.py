"""The verify flow: everything that was committed is read back and held against its hash."""

from __future__ import annotations

from typing import Any

from flows.settings import apply_quiet_defaults

apply_quiet_defaults()

from prefect import flow  # noqa: E402
from prefect.artifacts import create_table_artifact  # noqa: E402

from gzscale.errors import DamageError  # noqa: E402
from gzscale.night import verify as night_verify  # noqa: E402

__all__ = ["verify"]

#: Findings of one table: more are counted.
MOST_SHOWN = 1000


@flow(name="verify", persist_result=False)
def verify(output: str, repair: bool = False) -> dict[str, int]:
    """Re-hash everything that was committed below an output.

    Parameters
    ----------
    output
        Folder or URL.
    repair
        Whether to remove what is damaged, so that the next night makes it anew.

    Returns
    -------
    dict
        ``files`` read, ``findings``, and files ``removed``.

    Raises
    ------
    DamageError
        If something is not what was committed, so that the run fails and notifies.
    """
    files = 0

    def count(more: int) -> None:
        nonlocal files
        files += more

    findings = night_verify.verify(output, count)
    removed = night_verify.repair(output, findings) if repair and findings else 0
    rows: list[dict[str, Any]] = [
        {"where": finding.where, "what": finding.what} for finding in findings[:MOST_SHOWN]
    ]
    about = f"{output}: {files} files read, {len(findings)} finding(s), {removed} removed"
    create_table_artifact(key="verify-findings", table=rows, description=about)
    if findings:
        raise DamageError(f"{about}; {findings[0].where}: {findings[0].what}")
    return {"files": files, "findings": 0, "removed": removed}
