"""Clusters of this machine: both kinds on cores, one kind a device, schedulers that do not answer."""

import os
import sys
from types import ModuleType

import pytest

from gzscale.cluster import count_slots, open_cluster
from gzscale.clusters import local
from gzscale.clusters.presets import AddressPreset, CudaPreset
from gzscale.clusters.workers import ENVIRONMENT
from gzscale.errors import ClusterError


def write(folder, text):
    path = folder / "preset.yaml"
    path.write_text(text)
    return str(path)


def malloc_settings():
    return {name: value for name, value in os.environ.items() if name.startswith("MALLOC_")}


def seen_devices(dask_worker):
    return dask_worker.name, os.environ.get("CUDA_VISIBLE_DEVICES")


@pytest.fixture
def two_gpus(monkeypatch):
    """A stand-in of dask-cuda: workers named by their device, that see it alone."""
    from distributed import LocalCluster
    from distributed.system import MEMORY_LIMIT

    class LocalCUDACluster(LocalCluster):
        def __init__(self, CUDA_VISIBLE_DEVICES=None, memory_limit="auto", **options):
            devices = CUDA_VISIBLE_DEVICES or [0, 1]
            # As dask-cuda does: each an equal share of all memory, whatever else runs.
            limit = MEMORY_LIMIT // len(devices) if memory_limit == "auto" else memory_limit
            super().__init__(n_workers=0, memory_limit=limit, **options)
            spec = self.new_spec
            for device in devices:
                own = {**spec["options"], "env": {"CUDA_VISIBLE_DEVICES": str(device)}}
                self.worker_spec[device] = {**spec, "options": own}
            self.scale(len(self.worker_spec))

    module = ModuleType("dask_cuda")
    module.LocalCUDACluster = LocalCUDACluster
    utils = ModuleType("dask_cuda.utils")
    utils.get_n_gpus = lambda: 2
    monkeypatch.setitem(sys.modules, "dask_cuda", module)
    monkeypatch.setitem(sys.modules, "dask_cuda.utils", utils)


@pytest.mark.slow
@pytest.mark.parametrize("gpus", [None, [0]])
def test_those_that_predict_and_those_that_cut_share_the_memory(two_gpus, gpus):
    from distributed.system import MEMORY_LIMIT

    workers = local.make_cuda(CudaPreset(gpus=gpus, cut_workers=2))
    try:
        limits = [item["options"]["memory_limit"] for item in workers.target.worker_spec.values()]
    finally:
        workers.close()
    assert len(limits) == 2 + len(gpus or [0, 1])
    assert 0.99 * MEMORY_LIMIT < sum(limits) <= MEMORY_LIMIT


@pytest.mark.parametrize(
    ("limit", "gpus", "cutters", "shares"),
    [
        (64, 1, 31, (8, 56 / 31)),
        (64, 8, 24, (4, 32 / 24)),
        (512, 2, 6, (64, 64)),
        (4, 1, 1, (2, 2)),
    ],
)
def test_a_gpu_s_worker_has_memory_for_its_libraries_on_a_host_of_many_cores(limit, gpus, cutters, shares):
    found = local.share_memory(limit * 2**30, gpus, cutters)
    assert found == tuple(int(share * 2**30) for share in shares)


@pytest.mark.slow
def test_gpus_predict_and_cores_that_see_none_cut(two_gpus):
    from distributed import Client

    workers = local.make_cuda(CudaPreset(gpus=[0], cut_workers=1))
    try:
        with Client(workers.target, set_as_default=False) as client:
            client.wait_for_workers(2, timeout=120)
            info = client.scheduler_info(n_workers=-1)["workers"]
            assert {worker["name"]: worker["resources"] for worker in info.values()} == {
                0: {"PREDICT": 1.0},
                "cut-0": {"CUT": 1.0},
            }
            assert sorted(client.run(seen_devices).values(), key=str) == [("cut-0", ""), (0, "0")]
            assert count_slots(client) == {"CUT": 1, "PREDICT": 1}
    finally:
        workers.close()


