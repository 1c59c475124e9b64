"""Backfill: every date once, in order; failures are gathered, and a range that is none is refused."""

from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prefect.context import TagsContext

from flows import backfill as flow_module
from flows.backfill import MOST_NIGHTS, backfill, nights_of
from gzscale.errors import ConfigError, GzscaleError, LockedError


@given(st.dates(date(1990, 1, 1), date(2100, 1, 1)), st.integers(1, MOST_NIGHTS))
def test_a_range_has_every_date_once(first, count):
    dates = nights_of(first, first + timedelta(days=count - 1))
    assert len(set(dates)) == len(dates) == count
    assert dates == sorted(dates)
    assert dates[0] == first


@pytest.mark.parametrize("days", [-1, MOST_NIGHTS])
def test_a_range_that_is_none_is_refused(days):
    first = date(2026, 11, 1)
    with pytest.raises(ConfigError, match="give a first date that is not after the last"):
        nights_of(first, first + timedelta(days=days))


@pytest.fixture
def nights(monkeypatch):
    """Nights that note how they were started; the second one is locked."""
    started = []

    def nightly(config, settings):
        # As a run that is started here would have it, for the automations to know it by.
        assert TagsContext.get().current_tags == {"gzscale"}
        started.append((config, settings))
        if settings[0].endswith("02"):
            raise LockedError("another night")
        return {"failed": 0}

    monkeypatch.setattr(flow_module, "nightly", nightly)
    return started


def test_the_date_goes_into_the_settings(nights):
    accounts = backfill.fn("c.yaml", date(2026, 11, 3), date(2026, 11, 4), ["output=s3://n/{date}"])
    assert list(accounts) == ["2026-11-03", "2026-11-04"]
    assert nights == [("c.yaml", ["output=s3://n/2026-11-03"]), ("c.yaml", ["output=s3://n/2026-11-04"])]


@pytest.mark.parametrize(("go_on", "started"), [(True, 3), (False, 2)])
def test_a_night_that_fails_is_named_at_the_end(nights, go_on, started):
    with pytest.raises(GzscaleError, match="1 of 3 nights failed: 2026-11-02: LOCKED: another night"):
        backfill.fn("c.yaml", date(2026, 11, 1), date(2026, 11, 3), ["output={date}"], go_on)
    assert len(nights) == started


def test_nights_that_would_be_the_same_are_refused(nights):
    with pytest.raises(ConfigError, match="would all be the same"):
        backfill.fn("c.yaml", date(2026, 11, 1), date(2026, 11, 3), ["output=night"])
    assert nights == []


def test_what_is_no_setting_is_refused_before_the_run():
    with pytest.raises(Exception, match="settings"):
        backfill.validate_parameters(
            {"config": "c", "first": "2026-11-01", "last": "2026-11-01", "settings": ["rubbish"]}
        )
