"""Options of training and scoring: what would change nothing is refused."""

import pytest
from click.testing import CliRunner

from gzscale.cli import main
from gzscale.models.shipped import shipped


@pytest.mark.parametrize(
    ("task", "options", "words"),
    [
        ("morphology", ["--labels", "t", "--images", "a", "--survey", "rubin"], "no use for --survey"),
        ("morphology", ["--labels", "t", "--images", "a", "--images", "b"], "several are for lenses without"),
        ("redshifts", ["--labels", "t", "--images", "a", "--images", "b"], "several are for lenses without"),
        ("lenses", ["--labels", "t", "--images", "a", "--images", "b"], "several are for lenses without"),
        (
            "morphology",
            ["--labels", "t", "--images", "a", "--cluster", "local"],
            "without --search: no use for --cluster",
        ),
        ("redshifts", ["--labels", "t", "--images", "a", "--mapping", "m"], "no use for --mapping"),
        ("lenses", ["--images", "a", "--search", "3", "--kind", "debiased"], "no use for --kind, --search"),
        ("sketches", ["--labels", "t"], "no use for --labels"),
        ("lenses", [], "Missing option '--images'"),
        ("morphology", ["--images", "a"], "need --labels"),
    ],
)
def test_training_refuses_what_it_would_not_use(tmp_path, task, options, words):
    result = CliRunner().invoke(main, ["train", task, *options, "-o", str(tmp_path / "b.safetensors")])
    assert result.exit_code == 2
    assert words in result.output
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("task", "options", "words"),
    [
        ("morphology", ["--others", "a"], "no use for --others"),
        ("lenses", ["--mapping", "m"], "no use for --mapping"),
        ("lenses", ["--others", "m"], "no use for --others"),
        ("redshifts", ["--picture", "p.png"], "no use for --picture"),
    ],
)
def test_scoring_refuses_what_it_would_not_use(task, options, words):
    result = CliRunner().invoke(
        main, ["evaluate", str(shipped(task)), "--labels", "t", "--images", "a", *options]
    )
    assert result.exit_code == 2
    assert words in result.output
