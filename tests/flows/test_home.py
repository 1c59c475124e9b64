"""Where a run finds flows and catalogs: on its own machine, whoever deployed it."""

from pathlib import Path

import pytest
import yaml
from prefect.utilities.importtools import import_object
from prefect.utilities.templating import apply_values

from flows.home import enter_home
from gzscale.errors import ConfigError

PULL = yaml.safe_load((Path(__file__).parents[2] / "deploy" / "prefect.yaml").read_text())["pull"]


def test_a_deployment_holds_no_path_of_the_machine_that_deploys(monkeypatch, tmp_path):
    monkeypatch.setenv("GZSCALE_HOME", "/home/laptop")
    # As `prefect deploy` does before it stores the steps.
    stored = apply_values(PULL, {}, remove_notset=False)
    assert "/home/laptop" not in str(stored)
    monkeypatch.setenv("GZSCALE_HOME", str(tmp_path))
    monkeypatch.chdir("/")
    ((name, given),) = stored[0].items()
    assert import_object(name)(**given) == {"directory": str(tmp_path)}
    assert Path.cwd() == tmp_path


@pytest.mark.parametrize("home", [None, "", "/no/such/folder"])
def test_without_a_home_the_run_says_what_to_set(monkeypatch, home):
    monkeypatch.delenv("GZSCALE_HOME", raising=False)
    if home is not None:
        monkeypatch.setenv("GZSCALE_HOME", home)
    with pytest.raises(ConfigError, match="set it, in the environment of Prefect's worker"):
        enter_home()
