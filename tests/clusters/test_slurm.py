"""SLURM: what is submitted, refused before, waited for and renewed; against stand-ins of its commands.

Where the environment names a partition of a real SLURM (GZSCALE_TEST_SLURM), jobs run there as well.
"""

import os
import shlex
import stat
import subprocess
import threading
import time
import urllib.error
import urllib.request
from types import SimpleNamespace

import click
import pytest
from distributed import Client
from distributed.preloading import validate_preload_argv

from gzscale.cluster import open_cluster
from gzscale.clusters import slurm, slurm_site
from gzscale.clusters.presets import load_preset
from gzscale.clusters.workers import ENVIRONMENT
from gzscale.errors import ClusterError

pytest.importorskip("dask_jobqueue")

POOL = 'partition: survey, cores: 2, memory: 4GB, walltime: "01:00:00"'


@pytest.fixture
def commands(tmp_path, monkeypatch):
    """Stand-ins that answer from files and note how they were called."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("sinfo", "squeue", "sbatch", "scancel", "scontrol"):
        path = folder / name
        path.write_text(
            f'#!/bin/sh\necho "$@" >> {folder}/{name}.calls\n'
            f'for last in "$@"; do :; done; [ -f "$last" ] && cat "$last" >> {folder}/{name}.script\n'
            f"[ -f {folder}/{name}.error ] && {{ cat {folder}/{name}.error >&2; exit 1; }}\n"
            f'case "$*" in *--Node*) cat {folder}/nodes.answer; exit 0;; esac\n'
            f"[ -f {folder}/{name}.answer ] && cat {folder}/{name}.answer; exit 0\n"
        )
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    (folder / "sinfo.answer").write_text(
        "survey|2:00:00|(null)\ndebug|30:00|(null)\ngpu|infinite|gpu:a100:4\nhidden|n/a|(null)\n"
    )
    (folder / "sbatch.answer").write_text("Submitted batch job 17\n")
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


def preset(folder, text):
    path = folder / "site.yaml"
    logs = "" if "logs:" in text else f"logs: {folder}\n"
    path.write_text(f"kind: slurm\nstart_timeout: 3\ninterface: lo\n{logs}{text}")
    return load_preset(str(path))


def script_of(chosen, kind):
    from dask_jobqueue.slurm import SLURMJob

    pool = getattr(chosen, kind.lower())
    return SLURMJob("tcp://h:1", name="x", **slurm.job_options(chosen, kind, pool)).job_script()


def test_jobs_that_cut_ask_for_cores_and_jobs_that_predict_for_gpus(tmp_path):
    chosen = preset(
        tmp_path,
        f"cut: {{{POOL}}}\n"
        'predict: {partition: gpu, account: vo, gpus: 2, cores: 8, memory: 64GB, walltime: "1-00:00:00", '
        "nodes: n1, constraint: a100, directives: [--exclusive]}\n",
    )
    cut, predict = script_of(chosen, "CUT"), script_of(chosen, "PREDICT")
    assert "#SBATCH -p survey\n" in cut
    assert "--cpus-per-task=2" in cut
    assert "distributed.cli.dask_worker" in cut
    assert "--nworkers 2" in cut
    assert '--resources "CUT=1"' in cut
    assert "gpu" not in cut
    for line in ("-p gpu", "-A vo", "--cpus-per-task=8", "--gres=gpu:2", "--nodelist=n1", "--exclusive"):
        assert f"#SBATCH {line}\n" in predict
    for script in (cut, predict):
        for name, value in ENVIRONMENT.items():
            assert script.index(f"export {name}={value}\n") < script.index("tcp://h:1")
    assert '--resources "PREDICT=1"' in predict


def gpu_worker():
    """The command that ``python -m dask_cuda.cli`` is, or one with its signature in dask-cuda 26.10."""
    try:
        from dask_cuda.cli import worker
    except ImportError:
        texts = ("host", "name", "memory-limit", "resources", "local-directory", "interface", "death-timeout")
        parameters = [
            click.Argument(["scheduler"], required=False),
            click.Argument(
                ["preload_argv"], nargs=-1, type=click.UNPROCESSED, callback=validate_preload_argv
            ),
            click.Option(["--nthreads"], type=int, default=1),
            click.Option(["--preload"], multiple=True, is_eager=True),
            *(click.Option([f"--{text}"]) for text in texts),
        ]
        settings = {"ignore_unknown_options": True}
        return click.Command("worker", params=parameters, context_settings=settings)
    return worker


def test_the_command_of_gpu_jobs_is_understood_by_dask_cuda(tmp_path):
    chosen = preset(
        tmp_path,
        f"scratch: /scratch\ncut: {{{POOL}}}\n"
        'predict: {gpus: 2, cores: 8, memory: 64GB, walltime: "01:00:00"}\n',
    )
    (line,) = [line for line in script_of(chosen, "PREDICT").splitlines() if "tcp://h:1" in line]
    _python, flag, module, *arguments = shlex.split(line)
    assert (flag, module) == ("-m", "dask_cuda.cli")
    understood = gpu_worker().make_context("worker", arguments).params
    assert understood["preload_argv"] == ()
    expected = {
        "scheduler": "tcp://h:1",
        "name": "x",
        "nthreads": 1,
        "memory_limit": "29.80GiB",
        "resources": "PREDICT=1",
        "local_directory": "/scratch",
        "interface": "lo",
    }
    assert {key: understood[key] for key in expected} == expected


@pytest.mark.parametrize(
    ("walltime", "seconds"), [("00:01:00", 60), ("01:00:00", 3600), ("7-00:00:00", 604_800)]
)
def test_workers_leave_before_the_walltime(tmp_path, walltime, seconds):
    chosen = preset(tmp_path, f"cut: {{memory: 1GB, walltime: '{walltime}'}}\n")
    script = script_of(chosen, "CUT")
    duration, stagger = (
        int(script.split(f'LIFETIME__{word}="')[1].split(" ")[0]) for word in ("DURATION", "STAGGER")
    )
    assert seconds / 2 < duration + stagger < seconds
    assert seconds - duration - stagger >= min(600, seconds / 10)


def test_the_walltime_is_told_to_slurm_in_full(tmp_path):
    script = script_of(preset(tmp_path, "cut: {memory: 1GB, walltime: '90:00'}\n"), "CUT")
    assert "#SBATCH -t 01:30:00\n" in script
    assert 'LIFETIME__DURATION="4725 seconds"' in script


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            f"cut: {{{POOL}}}\n".replace("survey", "surwey"),
            "'surwey' does not exist; sinfo knows debug, gpu, hidden, survey",
        ),
        (f"cut: {{{POOL}}}\n".replace("01:00", "03:00"), "longer than partition 'survey' allows"),
        (f"cut: {{{POOL}}}\n".replace("survey", "debug"), r"longer than partition 'debug' allows \(30:00\)"),
        (f"cut: {{{POOL}, gpus: 1}}\n", "partition 'survey' has none; those with GPUs: gpu"),
        (f"cut: {{{POOL}}}\n".replace("survey", '"survey,night"'), "'night' does not exist"),
        (
            f"cut: {{{POOL}}}\n".replace("survey", '"survey,debug"').replace("01:00", "03:00"),
            r"partition 'survey,debug' allows \(2:00:00, 30:00\)",
        ),
        (f"cut: {{{POOL}, gpus: 1}}\n".replace("survey", '"survey,debug"'), "'survey,debug' has none"),
    ],
)
def test_a_preset_that_the_site_does_not_fit_is_refused(commands, tmp_path, text, said):
    with pytest.raises(ClusterError, match=said):
        slurm.make_slurm(preset(tmp_path, text))
    assert not (commands / "sbatch.calls").exists()


@pytest.mark.parametrize(
    "pool",
    [
        'partition: "debug,survey", walltime: "01:00:00"',
        'partition: "survey,gpu", gpus: 1, walltime: "01:00:00"',
        'partition: hidden, walltime: "9-00:00:00"',
        'walltime: "9-00:00:00"',
    ],
)
def test_several_partitions_hidden_ones_and_those_without_a_limit_will_do(commands, tmp_path, pool):
    chosen = preset(tmp_path, f"cut: {{memory: 4GB, {pool}}}\n")
    slurm_site.check_partitions({"CUT": chosen.cut})
    assert "--all" in (commands / "sinfo.calls").read_text()


@pytest.mark.parametrize(
    ("meant", "directives"),
    [
        ("n2", ["--nodelist=n[2]"]),
        ("n1 n2", ["--exclude=n3,n4"]),
        ("n1 n2 n3 n4", []),
    ],
)
def test_a_job_runs_on_one_of_the_nodes_and_not_on_all(commands, tmp_path, meant, directives):
    """sbatch gives a job every node that --nodelist names."""
    (commands / "scontrol.answer").write_text(meant.replace(" ", "\n"))
    (commands / "nodes.answer").write_text("n1\nn2\nn3\nn4\nn4\n")
    listed = f"n[{meant.replace('n', '').replace(' ', ',')}]"
    chosen = preset(tmp_path, f'cut: {{{POOL}, nodes: "{listed}"}}\n')
    script = script_of(chosen, "CUT")
    found = [line.removeprefix("#SBATCH ") for line in script.splitlines()]
    assert [line for line in found if line.startswith(("--nodelist", "--exclude"))] == directives
    assert (commands / "scontrol.calls").read_text() == f"show hostnames {listed}\n"


def test_nodes_that_the_site_does_not_have_are_refused(commands, tmp_path):
    (commands / "scontrol.answer").write_text("n1\nn9\n")
    (commands / "nodes.answer").write_text("n1\nn2\n")
    with pytest.raises(ClusterError, match=r"n9 of nodes 'n\[1,9\]' are none of this site's"):
        script_of(preset(tmp_path, f'cut: {{{POOL}, nodes: "n[1,9]"}}\n'), "CUT")


def test_what_slurm_itself_refuses_is_told_in_its_words(commands, tmp_path):
    (commands / "sbatch.error").write_text("allocation failure: Invalid account\n")
    with pytest.raises(ClusterError, match=r"refuse the jobs of `cut`.*Invalid account"):
        slurm.make_slurm(preset(tmp_path, f"cut: {{{POOL}}}\n"))
    assert (commands / "sbatch.calls").read_text() == "--test-only\n"


def test_a_network_that_this_host_does_not_have_is_told(commands, tmp_path):
    path = tmp_path / "preset.yaml"
    path.write_text('kind: slurm\ninterface: ib9\ncut: {memory: 1GB, walltime: "00:10:00"}\n')
    with pytest.raises(ClusterError, match=r"interface 'ib9' one of its networks"), open_cluster(str(path)):
        pass


def test_without_sbatch_it_is_no_submit_host(monkeypatch, tmp_path):
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(ClusterError, match="submit host"):
        slurm.make_slurm(preset(tmp_path, f"cut: {{{POOL}}}\n"))


def test_jobs_that_stay_in_the_queue_are_told_with_slurm_s_reason(commands, tmp_path):
    (commands / "squeue.answer").write_text("17|PENDING|QOSMaxJobsPerUserLimit\n99|RUNNING|None\n")
    preset(tmp_path, f"cut: {{{POOL}}}\n")
    said = r"0 of CUT, 0 of PREDICT.*job 17 \(cut-1\) PENDING \(QOSMaxJobsPerUserLimit\)$"
    with pytest.raises(ClusterError, match=said), open_cluster(str(tmp_path / "site.yaml")):
        pass
    assert "17" in (commands / "scancel.calls").read_text()


def test_jobs_bring_the_key_that_the_scheduler_asks_for(commands, tmp_path):
    (commands / "squeue.answer").write_text("17|PENDING|Priority\n")
    logs = tmp_path / "my logs"
    workers = slurm.make_slurm(preset(tmp_path, f"logs: {logs}\ncut: {{{POOL}}}\npredict: {{{POOL}}}\n"))
    try:
        assert workers.target.scheduler_address.startswith("tls://")
        assert not workers.target.scheduler.http_application.applications
        _wait_for(lambda: len(workers.target.workers) == 2)
        (folder,) = logs.glob(".gzscale-key-*")
        scripts = (commands / "sbatch.script").read_text().split("#!")
        asked = [script for script in scripts if "tls://" in script]
        assert len(asked) == 2
        for script in asked:
            assert f"test -r {shlex.quote(f'{folder}/key.pem')} ||" in script
            assert f"TLS__WORKER__KEY={shlex.quote(f'{folder}/key.pem')}" in script
            assert "--no-dashboard" in script
            assert "WORKER__HTTP__ROUTES='[]'" in script
            assert "PRIVATE" not in script
    finally:
        workers.close()
    assert not list(logs.glob(".gzscale-key-*"))


def test_without_a_key_where_the_preset_says_so(commands, tmp_path):
    workers = slurm.make_slurm(preset(tmp_path, f"logs: {tmp_path}\ntls: false\ncut: {{{POOL}}}\n"))
    try:
        assert workers.target.scheduler_address.startswith("tcp://")
    finally:
        workers.close()
    assert "TLS" not in (commands / "sbatch.script").read_text()


def test_a_folder_that_takes_no_key(commands, tmp_path):
    (tmp_path / "logs").write_text("a file")
    with pytest.raises(ClusterError, match=r"the key of this night cannot be written.*tls: false"):
        slurm.make_slurm(preset(tmp_path, f"logs: {tmp_path / 'logs'}\ncut: {{{POOL}}}\n"))


def test_a_job_that_is_gone_is_submitted_again_and_surplus_is_cancelled(commands, tmp_path, monkeypatch):
    (commands / "squeue.answer").write_text("17|RUNNING|None\n")
    workers = slurm.make_slurm(preset(tmp_path, f"cut: {{{POOL}, minimum: 1, maximum: 3}}\n"))

    def submitted(number):
        deadline = time.monotonic() + 60
        while len((commands / "sbatch.calls").read_text().splitlines()) < 1 + number:
            assert time.monotonic() < deadline
            time.sleep(0.05)

    try:
        submitted(1)
        _wait_for(lambda: workers.target.workers)
        assert workers.renew() == 0
        (commands / "squeue.answer").write_text("")
        assert workers.renew() == 0  # squeue may not know it yet.
        monkeypatch.setattr(slurm, "GRACE", 0.0)
        assert workers.renew() == 1
        submitted(2)
        _wait_for(lambda: workers.target.workers)
        (commands / "squeue.answer").write_text("17|RUNNING|None\n")
        assert workers.renew() == 0
        # As Dask does with a job whose workers have left:
        before = set(workers.target.worker_spec)
        workers.target.workers.clear()
        assert workers.renew() == 1
        submitted(3)
        # Dask may yet cancel, by its name, the job that it has lost.
        assert before.isdisjoint(workers.target.worker_spec)
        workers.scale("CUT", 9)  # three at most
        submitted(5)
        _wait_for(lambda: len(workers.target.workers) == 3)
        workers.scale("CUT", 1)
        _wait_for(lambda: len(workers.target.workers) == 1)
    finally:
        workers.close()


def test_jobs_that_are_being_submitted_are_not_asked_for_again(commands, tmp_path, monkeypatch):
    gate = tmp_path / "gate"
    sbatch = commands / "sbatch"
    waiting = f"case $1 in --test-only) ;; *) until [ -f {gate} ]; do sleep 0.05; done;; esac\n"
    sbatch.write_text(sbatch.read_text().replace("#!/bin/sh\n", f"#!/bin/sh\n{waiting}", 1))
    (commands / "squeue.answer").write_text("17|PENDING|Priority\n")
    workers = slurm.make_slurm(preset(tmp_path, f"cut: {{{POOL}, minimum: 2}}\n"))
    try:
        asked = list(workers.target.worker_spec)
        assert workers.renew() == 0
        assert list(workers.target.worker_spec) == asked
        monkeypatch.setattr(slurm, "SUBMISSION", 0.0)
        assert workers.renew() == 2
        assert not set(asked) & set(workers.target.worker_spec)
    finally:
        gate.touch()
        workers.close()


def test_jobs_that_wait_for_the_submission_of_others_are_not_asked_for_again(commands, tmp_path, monkeypatch):
    workers = slurm.make_slurm(preset(tmp_path, f"cut: {{{POOL}, maximum: 3}}\n"))
    target = workers.target
    try:
        _wait_for(lambda: target.workers)
        job, now = target.workers["cut-1"], [time.monotonic()]
        with monkeypatch.context() as patch:
            patch.setattr(slurm, "time", SimpleNamespace(monotonic=lambda: now[0]))
            patch.setattr(workers, "_queue", lambda: {"17": "PENDING (Priority)"})
            patch.setattr(workers, "_correct", lambda: None)  # sbatch takes its time.
            assert workers.renew() == 0
            workers.scale("CUT", 3)
            now[0] += slurm.SUBMISSION - 1
            target.workers["cut-2"] = job
            assert workers.renew() == 0
            now[0] += slurm.SUBMISSION - 1
            assert workers.renew() == 0
            now[0] += 1
            assert workers.renew() == 1
            assert list(target.worker_spec) == ["cut-1", "cut-2", "cut-4"]
            # One that was submitted and is struck off is gone, whatever else moves.
            del target.workers["cut-2"]
            target.workers["cut-4"] = job
            assert workers.renew() == 1
            assert list(target.worker_spec) == ["cut-1", "cut-4", "cut-5"]
        del target.workers["cut-4"]
    finally:
        workers.close()


def test_many_jobs_that_end_together_are_one_renewal(commands, tmp_path, monkeypatch):
    monkeypatch.setattr(slurm, "GRACE", 0.0)
    monkeypatch.setattr(slurm, "RENEWALS", 2)
    (commands / "squeue.answer").write_text("")
    workers = slurm.make_slurm(preset(tmp_path, f"cut: {{{POOL}, minimum: 3}}\n"))
    try:
        for renewed in (3, 3, 0):
            _wait_for(lambda: set(workers.target.workers) == set(workers.target.worker_spec))
            assert workers.renew() == renewed
    finally:
        workers.close()


HELD = threading.Event()


def hold():
    assert HELD.wait(30)
    return 3


def test_jobs_with_the_least_to_do_are_let_go_and_what_they_have_in_hand_goes_on(commands, tmp_path):
    HELD.clear()
    chosen = preset(tmp_path, f"cut: {{{POOL}, maximum: 4}}\n".replace("cores: 2", "cores: 1"))
    workers = slurm.make_slurm(chosen)
    target = workers.target
    with Client(target, set_as_default=False) as client:
        try:
            workers.scale("CUT", 4)
            for name in ("cut-3", "cut-4"):
                target.sync(_start, target, name)
            futures = [client.submit(hold, resources={"CUT": 1}, pure=False) for _ in range(2)]
            _wait_for(lambda: sum(bool(ws.processing) for ws in target.scheduler.workers.values()) == 2)
            # One in the queue, one without work, two at work.
            target.sync(_start, target, "cut-2")
            workers.scale("CUT", 3)
            assert set(target.worker_spec) == {"cut-2", "cut-3", "cut-4"}
            workers.scale("CUT", 2)
            assert set(target.worker_spec) == {"cut-3", "cut-4"}
            workers.scale("CUT", 1)
            assert set(target.worker_spec) == {"cut-3"}
            assert {ws.name for ws in target.scheduler.workers.values()} == {"cut-3"}
            assert [target.scheduler.tasks[future.key].suspicious for future in futures] == [0, 0]
            HELD.set()
            assert client.gather(futures) == [3, 3]
        finally:
            HELD.set()
            workers.close()


async def _start(target, name):
    from distributed import Worker

    options = {"nthreads": 1, "resources": {"CUT": 1}, "dashboard": False, "security": target.security}
    return await Worker(target.scheduler_address, name=name, protocol="tls://", **options)


def test_a_job_s_workers_are_known_by_its_name(commands, tmp_path):
    def worker(name, tasks):
        return SimpleNamespace(name=name, address=f"tcp://{name}", processing=range(tasks))

    workers = slurm.make_slurm(preset(tmp_path, f"cut: {{{POOL}}}\n"))
    try:
        names = ["cut-1-0", "cut-1-1", "cut-10-0", "cut-11", "predict-1-0"]
        found = {name: worker(name, len(name)) for name in names}
        workers.target.scheduler, scheduler = SimpleNamespace(workers=found), workers.target.scheduler
        assert workers._workers_of("cut-1") == {"tcp://cut-1-0": 7, "tcp://cut-1-1": 7}
        workers.target.scheduler = scheduler
    finally:
        workers.close()


def _wait_for(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.slow
def test_real_jobs(tmp_path):
    partition = os.environ.get("GZSCALE_TEST_SLURM")
    if not partition:
        pytest.skip("GZSCALE_TEST_SLURM names no partition of a real SLURM")
    path = tmp_path / "real.yaml"
    path.write_text(
        f"kind: slurm\nstart_timeout: 240\ninterface: lo\nlogs: {tmp_path}\n"
        f'cut: {{partition: {partition}, memory: 1GB, walltime: "00:10:00"}}\n'
        f'predict: {{partition: {partition}, memory: 1GB, walltime: "00:10:00"}}\n'
    )
    with open_cluster(str(path)) as cluster:
        both = {
            worker["name"]: worker["resources"]
            for worker in cluster.client.scheduler_info(n_workers=-1)["workers"].values()
        }
        assert cluster.client.scheduler.address.startswith("tls://")
        pages = cluster.client.run(lambda dask_worker: dask_worker.http_server.port)
        for port in pages.values():
            for page in ("status", "metrics", "info"):
                with pytest.raises(urllib.error.HTTPError, match="404"):
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/{page}", timeout=5)
        assert both == {"cut-1": {"CUT": 1.0}, "predict-2": {"PREDICT": 1.0}}
        assert cluster.compute.startswith("cpu")
    queue = subprocess.run(
        ["squeue", "--me", "--noheader", "--name=gzscale-cut"], capture_output=True, text=True
    )
    assert queue.stdout.strip() == "" or "CG" in queue.stdout
