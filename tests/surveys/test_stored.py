"""Files mapped after one reading, and what becomes of them meanwhile."""

import hashlib
import io
import mmap
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gzscale.errors import ImageError, Reason
from gzscale.surveys.fetch import Fetcher
from gzscale.surveys.stored import as_file, stored_file

CONTENT = os.urandom(300_000)


@pytest.fixture
def path(tmp_path):
    (tmp_path / "a.fits").write_bytes(CONTENT)
    return tmp_path / "a.fits"


def test_bytes_and_hash_are_the_files(path):
    stored = stored_file(path)
    assert isinstance(stored.content, mmap.mmap)
    assert bytes(memoryview(stored.content)) == CONTENT
    assert stored.sha256 == hashlib.sha256(CONTENT).hexdigest()
    stored.require_unchanged()


def test_an_empty_file_has_no_bytes(tmp_path):
    (tmp_path / "empty").touch()
    stored = stored_file(tmp_path / "empty")
    assert stored.content == b""
    assert stored.sha256 == hashlib.sha256().hexdigest()


def test_a_name_that_is_removed_or_taken_by_another_file_changes_nothing(path):
    stored = stored_file(path)
    path.with_name("new").write_bytes(b"other")
    os.replace(path.with_name("new"), path)
    stored.require_unchanged()
    path.unlink()
    stored.require_unchanged()
    assert bytes(memoryview(stored.content)) == CONTENT


@pytest.mark.parametrize("mode", ["r+b", "ab"])
def test_a_file_that_is_written_while_it_is_used_is_refused(path, mode):
    stored = stored_file(path)
    with open(path, mode) as file:
        file.write(b"later")
    os.utime(path, ns=(1, 1))
    with pytest.raises(ImageError, match=r"a\.fits: written while it was read") as caught:
        stored.require_unchanged()
    assert caught.value.reason is Reason.UNREACHABLE_IMAGE


def test_a_file_that_cannot_be_read_says_why(tmp_path):
    fetcher = Fetcher(str(tmp_path), str(tmp_path / "cache"), 10**6, 1)
    with pytest.raises(ImageError) as caught:
        fetcher.view(("b.fits",))
    assert caught.value.reason is Reason.MISSING_IMAGE
    # Its status is there, its bytes are not.
    os.symlink("/proc/self/mem", tmp_path / "b.fits")
    with pytest.raises(ImageError, match=r"b\.fits: Input/output error") as caught:
        fetcher.view(("b.fits",))
    assert caught.value.reason is Reason.UNREACHABLE_IMAGE


@given(
    st.binary(max_size=300),
    st.lists(st.tuples(st.integers(-1, 350), st.integers(0, 2), st.integers(-1, 350)), max_size=8),
)
def test_reading_and_seeking_are_those_of_a_file_in_memory(content, steps):
    ours, truth = as_file(content), io.BytesIO(content)
    for size, whence, offset in steps:
        place = max(0, offset + {0: 0, 1: truth.tell(), 2: len(content)}[whence])
        assert ours.seek(place) == truth.seek(place)
        assert ours.read(size) == truth.read(size)
        assert ours.tell() == truth.tell()
