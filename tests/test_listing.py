import tempfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gzscale._listing import sorted_files


@pytest.mark.parametrize("chunk", [1, 3, 7, 8, 100])
def test_names_are_sorted_whatever_is_held(tmp_path, chunk):
    names = ["b.jpg", "a.jpg", "A.jpg", "c\n.jpg", "é.jpg", "10.jpg", "9.jpg"]
    for name in (*names, "x.txt"):
        (tmp_path / name).touch()
    found = list(sorted_files(tmp_path, lambda name: name.endswith(".jpg"), chunk))
    assert found == [tmp_path / name for name in sorted(names)]


@given(st.sets(st.text("abc", min_size=1, max_size=3), max_size=12), st.integers(1, 5))
def test_any_number_of_names(names, chunk):
    with tempfile.TemporaryDirectory() as folder:
        from pathlib import Path

        for name in names:
            (Path(folder) / name).touch()
        found = [path.name for path in sorted_files(Path(folder), lambda _: True, chunk)]
    assert found == sorted(names)
