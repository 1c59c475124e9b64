"""Files that are hashed, then read where they are wanted, and what becomes of them meanwhile."""

import hashlib
import io
import os

import pytest
from faults import files
from hypothesis import given
from hypothesis import strategies as st

from gzscale.errors import ImageError, Reason
from gzscale.surveys.fetch import Fetcher
from gzscale.surveys.stored import as_file, open_stored

CONTENT = os.urandom(300_000)


@pytest.fixture
def path(tmp_path):
    (tmp_path / "a.fits").write_bytes(CONTENT)
    return tmp_path / "a.fits"


def test_bytes_and_hash_are_the_files(path):
    with open_stored(path) as stored:
        assert stored[:] == CONTENT
        assert stored[1000:2000] == CONTENT[1000:2000]
        assert stored[299_990:400_000] == CONTENT[-10:]
        assert len(stored) == len(CONTENT)
        assert stored.sha256 == hashlib.sha256(CONTENT).hexdigest()


def test_an_empty_file_has_no_bytes(tmp_path):
    (tmp_path / "empty").touch()
    with open_stored(tmp_path / "empty") as stored:
        assert (len(stored), stored[:10]) == (0, b"")
        assert stored.sha256 == hashlib.sha256().hexdigest()


def test_a_name_that_is_removed_or_taken_by_another_file_changes_nothing(path):
    with open_stored(path) as stored:
        path.with_name("new").write_bytes(b"other")
        os.replace(path.with_name("new"), path)
        path.unlink()
        assert stored[:] == CONTENT


def use(path, meanwhile):
    """Open a file, let something happen to it, then look at what is behind its first bytes."""
    with open_stored(path) as stored:
        assert stored[:500] == CONTENT[:500]
        meanwhile(path)
        stored[500:600]


def write(path, mode):
    with open(path, mode) as file:
        file.write(b"later")
    os.utime(path, ns=(1, 1))


def cut_short_and_damaged(path):
    os.truncate(path, 1000)
    raise ImageError(Reason.CHECKSUM, "the data sum to something else")


@pytest.mark.parametrize(
    "meanwhile",
    [
        lambda path: write(path, "r+b"),
        lambda path: write(path, "ab"),
        lambda path: write(path, "wb"),
        lambda path: os.truncate(path, 550),
        cut_short_and_damaged,
    ],
)
def test_a_file_that_is_written_while_it_is_used_is_refused(path, meanwhile):
    with pytest.raises(ImageError, match=r"a\.fits: written while it was read") as caught:
        use(path, meanwhile)
    assert caught.value.reason is Reason.UNREACHABLE_IMAGE


def view(fetcher, name):
    with fetcher.view((name,)) as (_, stored):
        return stored[:]


def test_a_file_that_cannot_be_read_says_why(tmp_path):
    fetcher = Fetcher(str(tmp_path), str(tmp_path / "cache"), 10**6, 1)
    with pytest.raises(ImageError) as caught:
        view(fetcher, "b.fits")
    assert caught.value.reason is Reason.MISSING_IMAGE
    # Its status is there, its bytes are not.
    os.symlink("/proc/self/mem", tmp_path / "b.fits")
    with pytest.raises(ImageError, match=r"b\.fits: Input/output error") as caught:
        view(fetcher, "b.fits")
    assert caught.value.reason is Reason.UNREACHABLE_IMAGE


def test_many_readers_of_one_cached_file_do_not_disturb_each_other(serve, tmp_path):
    content = b"SIMPLE  =" + os.urandom(3000)
    server = serve(files({"a.fits": content}))
    fetcher = Fetcher(server.url, str(tmp_path / "cache"), 10**6, 1)
    with fetcher.view(("a.fits",)) as (_, first):
        for _ in range(3):
            assert view(fetcher, "a.fits") == content
            assert fetcher.read(("a.fits",))[1] == content
        assert first[:] == content


def test_a_system_that_reads_less_than_it_is_asked_for_is_asked_again(path, monkeypatch):
    whole = os.pread
    monkeypatch.setattr(os, "pread", lambda file, count, start: whole(file, min(count, 1000), start))
    with open_stored(path) as stored:
        assert stored[500:100_001] == CONTENT[500:100_001]
        assert stored[10:10] == b""
        os.truncate(path, 550)
        with pytest.raises(ImageError, match="written while it was read"):
            stored[500:600]
        os.truncate(path, len(CONTENT))
        os.utime(path, ns=(stored._before.st_atime_ns, stored._before.st_mtime_ns))


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
