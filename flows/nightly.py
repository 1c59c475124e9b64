"""The nightly flow: plan, process, release, report, each a Prefect task.

Stages are few, since a Prefect task costs tens of milliseconds; the partitions
are Dask's. Every stage looks in the ledger, so that a retry, or a run after a
kill, does only what is not done.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import Field

from flows.settings import apply_quiet_defaults

apply_quiet_defaults()

from prefect import flow, task  # noqa: E402
from prefect.artifacts import (  # noqa: E402
    create_link_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.cache_policies import NO_CACHE  # noqa: E402

from flows.embedded import end_server_with_us  # noqa: E402
from gzscale.cluster import open_cluster  # noqa: E402
from gzscale.clusters.presets import load_preset  # noqa: E402
from gzscale.config import NightConfig, load_config  # noqa: E402
from gzscale.errors import ConfigError, CredentialsError, GzscaleError, StorageError  # noqa: E402
from gzscale.memory import keep_one_arena, return_freed_memory  # noqa: E402
from gzscale.night.accounting import accounting, close_account  # noqa: E402
from gzscale.night.dispatch import process  # noqa: E402
from gzscale.night.fingerprint import fingerprint  # noqa: E402
from gzscale.night.ledger import Ledger, NightRecord  # noqa: E402
from gzscale.night.lock import Hold, hold_lock  # noqa: E402
from gzscale.night.plan import check, is_done, make_plan  # noqa: E402
from gzscale.night.planned import read_plan  # noqa: E402
from gzscale.night.progress import NightProgress  # noqa: E402
from gzscale.night.release import prune, publish  # noqa: E402
from gzscale.night.report import write_report  # noqa: E402
from gzscale.night.tally import Failure, Tally  # noqa: E402
from gzscale.night.work import Summary  # noqa: E402
from gzscale.storage import open_storage  # noqa: E402

__all__ = ["FailedNight", "Setting", "new_night_name", "nightly"]

#: One ``--set`` of the command line; what does not look like one is refused before a run begins.
Setting = Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*=", description="key=value, the key dotted")]

#: Failed partitions that a run's message names; the account and the report have more.
MOST_NAMED = 3

#: Seconds between two updates of the progress artifact: each is a request to the server.
ARTIFACT_EVERY = 15.0


class FailedNight(GzscaleError):
    """A night came to its end, and objects of it failed: nothing was released.

    Parameters
    ----------
    output
        Folder or URL of the night's output.
    account
        The night's account: see `gzscale.night.accounting.accounting`.
    """

    code = "FAILED"

    def __init__(self, output: str, account: dict[str, Any]) -> None:
        self.output, self.account = output, account
        failures = account["failures"]
        named = [f"{item['partition']} ({item['rows']} objects): {item['error']}" for item in failures]
        more = [f"{len(named) - MOST_NAMED} more partitions"] if len(named) > MOST_NAMED else []
        told = "; ".join([*named[:MOST_NAMED], *more])
        super().__init__(
            f"night {account['night']}: {account['failed']} of {account['planned']} objects failed, "
            f"{account['done']} are done, {sum(account['quarantined'].values())} quarantined; nothing was "
            f"released: {told}. Mend the cause and run the night again: what is committed is left alone. "
            f"`gzscale status {output}` has the account"
        )

    def __reduce__(self) -> tuple[type[FailedNight], tuple[str, dict[str, Any]]]:
        return type(self), (self.output, self.account)


def new_night_name() -> str:
    """Name a run by the UTC time of its start."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H%M%SZ")


def _can_pass(task: Any, run: Any, state: Any) -> bool:
    """Retry what may pass: storage and network, not a wrong configuration or credentials that are refused."""
    error = state.result(raise_on_failure=False)
    passing = isinstance(error, StorageError | TimeoutError | ConnectionError)
    return passing and not isinstance(error, CredentialsError)


def _tell(make: Callable[..., Any], *values: Any, **options: Any) -> Any:
    """Leave something with Prefect's server; a night does not end because that one is away."""
    try:
        return make(*values, **options)
    except Exception as error:
        logging.getLogger(__name__).warning("%s: %s", getattr(make, "__name__", "artifact"), error)
        return None


_STAGE: dict[str, Any] = {
    "retries": 2,
    "retry_delay_seconds": [5, 30],
    "retry_condition_fn": _can_pass,
    "cache_policy": NO_CACHE,
    "persist_result": False,
}


@task(name="plan", **_STAGE)
def plan_stage(config: NightConfig, night: str) -> int:
    """Read and partition the catalog; say how many partitions there are."""
    # The plan itself stays in storage: Prefect walks through whatever a task takes or returns.
    return len(make_plan(config, night).partitions)


