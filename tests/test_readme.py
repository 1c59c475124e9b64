"""README says what the code says."""

import re
from pathlib import Path

import click
import pytest
import yaml

from gzscale.catalog.schema import MORPHOLOGY_SUMMARY, markdown_table, release_columns
from gzscale.cli import main
from gzscale.config import NightConfig

README = Path(__file__).parents[1] / "README.md"
TEXT = README.read_text()


def test_its_table_of_columns_is_the_schema_s():
    assert markdown_table(release_columns(MORPHOLOGY_SUMMARY)) in TEXT


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
