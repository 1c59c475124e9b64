"""The key of a cluster's own: who can read it, which clocks take it, and that nobody gets in without."""

import datetime
import os
import stat
import subprocess
import time

import pytest

pytest.importorskip("cryptography")

from cryptography import x509
from distributed import Client, LocalCluster

from gzscale.clusters.keys import make_key


@pytest.fixture
def key(tmp_path):
    made = make_key(tmp_path / "logs")
    yield made
    made.remove()


def test_nobody_else_can_read_it_and_it_goes_with_the_cluster(key, tmp_path):
    assert stat.S_IMODE(key.folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in key.folder.glob("key.pem")} == {0o600}
    assert key.folder.parent == tmp_path / "logs"
    for role in ("client", "scheduler", "worker"):
        named = key.security.get_tls_config_for_role(role)
        assert {named[what] for what in ("ca_file", "cert", "key")} == set(map(str, key.folder.iterdir()))
    key.remove()
    assert list((tmp_path / "logs").iterdir()) == []


def test_keys_that_are_valid_no_more_are_removed_and_no_others(key, tmp_path):
    old, new = (tmp_path / "logs" / f".gzscale-key-{name}" for name in ("old", "new"))
    for folder in (old, new):
        folder.mkdir()
    then = time.time() - 31 * 86_400
    os.utime(old, (then, then))
    make_key(tmp_path / "logs").remove()
    assert set((tmp_path / "logs").iterdir()) == {key.folder, new}


def test_a_job_that_does_not_see_it_says_so(tmp_path):
    made = make_key(tmp_path / "my logs; $(false)")
    script = "\n".join([*made.exports(), "echo key $DASK_DISTRIBUTED__COMM__TLS__WORKER__KEY"])
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, f"key {made.folder}/key.pem\n")
    made.remove()
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"{made.folder}, is not seen from here" in done.stderr


def test_a_node_whose_clock_is_a_day_behind_takes_it(key):
    certificate = x509.load_pem_x509_certificate((key.folder / "certificate.pem").read_bytes())
    now = datetime.datetime.now(datetime.UTC)
    assert certificate.not_valid_before_utc < now - datetime.timedelta(days=1)
    assert certificate.not_valid_after_utc > now + datetime.timedelta(days=29)


@pytest.mark.slow
def test_nothing_runs_for_who_has_another_key_or_none(key, tmp_path):
    options = {"n_workers": 1, "threads_per_worker": 1, "processes": False, "dashboard_address": None}
    with LocalCluster(security=key.security, protocol="tls://", **options) as cluster:
        address = cluster.scheduler_address
        with Client(address, security=key.security, timeout=60, set_as_default=False) as client:
            assert client.submit(sum, [1, 2]).result(timeout=60) == 3
        other = make_key(tmp_path)
        for where, security in ((address, other.security), (address.replace("tls:", "tcp:"), None)):
            with pytest.raises(OSError, match=r"Timed out|TLS certificate does not|Connection"):
                Client(where, security=security, timeout=3, set_as_default=False)
