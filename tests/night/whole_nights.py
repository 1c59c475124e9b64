"""What tests of whole nights look at afterwards: the account, the commits, the release."""

from __future__ import annotations

import json

from click.testing import CliRunner

from gzscale.cli import main
from gzscale.storage import open_storage


def account_of(output):
    """What `gzscale status` says of the last night, once its account was seen to close."""
    account = json.loads(CliRunner().invoke(main, ["status", str(output), "--json"]).stdout)
    assert account["planned"] == account["done"] + sum(account["quarantined"].values()) + account["failed"]
    return account


def stored(output, prefix):
    storage = open_storage(output)
    return {entry.key: storage.get(entry.key) for entry in storage.list(prefix)}


def commits(output):
    """The commits of predictions by partition; one that is made again has other bytes."""
    found = stored(output, "ledger/predict")
    return {
        key.removeprefix("ledger/predict/").removesuffix(".json"): data
        for key, data in found.items()
        if key.endswith(".json")
    }


def newer(commits, before):
    """The partitions whose commit was made since."""
    return {path for path, data in commits.items() if data != before.get(path)}


def released(output):
    """The bytes of the latest release, whatever the day in its name."""
    release = json.loads(open_storage(output).get("releases/LATEST"))["release"]
    files = stored(output, f"releases/{release}")
    return {key.removeprefix(f"releases/{release}/"): data for key, data in files.items()}
