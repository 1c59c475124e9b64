import numpy as np
import pandas as pd
import pytest

from gzscale.errors import CatalogError
from gzscale.models.votes import ANSWERS, KAGGLE_NAMES, QUESTIONS, to_joint
from gzscale.training.labels import held_out, read_labels


def conditional(count=5):
    rng = np.random.default_rng(8)
    fractions = np.empty((count, 37))
    for question in QUESTIONS:
        fractions[:, question.answers] = rng.dirichlet(np.ones(question.stop - question.start), count)
    return fractions


def kaggle_table(joint):
    table = pd.DataFrame(joint, columns=list(KAGGLE_NAMES))
    table.insert(0, "GalaxyID", np.arange(len(joint)) + 100008)
    return table


def test_kaggle_table(tmp_path):
    joint = to_joint(conditional())
    kaggle_table(joint).to_csv(tmp_path / "t.csv", index=False)
    labels = read_labels(tmp_path / "t.csv")
    assert labels.names[0] == "100008"
    np.testing.assert_allclose(labels.joint, joint, rtol=1e-6)


def test_released_votes_are_multiplied_down_the_tree(tmp_path):
    fractions = conditional()
    fractions[0, :3], fractions[0, 3:5] = [1, 0, 0], 0  # nobody was asked whether it is edge-on
    table = pd.DataFrame(fractions, columns=[f"{answer}_debiased" for answer in ANSWERS])
    table["asset_id"] = ["007", "8", "9", "10", "11"]
    table.to_csv(tmp_path / "t.csv", index=False)
    labels = read_labels(tmp_path / "t.csv", kind="debiased")
    assert labels.names[0] == "007"
    np.testing.assert_allclose(labels.joint, to_joint(fractions), rtol=1e-6)


def test_rounded_fractions_are_made_to_sum_to_one(tmp_path):
    fractions = conditional()
    table = pd.DataFrame(0.998 * fractions, columns=[f"{answer}_weighted_fraction" for answer in ANSWERS])
    table["asset_id"] = range(5)
    table.to_csv(tmp_path / "t.csv", index=False)
    np.testing.assert_allclose(read_labels(tmp_path / "t.csv").joint, to_joint(fractions), rtol=1e-6)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda table: table.drop(columns="GalaxyID"), "none of the identifiers"),
        (lambda table: table.drop(columns="Class7.2"), "columns are missing"),
        (lambda table: table.assign(GalaxyID=1), "repeat"),
        (lambda table: table.assign(**{"Class6.1": np.nan}), r"row 0 \(GalaxyID 100008\)"),
        (lambda table: table.assign(**{"Class6.1": 1.5}), "not in"),
    ],
)
def test_unusable_tables(tmp_path, change, words):
    change(kaggle_table(to_joint(conditional()))).to_csv(tmp_path / "t.csv", index=False)
    with pytest.raises(CatalogError, match=words):
        read_labels(tmp_path / "t.csv")


def test_held_out_depends_on_the_name_alone():
    names = [str(number) for number in range(4000)]
    hidden = held_out(names)
    assert abs(hidden.mean() - 0.15) < 0.02
    assert np.array_equal(held_out(names[::-1]), hidden[::-1])
    assert np.array_equal(held_out(names[:10]), hidden[:10])
    assert held_out(names, 0).sum() == 0
    assert (held_out(names, 0.3) >= hidden).all()
