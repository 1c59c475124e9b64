"""A PostgreSQL server of its own for tests: on loopback, in a folder for temporary files, with a password."""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

USER, DATABASE = "astronomer", "registry"


@dataclass(frozen=True)
class Postgres:
    """A running server."""

    port: int
    password: str

    @property
    def url(self) -> str:
        """The database, without the password."""
        return f"postgresql://{USER}@127.0.0.1:{self.port}/{DATABASE}"


@contextlib.contextmanager
def running_server() -> Iterator[Postgres]:
    """Start a server, and end it; skips the test where PostgreSQL is not installed."""
    pytest.importorskip("psycopg2", reason="psycopg2 is not installed: pip install 'gzscale[rubin]'")
    programs = _programs()
    account = _account()
    folder = Path(tempfile.mkdtemp(prefix="gzscale-postgres-"))
    try:
        password = secrets.token_urlsafe(12)
        (folder / "password").write_text(password)
        if account:
            for path in (folder, folder / "password"):
                shutil.chown(path, account)
        data, port = folder / "data", _free_port()
        given = ["-D", data, "-U", USER, "--auth=scram-sha-256", f"--pwfile={folder}/password", "--no-sync"]
        _run([programs / "initdb", *given], account)
        command = [programs / "postgres", "-D", data, "-p", str(port), "-c", "listen_addresses=127.0.0.1"]
        command += ["-c", "unix_socket_directories=", "-c", "fsync=off"]
        with open(folder / "log", "wb") as log:
            server = subprocess.Popen(command, stdout=log, stderr=log, **_as(account))
        try:
            _make_database(port, password)
            yield Postgres(port, password)
        finally:
            # A fast shutdown: at SIGTERM it would wait for clients that hold their connections.
            server.send_signal(signal.SIGINT)
            server.wait(60)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _programs() -> Path:
    found = shutil.which("postgres")
    places = [Path(found).resolve().parent] if found else sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    for place in reversed(places):
        if (place / "initdb").exists():
            return place
    pytest.skip("no PostgreSQL server here: install Debian's postgresql")


def _account() -> str:
    """The account that the server runs as: it refuses to run as root."""
    if os.geteuid() != 0:
        return ""
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name).pw_name
    pytest.skip("PostgreSQL does not run as root, and there is no account postgres or nobody")


def _as(account: str) -> dict[str, object]:
    return {"user": account, "group": pwd.getpwnam(account).pw_gid, "extra_groups": []} if account else {}


def _run(command: list[object], account: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, cwd="/", **_as(account))
    if done.returncode:
        pytest.fail(f"{command[0]}: {done.stdout}{done.stderr}")


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def _make_database(port: int, password: str, patience: float = 60) -> None:
    import psycopg2

    about = {"host": "127.0.0.1", "port": port, "user": USER, "password": password}
    end = time.monotonic() + patience
    while True:
        try:
            connection = psycopg2.connect(dbname="postgres", **about)
            break
        except psycopg2.OperationalError:
            if time.monotonic() > end:
                raise
            time.sleep(0.1)
    with contextlib.closing(connection):
        connection.autocommit = True
        connection.cursor().execute(f"CREATE DATABASE {DATABASE}")
    with contextlib.closing(psycopg2.connect(dbname=DATABASE, **about)) as connection:
        connection.autocommit = True
        try:
            connection.cursor().execute("CREATE EXTENSION btree_gist")
        except psycopg2.Error as error:
            pytest.skip(f"this PostgreSQL has no extension btree_gist: {error}")
