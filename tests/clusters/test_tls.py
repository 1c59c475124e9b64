"""A scheduler that speaks TLS alone: reached with its certificates, and with no others."""

import dask
import pytest
from distributed import LocalCluster, Security

from gzscale.cluster import open_cluster
from gzscale.clusters.workers import KINDS
from gzscale.errors import ClusterError

pytest.importorskip("cryptography")
pytestmark = pytest.mark.slow


def write_pems(folder, security):
    """Write an authority, a client's certificate and its key; return the settings that name them."""
    folder.mkdir()
    texts = {
        "ca_file": security.tls_ca_file,
        "certificate": security.tls_client_cert,
        "key": security.tls_client_key,
    }
    for name, text in texts.items():
        (folder / f"{name}.pem").write_text(text)
    return {name: f"{folder.name}/{name}.pem" for name in texts}


def write_preset(folder, address, files):
    path = folder / "site.yaml"
    lines = {"kind": "address", "address": address, "start_timeout": 60, **files}
    path.write_text("".join(f"{key}: {value}\n" for key, value in lines.items()))
    return str(path)


@pytest.fixture(scope="module")
def security():
    return Security.temporary()


@pytest.fixture(scope="module")
def address(security):
    with LocalCluster(
        n_workers=1,
        threads_per_worker=1,
        resources=dict.fromkeys(KINDS, 1),
        security=security,
        protocol="tls://",
        processes=False,
        dashboard_address=None,
    ) as cluster:
        yield cluster.scheduler_address


def test_a_preset_with_the_scheduler_s_certificates_reaches_it(tmp_path, security, address):
    assert address.startswith("tls://")
    path = write_preset(tmp_path, address, write_pems(tmp_path / "pem", security))
    with open_cluster(path) as cluster:
        assert cluster.client.submit(sum, [1, 2], resources={"CUT": 1}).result(timeout=60) == 3
        (worker,) = cluster.client.scheduler_info(n_workers=-1)["workers"]
        assert worker.startswith("tls://")


def test_an_address_alone_is_reached_with_the_certificates_of_dask_s_configuration(
    tmp_path, security, address
):
    files = write_pems(tmp_path / "pem", security)
    places = {"ca_file": "ca-file", "certificate": "client.cert", "key": "client.key"}
    settings = {f"distributed.comm.tls.{places[name]}": str(tmp_path / file) for name, file in files.items()}
    with dask.config.set(settings), open_cluster(address) as cluster:
        assert cluster.compute.startswith("cpu")


@pytest.mark.parametrize("protocol", ["tls", "tcp"])
def test_other_certificates_and_none_do_not_reach_it(tmp_path, address, monkeypatch, protocol):
    monkeypatch.setattr("gzscale.cluster.CONNECT_TIMEOUT", 3)
    files = write_pems(tmp_path / "pem", Security.temporary()) if protocol == "tls" else {}
    path = write_preset(tmp_path, address.replace("tls:", f"{protocol}:"), files)
    said = rf"no scheduler answers at {protocol}://.*for tls:// the certificates"
    with pytest.raises(ClusterError, match=said), open_cluster(path):
        pass
