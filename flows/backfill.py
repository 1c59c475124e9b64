"""The backfill flow: the same night for each date of a range, one after the other."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

from flows.settings import apply_quiet_defaults

apply_quiet_defaults()

from prefect import flow, tags  # noqa: E402

from flows.nightly import Setting, nightly  # noqa: E402
from gzscale.errors import ConfigError, GzscaleError  # noqa: E402

__all__ = ["backfill", "nights_of"]

#: Nights of one run; more of them are more than one run.
MOST_NIGHTS = 1000
PLACEHOLDER = "{date}"


def nights_of(first: date, last: date) -> list[date]:
    """Return every date of a range, both ends included.

    Raises
    ------
    ConfigError
        If the range is empty, or has more than `MOST_NIGHTS` dates.
    """
    count = (last - first).days + 1
    if not 1 <= count <= MOST_NIGHTS:
        raise ConfigError(
            f"{first} to {last} are {max(count, 0)} nights; give a first date that is not after the last, "
            f"and at most {MOST_NIGHTS} nights"
        )
    return [first + timedelta(days=number) for number in range(count)]


@flow(name="backfill", persist_result=False)
def backfill(
    config: str, first: date, last: date, settings: list[Setting], go_on: bool = True
) -> dict[str, Any]:
    """Run the night of every date of a range; those that are done are left alone.

    Parameters
    ----------
    config
        Path or URL of the configuration. ``{date}`` in it, or in a setting, becomes the
        date as ``YYYY-MM-DD``.
    first, last
        The range, both ends included.
    settings
        ``key=value`` pairs, such as ``catalog.path=s3://survey/{date}.parquet``.
    go_on
        Whether the nights after one that failed are run.

    Returns
    -------
    dict
        Date -> account of its night.

    Raises
    ------
    ConfigError
        If the range is not one, or neither ``config`` nor a setting names the date.
    GzscaleError
        If a night failed: naming each, after the others were run.
    """
    dates = nights_of(first, last)
    if len(dates) > 1 and not any(PLACEHOLDER in text for text in [config, *settings]):
        raise ConfigError(
            f"the nights {first} to {last} would all be the same: put {PLACEHOLDER} into the path of the "
            f"configuration or into a setting, for example catalog.path=s3://survey/{PLACEHOLDER}.parquet"
        )
    accounts: dict[str, Any] = {}
    failed: dict[str, str] = {}
    for day in map(date.isoformat, dates):
        try:
            own = [text.replace(PLACEHOLDER, day) for text in settings]
            # A run in another has none of its tags, and automations know ours by them.
            with tags("gzscale"):
                accounts[day] = nightly(config.replace(PLACEHOLDER, day), own)
        except GzscaleError as error:
            failed[day] = f"{error.code}: {error}"
        if failed and not go_on:
            break
    if failed:
        told = "; ".join(f"{day}: {what}" for day, what in failed.items())
        raise GzscaleError(f"{len(failed)} of {len(dates)} nights failed: {told}")
    return accounts
