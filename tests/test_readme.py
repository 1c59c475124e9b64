"""README says what the code says."""

import re
from pathlib import Path

import click
import pytest
import yaml

from gzscale.catalog.lens_columns import LENS_COLUMNS
from gzscale.catalog.schema import MORPHOLOGY_SUMMARY, markdown_table, release_columns
from gzscale.cli import main
from gzscale.config import NightConfig
from gzscale.tasks.redshifts import RedshiftsTask

README = Path(__file__).parents[1] / "README.md"
TEXT = README.read_text()


@pytest.mark.parametrize(
    "columns", [release_columns(MORPHOLOGY_SUMMARY), LENS_COLUMNS, RedshiftsTask.columns]
)
def test_its_tables_of_columns_are_the_schema_s(columns):
    assert markdown_table(columns) in TEXT


def test_its_commands_are_those_that_there_are():
    assert isinstance(main, click.Group)
    block = TEXT.split("## Commands")[1].split("\n## ")[0]
    assert set(re.findall(r"^gzscale (\w+)", block, re.MULTILINE)) == set(main.commands)


def test_its_configuration_is_one():
    block = next(block for block in re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL) if "survey:" in block)
    assert NightConfig.model_validate(yaml.safe_load(block)).tasks["morphology"].geometry == "galaxy"


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\(([^)#]+)\)", TEXT))))
def test_what_it_links_to_is_there(link):
    assert "://" in link or (README.parent / link).exists()
