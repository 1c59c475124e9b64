"""Walltimes: read as sbatch does, written so that they can be read in one way."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gzscale.clusters.walltimes import walltime_seconds, walltime_text


@pytest.mark.parametrize("text", ["", "1h", "-1", "1:2:3:4", "10:60", "1-", "1-100", "2:00:", "UNLIMITED"])
def test_what_is_no_walltime_is_refused(text):
    with pytest.raises(ValueError, match="expected HH:MM:SS"):
        walltime_seconds(text)


@given(st.integers(0, 99), st.integers(0, 23), st.integers(0, 59), st.integers(0, 59))
def test_walltimes_are_read_as_they_are_written(days, hours, minutes, seconds):
    whole = ((days * 24 + hours) * 60 + minutes) * 60 + seconds
    assert walltime_seconds(f"{days}-{hours:02}:{minutes:02}:{seconds:02}") == whole
    assert walltime_seconds(walltime_text(whole)) == whole