@pytest.mark.slow
def test_a_gpu_that_does_not_work_is_an_error_before_the_night(two_gpus, tmp_path):
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU, and it works")
    path = write(tmp_path, "kind: cuda\ngpus: [0]\ncut_workers: 1\n")
    with pytest.raises(ClusterError, match=r"none that works.*nvidia-smi"), open_cluster(path):
        pass


@pytest.mark.slow
@pytest.mark.parametrize(("number", "seen"), [(2, [""]), (1, ["0"])])
def test_several_local_processes_see_no_gpu(tmp_path, monkeypatch, caplog, number, seen):
    """Each would have a context of its own on the first; one alone may use it."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setattr(local, "_A_GPU", tmp_path)
    path = write(tmp_path, f"kind: local\nworkers: {number}\n")
    with open_cluster(path) as cluster:
        found = {device for _, device in cluster.client.run(seen_devices).values()}
    assert sorted(found) == seen
    assert ("--cluster cuda works on it" in caplog.text) == (number > 1)


def test_without_dask_cuda_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "dask_cuda", None)
    with pytest.raises(ClusterError, match=r"install gzscale\[gpu\]"), open_cluster("cuda"):
        pass


@pytest.mark.parametrize("gpus", [None, [0]])
def test_without_a_driver_it_says_so(monkeypatch, gpus):
    def broken(**options):
        raise RuntimeError("NVML library not found")

    module, utils = ModuleType("dask_cuda"), ModuleType("dask_cuda.utils")
    module.LocalCUDACluster = utils.get_n_gpus = broken
    monkeypatch.setitem(sys.modules, "dask_cuda", module)
    monkeypatch.setitem(sys.modules, "dask_cuda.utils", utils)
    with pytest.raises(ClusterError, match="NVML library not found; is there a GPU, and its driver"):
        local.make_cuda(CudaPreset(gpus=gpus))


def test_a_scheduler_that_does_not_answer(monkeypatch):
    monkeypatch.setattr("gzscale.cluster.CONNECT_TIMEOUT", 1)
    said = r"no scheduler answers at tcp://127.0.0.1:1 within 1 s"
    with pytest.raises(ClusterError, match=said), open_cluster("tcp://127.0.0.1:1"):
        pass


@pytest.mark.slow
def test_workers_of_one_kind_alone_are_not_enough(tmp_path):
    from distributed import LocalCluster

    with LocalCluster(
        n_workers=1,
        threads_per_worker=1,
        resources={"CUT": 1},
        dashboard_address=None,
        processes=False,
        protocol="tcp://",
    ) as cluster:
        path = write(tmp_path, f"kind: address\naddress: {cluster.scheduler.address}\nstart_timeout: 1\n")
        with pytest.raises(ClusterError, match=r"1 of CUT, 0 of PREDICT.*--resources"), open_cluster(path):
            pass


@pytest.mark.slow
def test_processes_are_started_with_settings_of_malloc_and_not_with_dasks(tmp_path, monkeypatch):
    # What the environment says goes first, and Dask leaves its own there once it has started a process.
    for name in ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
    path = write(tmp_path, "kind: local\nworkers: 1\n")
    with open_cluster(path) as cluster:
        (found,) = cluster.client.run(malloc_settings).values()
    assert found == ENVIRONMENT


def test_tls_files_are_handed_on(tmp_path):
    pems = {name: str(tmp_path / f"{name}.pem") for name in ("ca_file", "certificate", "key")}
    workers = local.reach_address(AddressPreset(kind="address", address="tls://host:1", **pems))
    config = workers.security.get_tls_config_for_role("client")
    assert {key: config[key] for key in ("ca_file", "cert", "key")} == {
        "ca_file": pems["ca_file"],
        "cert": pems["certificate"],
        "key": pems["key"],
    }
    assert workers.security.require_encryption is True
    assert local.reach_address(AddressPreset(kind="address", address="tcp://h:1")).security is None