@task(name="process", **_STAGE)
def process_stage(config: NightConfig, night: str, hold: Hold) -> Tally:
    """Cut and predict every partition on the cluster."""
    plan = read_plan(open_storage(config.output), night)
    total = max(sum(item.rows for item in plan.partitions), 1)
    artifact = _tell(create_progress_artifact, 0.0, key="night-progress", description=f"night {plan.night}")
    last = time.monotonic()
    done = 0
    with NightProgress() as progress, open_cluster(config.cluster) as cluster:
        progress.plan(total)

        def note(outcome: Summary | Failure) -> None:
            nonlocal last, done
            progress(outcome)
            done += outcome.rows if isinstance(outcome, Failure) else outcome.counts["objects"].planned
            if time.monotonic() - last > ARTIFACT_EVERY:
                last = time.monotonic()
                _tell(update_progress_artifact, artifact, 100.0 * done / total)

        tally = process(cluster, config, plan, note, hold.check)
    _tell(update_progress_artifact, artifact, 100.0)
    return tally


@task(name="release", **_STAGE)
def release_stage(config: NightConfig, night: str, started: str) -> str:
    """Write the catalogs and move the pointer."""
    plan = read_plan(open_storage(config.output), night)
    return publish(config, plan, started)


@task(name="prune", **_STAGE)
def prune_stage(config: NightConfig, night: str) -> int:
    """Remove what the released night no longer needs."""
    return prune(config, read_plan(open_storage(config.output), night))


@task(name="report", **_STAGE)
def report_stage(config: NightConfig, night: str) -> str:
    """Write the page, and leave its link and the account with Prefect."""
    url = write_report(config.output, night)
    record = Ledger(open_storage(config.output)).read_night(night)
    _leave_account(record)
    _tell(create_link_artifact, url, key="night-report", link_text=f"report of night {night}")
    return url


def _leave_account(record: NightRecord) -> None:
    """Leave the account as a table with Prefect."""
    rows = [{"stage": name, **count.to_dict()} for name, count in record.counts.items()]
    about = f"night {record.night}: planned = done + quarantined + failed"
    _tell(create_table_artifact, rows, key="night-accounting", description=about)


@flow(name="nightly", persist_result=False)
def nightly(config: str, settings: list[Setting] | None = None, night: str | None = None) -> dict[str, Any]:
    """Run one night, unless the last one did all that it would do.

    Parameters
    ----------
    config
        Path or URL of the night's configuration. Credentials are not part of it: they
        are in the environment of the process and of the workers.
    settings
        ``key=value`` pairs that go before the file's, as ``--set`` on the command line.
    night
        Name of the run; the UTC time of its start by default.

    Returns
    -------
    dict
        The night's account: see `gzscale.night.accounting.accounting`.

    Raises
    ------
    FailedNight
        If objects failed, once account and report are made: a run that failed has to say so
        to Prefect, whose automations notify of it.
    GzscaleError
        If the night as a whole cannot be done.
    """
    name = night or new_night_name()
    if "/" in name or name.startswith("."):
        raise ConfigError(f"night {name!r}: a name without slashes, not starting with a dot")
    end_server_with_us()
    keep_one_arena()
    loaded = load_config(config, settings or [])
    # Now, for reading and parting a large catalog takes a while, and a wrong preset is none of its business.
    load_preset(loaded.cluster)
    inputs = check(loaded)
    last = is_done(loaded, inputs)
    if last is not None:
        _leave_account(last)
        return accounting(last)
    storage = open_storage(loaded.output)
    ledger = Ledger(storage)
    with hold_lock(storage, name) as hold:
        ledger.clear_unfinished()
        record = NightRecord(name, "running", inputs, fingerprint(inputs), started=_now())
        ledger.write_night(record)
        try:
            _stages(loaded, record, hold)
        except BaseException as error:
            record.state, record.ended = "failed", _now()
            record.failures.append({"partition": "", "rows": 0, "error": f"{type(error).__name__}: {error}"})
            with contextlib.suppress(StorageError):  # The night's own error is the one to tell.
                ledger.write_night(record)
                write_report(loaded.output, name)
            raise
        ledger.write_night(record)
        if record.state == "complete":
            # Only now: until the record says so, a night that starts anew needs the rows of the one before.
            prune_stage(loaded, name)
        report_stage(loaded, name)
    account = accounting(record)
    if account["failed"]:
        raise FailedNight(loaded.output, account)
    return account


def _stages(config: NightConfig, record: NightRecord, hold: Hold) -> None:
    """Run the stages, noting in the record what each came to."""
    clock = time.perf_counter()

    def lap(stage: str) -> None:
        nonlocal clock
        now = time.perf_counter()
        record.seconds[f"wall_{stage}"] = now - clock
        clock = now
        return_freed_memory()

    record.partitions = plan_stage(config, record.night)
    lap("plan")
    tally = process_stage(config, record.night, hold) if record.partitions else Tally()
    lap("process")
    plan = read_plan(open_storage(config.output), record.night)
    record.counts, record.changes = close_account(plan, tally), plan.changes
    record.bytes_read, record.images = tally.bytes_read, tally.images
    record.failures = [vars(failure) for failure in tally.failures]
    record.seconds |= tally.seconds
    if record.counts["objects"].failed:
        record.state = "failed"
    else:
        hold.check()
        record.release = release_stage(config, record.night, record.started[:10])
        record.state = "complete"
    lap("release")
    record.ended = _now()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
