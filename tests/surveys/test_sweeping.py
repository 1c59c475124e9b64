"""Which files of a cache go first, and caches of several users."""

import os

import pytest
from faults import files

from gzscale.surveys.fetch import Fetcher
from gzscale.surveys.sweeping import UNFINISHED, mark_used, sweep

CONTENT = b"SIMPLE  =" + bytes(3000)


@pytest.fixture
def fetcher(serve, tmp_path):
    server = serve(files({"a.fits": CONTENT, "b.fits": CONTENT}))
    return Fetcher(server.url, str(tmp_path), 10**6, 1)


def test_another_user_s_file_is_read_though_its_use_cannot_be_noted(fetcher, monkeypatch):
    def refuse(*arguments, **options):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "utime", refuse)
    assert fetcher.read(("a.fits",)) == ("a.fits", CONTENT)
    with fetcher.view(("a.fits",)) as (_, stored):
        assert stored[:] == CONTENT


def test_a_file_that_is_gone_is_not_there_to_be_marked(tmp_path):
    with pytest.raises(FileNotFoundError):
        mark_used(tmp_path / "a")


def test_a_file_whose_transfer_began_long_ago_is_not_the_first_to_go(fetcher, tmp_path):
    fetcher.fetch(("b.fits",))
    (b,) = (tmp_path / "files").glob("b.fits@*")
    os.utime(b, (2000, 2000))
    a = fetcher._cached(fetcher.stat(("a.fits",)))
    part = a.with_name(a.name + UNFINISHED)
    part.write_bytes(CONTENT[:1000])
    os.utime(part, (1000, part.stat().st_mtime))
    fetcher.fetch(("a.fits",))
    sweep(tmp_path / "files", len(CONTENT), keep=tmp_path / "none")
    assert a.read_bytes() == CONTENT
    assert not b.exists()
