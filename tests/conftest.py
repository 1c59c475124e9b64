"""Fixtures of all tests: an S3 with a fresh bucket, a server that fails on purpose."""

from __future__ import annotations

import os
import subprocess
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from faults import Backend, FaultyServer, relay
from web_server import LargeFile

# Tests show what is computed; how long an example takes on a busy machine says nothing of that.
hypothesis.settings.register_profile("suite", deadline=None)
hypothesis.settings.load_profile("suite")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files whose tests take longest: else one process waits for the other at the end."""
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[item.path])


STAND_IN_KEYS = {"aws_access_key_id": "test", "aws_secret_access_key": "testsecret"}


@dataclass(frozen=True)
class S3:
    """An S3 endpoint and a bucket of it that is this test's own."""

    endpoint: str
    bucket: str

    @property
    def url(self) -> str:
        return f"s3://{self.bucket}"


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """The endpoint that GZSCALE_TEST_S3 names, or a stand-in in this process."""
    given = os.environ.get("GZSCALE_TEST_S3")
    if given:
        yield given
        return
    server = pytest.importorskip("moto.server").ThreadedMotoServer(
        ip_address="127.0.0.1", port=0, verbose=False
    )
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(scope="session")
def s3_admin(s3_endpoint: str) -> Any:
    """A client of the endpoint that is not the one under test."""
    boto3 = pytest.importorskip("boto3")
    keys = {} if os.environ.get("GZSCALE_TEST_S3") else STAND_IN_KEYS
    return boto3.client("s3", endpoint_url=s3_endpoint, region_name="us-east-1", **keys)


@pytest.fixture
def s3(s3_endpoint: str, s3_admin: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3]:
    """A fresh bucket, with the environment set so that this process and its children reach it."""
    if not os.environ.get("GZSCALE_TEST_S3"):
        for name, value in STAND_IN_KEYS.items():
            monkeypatch.setenv(name.upper(), value)
        monkeypatch.delenv("AWS_SESSION_TOKEN", raising=False)
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_endpoint)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("no_proxy", "127.0.0.1,localhost")
    bucket = f"gzscale-{uuid.uuid4().hex[:12]}"
    s3_admin.create_bucket(Bucket=bucket)
    yield S3(s3_endpoint, bucket)
    for page in s3_admin.get_paginator("list_objects_v2").paginate(Bucket=bucket):
        for item in page.get("Contents", []):
            s3_admin.delete_object(Bucket=bucket, Key=item["Key"])
    s3_admin.delete_bucket(Bucket=bucket)


@pytest.fixture(scope="session")
def s3_relay(s3_endpoint: str) -> Iterator[FaultyServer]:
    """One for all tests, so that all use one client of it: to make one takes half a second."""
    server = FaultyServer(relay(s3_endpoint))
    yield server
    server.close()


@pytest.fixture
def faulty_s3(s3: S3, s3_relay: FaultyServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyServer]:
    """The same S3, reached through a server that fails when it is told to."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_relay.url)
    s3_relay.fail()
    yield s3_relay
    s3_relay.fail()


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Backend], FaultyServer]]:
    """Start servers from their backends; they end with the test."""
    monkeypatch.setenv("no_proxy", "127.0.0.1,localhost")
    servers: list[FaultyServer] = []

    def start(backend: Backend) -> FaultyServer:
        servers.append(FaultyServer(backend))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture(scope="module")
def scheduler() -> Iterator[str]:
    """The address of a cluster whose one worker lives in this process."""
    from distributed import LocalCluster

    with LocalCluster(
        n_workers=1,
        threads_per_worker=1,
        resources={"CUT": 1, "PREDICT": 1},
        dashboard_address=":0",
        silence_logs=50,
        processes=False,
        protocol="tcp://",
    ) as cluster:
        yield cluster.scheduler.address


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., LargeFile]]:
    """Start servers of one large file; they end with the test."""
    monkeypatch.setenv("no_proxy", "127.0.0.1,localhost")
    servers: list[LargeFile] = []

    def start(size: int, ranges: bool = True, length: str = "stated", **options: Any) -> LargeFile:
        servers.append(LargeFile(size, ranges, length, **options))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retry as often as ever, with pauses too short to notice."""
    monkeypatch.setattr("gzscale._remote_storage.FIRST_PAUSE", 0.001)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """A disk of a given size; called again with another size, the same disk is that large."""
    folder = tmp_path / "disk"

    def mount(size: str) -> Path:
        options = f"{'remount,' if folder.is_mount() else ''}size={size}"
        folder.mkdir(exist_ok=True)
        made = os.geteuid() == 0 and subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True, check=False
        )
        if not made or made.returncode:
            pytest.skip("cannot mount a tmpfs here: needs root")
        return folder

    yield mount
    if folder.is_mount():
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture(scope="session")
def rubin_sky(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A synthetic Rubin sky of two patches with 25 objects each, bright stars among them."""
    pytest.importorskip("lsst.daf.butler")
    from gzscale.sky.write import write_sky

    folder = tmp_path_factory.mktemp("rubin")
    write_sky(str(folder), "rubin", 50, 43, workers=1, per_field=25)
    return folder
