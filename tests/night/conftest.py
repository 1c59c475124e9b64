"""Fixtures of the night's tests: a night in one process, without a cluster."""

from __future__ import annotations

import dataclasses
import shutil
from dataclasses import dataclass

import pytest
import yaml
from click.testing import CliRunner
from toy import ToySurvey, toy_config

from flows import nightly as flow
from gzscale.cli import main
from gzscale.config import NightConfig
from gzscale.night import origins as origin_module
from gzscale.night import plan as planning
from gzscale.night import work
from gzscale.night.accounting import close_account
from gzscale.night.fingerprint import fingerprint
from gzscale.night.ledger import Ledger, NightRecord, add_counts
from gzscale.night.openings import Openings
from gzscale.night.release import publish
from gzscale.night.tally import Tally
from gzscale.storage import open_storage


@pytest.fixture(scope="session", autouse=True)
def toy():
    """Make the toy survey known to the night."""
    with pytest.MonkeyPatch.context() as patch:
        real = origin_module.load_survey

        def load(kind, root, bands, options):
            return ToySurvey(root, bands, options) if kind == "toy" else real(kind, root, bands, options)

        patch.setattr(origin_module, "load_survey", load)
        yield


@dataclass
class Ran:
    """A night that was run."""

    config: NightConfig
    record: NightRecord
    summaries: list
    plan: planning.Plan


def run_night(config: NightConfig, name: str = "n1") -> Ran:
    """Run every stage but the report, in this process."""
    inputs = planning.check(config)
    ledger = Ledger(open_storage(config.output))
    record = NightRecord(name, "running", inputs, fingerprint(inputs), started=f"2026-01-01T{name}")
    ledger.write_night(record)
    plan = planning.make_plan(config, name)
    tally, summaries, origin = Tally(), [], origin_module.origins(config)
    openings = Openings()
    for item in plan.partitions:
        made = work.cut(config, origin, item.partition, item.digest)
        summaries.append(work.predict(config, origin, item.partition, item.digest, made))
        add_counts(tally.counts, summaries[-1].counts)
        openings.add(summaries[-1].images)
    record.counts, record.changes = close_account(plan, tally), plan.changes
    record.partitions, record.images = len(plan.partitions), openings.to_dict()
    record.release = publish(config, plan, "2026-01-01")
    record.state = "complete"
    ledger.write_night(record)
    return Ran(config, record, summaries, plan)


@pytest.fixture(scope="session")
def first_night(toy, tmp_path_factory):
    """A toy night that was run once."""
    return run_night(toy_config(tmp_path_factory.mktemp("toy")))


@pytest.fixture
def ran(first_night, tmp_path):
    """A copy of that night, to do with as a test likes."""
    output = tmp_path / "out"
    shutil.copytree(first_night.config.output, output)
    return dataclasses.replace(
        first_night, config=first_night.config.model_copy(update={"output": str(output)})
    )


@pytest.fixture
def run(scheduler, tmp_path, monkeypatch):
    """Run `gzscale night` in this process, its stages without Prefect's server."""
    for stage in ("plan_stage", "process_stage", "release_stage", "prune_stage", "report_stage"):
        monkeypatch.setattr(flow, stage, getattr(flow, stage).fn)
    monkeypatch.setattr(flow, "nightly", flow.nightly.fn)
    monkeypatch.setattr(flow, "_tell", lambda *arguments, **options: None)
    monkeypatch.setattr(flow, "end_server_with_us", lambda: None)

    def night(config, name):
        tree = config.model_copy(update={"cluster": scheduler}).model_dump(mode="json")
        path = tmp_path / "night.yaml"
        path.write_text(yaml.safe_dump(tree))
        done = CliRunner().invoke(main, ["night", str(path), "--night", name])
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        return done

    return night
