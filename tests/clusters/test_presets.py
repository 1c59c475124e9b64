"""Presets: those that are shipped hold, a wrong one says what is wrong, names are found in order."""

import os
from pathlib import Path

import pytest

from gzscale.clusters.presets import (
    AddressPreset,
    CudaPreset,
    KubernetesPreset,
    LocalPreset,
    SlurmPreset,
    find_presets,
    load_preset,
)
from gzscale.clusters.walltimes import walltime_seconds
from gzscale.errors import ClusterError

SHIPPED = sorted((Path(__file__).parents[2] / "deploy" / "clusters").glob("*.yaml"))
SLURM = 'kind: slurm\ncut: {memory: 4GB, walltime: "01:00:00"}\n'


def write(folder, text, name="site.yaml"):
    path = folder / name
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_what_is_shipped_is_found_by_name(path):
    assert find_presets({})[path.stem].samefile(path)
    assert load_preset(path.stem) == load_preset(str(path))


def test_gpus_are_wanted_where_a_preset_names_them():
    wanting = {path.stem for path in SHIPPED if load_preset(path.stem).wants_gpu}
    assert wanting == {"workstation", "slurm-gpu", "kubernetes"}


def test_names_that_need_no_file(tmp_path, monkeypatch):
    monkeypatch.setattr("gzscale.clusters.presets.find_presets", dict)
    assert load_preset("local") == LocalPreset()
    assert load_preset("cuda") == CudaPreset()


def test_a_site_s_own_folder_goes_before_what_is_shipped(tmp_path, monkeypatch):
    own = tmp_path / "own"
    own.mkdir()
    write(own, "kind: local\nworkers: 7\n", "local.yaml")
    monkeypatch.setenv("GZSCALE_CLUSTER_PRESETS", f"{tmp_path}/none{os.pathsep}{own}")
    assert load_preset("local").workers == 7
    assert isinstance(load_preset("slurm-cpu"), SlurmPreset)


def test_an_address_is_a_preset_of_its_own():
    assert load_preset("tcp://host:8786") == AddressPreset(kind="address", address="tcp://host:8786")
    with pytest.raises(ClusterError, match="needs ca_file, certificate and key"):
        load_preset("tls://host:8786")


def test_files_are_relative_to_the_preset(tmp_path):
    preset = load_preset(write(tmp_path, "kind: kubernetes\nmanifest: dask.yaml\n"))
    assert isinstance(preset, KubernetesPreset)
    assert preset.manifest == str(tmp_path / "dask.yaml")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("kind: lokal\n", "one of local, cuda, slurm, kubernetes, address"),
        ("- local\n", "expected `kind`"),
        ("kind: local\nworker: 3\n", "worker: unknown key; did you mean workers?"),
        ("kind: local\nworkers: 0\n", "workers: .*greater than or equal to 1"),
        ("kind: local\nworkers: four\n", "workers: .*found 'four'"),
        ("kind: local\nscratch_free: much\n", "not a number of bytes"),
        ("kind: slurm\n", "cut: is needed"),
        ("kind: local\nmemory: 4 bananas\n", "memory: .*not a number of bytes"),
        (SLURM.replace("4GB", "4 gigs"), "cut.memory: .*not a number of bytes"),
        (SLURM.replace("01:00:00", "1h"), "cut.walltime: .*HH:MM:SS"),
        (SLURM.replace("01:00:00", "00:00:10"), "less than a minute"),
        (SLURM.replace("{memory", "{minimum: 4, maximum: 2, memory"), "maximum 2 is less than minimum 4"),
        (SLURM.replace("{memory", "{queue: x, memory"), "cut.queue: unknown key"),
        ("kind: address\naddress: host:8786\n", "expected tcp://host:port"),
        ("kind: address\naddress: tcp://h:1\nkey: k.pem\n", "are for a tls:// address"),
        ("kind: kubernetes\n", "manifest: is needed"),
        ("kind: [local\n", "cannot be read as a preset"),
    ],
)
def test_a_wrong_preset_says_what_is_wrong(tmp_path, text, said):
    with pytest.raises(ClusterError, match=said):
        load_preset(write(tmp_path, text))


def test_an_unknown_name_is_told_what_is_known(tmp_path):
    with pytest.raises(ClusterError, match=r"known are .*cuda.*local.*slurm-cpu"):
        load_preset("slrum")
    with pytest.raises(ClusterError, match="cannot be read"):
        load_preset(str(tmp_path / "absent.yaml"))
    with pytest.raises(ClusterError, match="200000 bytes"):
        load_preset(write(tmp_path, "#" * 200_000))


@pytest.mark.parametrize(
    ("text", "written", "seconds"),
    [
        ("2", "00:02:00", 120),
        ("600", "10:00:00", 36_000),
        ("02:00", "00:02:00", 120),
        ("90:30", "01:30:30", 5430),
        ("2:00:00", "02:00:00", 7200),
        ("30:00:00", "1-06:00:00", 108_000),
        ("1-2", "1-02:00:00", 93_600),
        ("1-02:30", "1-02:30:00", 95_400),
        ("1-02:30:15", "1-02:30:15", 95_415),
        ("0-12", "12:00:00", 43_200),
    ],
)
def test_walltimes_mean_what_sbatch_takes_them_for(tmp_path, text, written, seconds):
    assert walltime_seconds(text) == seconds
    pool = load_preset(write(tmp_path, SLURM.replace("01:00:00", text))).cut
    assert pool.walltime == written
