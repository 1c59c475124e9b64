"""What a night's results come from: bundles as their files are now, read as seldom as can be."""

from pathlib import Path

import pytest
from conftest import run_night
from toy import toy_config, write_toy_bundle

from gzscale.errors import BundleError, CredentialsError, StorageError
from gzscale.models import bundle as bundles
from gzscale.night import origins as origin_module
from gzscale.night.origins import location_of, open_bundle, origins
from gzscale.storage import Entry


@pytest.fixture
def reads(monkeypatch):
    """Locations of bundles as they are read for a night's origins."""
    read, load = [], bundles.load_bundle

    def noted(location, sha256=None):
        read.append(str(location))
        return load(location, sha256)

    monkeypatch.setattr(bundles, "load_bundle", noted)
    return read


def test_a_bundle_is_read_once_a_night_and_not_for_each_partition(tmp_path, reads):
    ran = run_night(toy_config(tmp_path))
    assert len(ran.plan.partitions) > 1
    assert reads == [location_of(ran.config, "morphology")]


def test_a_bundle_that_was_replaced_in_place_is_read_anew(tmp_path, reads):
    config = toy_config(tmp_path)
    path = Path(location_of(config, "morphology"))
    first, before = origins(config), path.stat()
    write_toy_bundle(path, 16)
    assert path.stat().st_size == before.st_size
    second = origins(config)
    assert first.predict["tasks"] != second.predict["tasks"]
    assert len(reads) == 2
    assert open_bundle(config, "morphology").geometry.size == 16


def test_a_bundle_that_has_nothing_but_its_size_to_be_told_by_is_read_each_time(tmp_path, reads, monkeypatch):
    """As on a plain web server without dates."""
    config = toy_config(tmp_path)
    entry = Entry("toy.safetensors", 18_060, "18060")
    monkeypatch.setattr(origin_module, "_entry_of", lambda path: entry)
    for _ in range(2):
        open_bundle(config, "morphology")
    assert len(reads) == 2


def test_a_bundle_that_is_gone_or_damaged_is_told(tmp_path):
    config = toy_config(tmp_path)
    path = Path(location_of(config, "morphology"))
    whole = path.read_bytes()
    origins(config)
    path.unlink()
    with pytest.raises(BundleError, match="cannot be read"):
        open_bundle(config, "morphology")
    path.write_bytes(whole[:-1])
    for _ in range(2):
        with pytest.raises(BundleError, match="damaged"):
            open_bundle(config, "morphology")
    path.write_bytes(whole)
    assert open_bundle(config, "morphology").task == "morphology"


@pytest.mark.parametrize(
    ("error", "told"), [(StorageError, BundleError), (CredentialsError, CredentialsError)]
)
def test_storage_that_does_not_answer(tmp_path, monkeypatch, error, told):
    config = toy_config(tmp_path)

    def refuse(root):
        raise error(f"{root}: no")

    monkeypatch.setattr(origin_module, "open_storage", refuse)
    monkeypatch.setattr(bundles, "open_storage", refuse)
    with pytest.raises(told, match="no"):
        open_bundle(config, "morphology")
