"""Folders that are removed while others write into them or remove them, too."""

import errno
import os
import threading

import pytest

from gzscale import _files
from gzscale._files import remove_tree


@pytest.fixture
def tree(tmp_path):
    folder = tmp_path / "tree"
    (folder / "images/c").mkdir(parents=True)
    (folder / "images/c/0").write_bytes(b"x")
    return folder


def writes_before_rmdir(monkeypatch, folder, times):
    """Have somebody write into a folder each time that it is about to be removed; return the calls."""
    real, calls = os.rmdir, []

    def rmdir(path, *, dir_fd=None):
        if folder.exists() and len(calls) < times:
            calls.append(path)
            (folder / f"late-{len(calls)}").write_bytes(b"y")
        real(path, dir_fd=dir_fd)

    monkeypatch.setattr(os, "rmdir", rmdir)
    monkeypatch.setattr(_files, "PAUSE", 0)
    return calls


def test_what_is_written_meanwhile_is_removed_as_well(tree, monkeypatch):
    calls = writes_before_rmdir(monkeypatch, tree / "images", 5)
    remove_tree(tree)
    assert not tree.exists()
    assert len(calls) == 5


@pytest.mark.parametrize("number", [errno.EEXIST, errno.EBUSY])
def test_what_nfs_keeps_of_an_open_file_is_waited_for(tree, monkeypatch, number):
    real, calls = os.rmdir, []

    def rmdir(path, *, dir_fd=None):
        calls.append(path)
        if len(calls) == 1:
            raise OSError(number, os.strerror(number))
        real(path, dir_fd=dir_fd)

    monkeypatch.setattr(os, "rmdir", rmdir)
    monkeypatch.setattr(_files, "PAUSE", 0)
    remove_tree(tree)
    assert not tree.exists()


def test_somebody_who_never_stops_writing_is_told(tree, monkeypatch):
    writes_before_rmdir(monkeypatch, tree, 10**6)
    with pytest.raises(OSError, match="not empty") as caught:
        remove_tree(tree)
    assert caught.value.errno == errno.ENOTEMPTY


def test_two_may_remove_the_same_folder(tree):
    for i in range(300):
        (tree / f"{i}").write_bytes(b"z")
    threads = [threading.Thread(target=remove_tree, args=(tree,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not tree.exists()


def test_a_file_and_nothing_are_removed(tmp_path):
    (tmp_path / "file").write_bytes(b"x")
    remove_tree(tmp_path / "file")
    remove_tree(tmp_path / "nothing")
    assert not list(tmp_path.iterdir())
