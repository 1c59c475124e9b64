import gzip

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.table import Table

from gzscale.errors import CatalogError
from gzscale.models.votes import ANSWERS, KAGGLE_NAMES, QUESTIONS, to_joint
from gzscale.training.label_tables import read_labels, read_mapping


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


def released_table(fractions, kind="weighted_fraction"):
    """In the columns of the data release: identifiers, position, all six columns of each answer."""
    columns = {
        "dr7objid": np.arange(len(fractions)) + 587722981736120347,
        "sample": "original",
        "ra": np.linspace(10, 20, len(fractions)),
        "dec": -1.0,
        "total_classifications": 44,
        "gz2_class": "Ei",
    }
    for index, answer in enumerate(ANSWERS):
        values = fractions[:, index]
        others = {
            "count": 10,
            "weight": 9.5,
            "fraction": 0.3,
            "weighted_fraction": 0.4,
            "debiased": 0.5,
            "flag": 0,
        }
        columns |= {f"{answer}_{name}": value for name, value in others.items()} | {
            f"{answer}_{kind}": values
        }
    return pd.DataFrame(columns)


def test_kaggle_table(tmp_path):
    joint = to_joint(conditional())
    kaggle_table(joint).to_csv(tmp_path / "t.csv", index=False)
    labels = read_labels(tmp_path / "t.csv")
    assert labels.names[0] == "100008"
    np.testing.assert_allclose(labels.joint, joint, rtol=1e-6)
    assert np.isnan(labels.volunteers).all()
    assert not labels.refused


@pytest.mark.parametrize("kind", ["weighted_fraction", "fraction", "debiased"])
def test_released_votes_are_multiplied_down_the_tree(tmp_path, kind):
    fractions = conditional()
    fractions[0, :3], fractions[0, 3:5] = [1, 0, 0], 0  # nobody was asked whether it is edge-on
    released_table(fractions, kind).to_csv(tmp_path / "t.csv", index=False)
    labels = read_labels(tmp_path / "t.csv", kind)
    assert labels.names[0] == "587722981736120347"
    np.testing.assert_allclose(labels.joint, to_joint(fractions), rtol=1e-6)
    np.testing.assert_array_equal(labels.volunteers, 44)
    assert labels.ra[0] == 10
    assert labels.votes()[0].tolist() == pytest.approx([44, 0, 0, 0, 0, 44, 44, *labels.votes()[0, 7:]])


def test_every_format_gives_the_same(tmp_path):
    table = released_table(conditional())
    table.to_csv(tmp_path / "t.csv", index=False)
    with gzip.open(tmp_path / "t.csv.gz", "wb") as file:
        file.write((tmp_path / "t.csv").read_bytes())
    pq.write_table(pa.Table.from_pandas(table), tmp_path / "t.parquet")
    Table.from_pandas(table).write(tmp_path / "t.fits")
    first = read_labels(tmp_path / "t.csv")
    for name in ("t.csv.gz", "t.parquet", "t.fits"):
        other = read_labels(tmp_path / name)
        assert other.names == first.names
        np.testing.assert_array_equal(other.joint, first.joint)


def test_rounded_fractions_are_made_to_sum_to_one(tmp_path):
    fractions = conditional()
    released_table(0.995 * fractions).to_csv(tmp_path / "t.csv", index=False)
    np.testing.assert_allclose(read_labels(tmp_path / "t.csv").joint, to_joint(fractions), rtol=1e-6)


def test_rows_that_cannot_be_used_are_counted_and_the_rest_read(tmp_path):
    table = kaggle_table(to_joint(conditional(9)))
    table["GalaxyID"] = table["GalaxyID"].astype(object)
    table.loc[1, "GalaxyID"] = None
    table.loc[2, "GalaxyID"] = table.loc[0, "GalaxyID"]
    table.loc[3, "Class3.1"] = np.nan
    table["Class6.1"] = table["Class6.1"].astype(object)
    table.loc[4, "Class6.1"] = "many"
    table.loc[5, ["Class6.1", "Class6.2"]] = 1.5, -0.5
    table.loc[6, "Class1.1"] = table.loc[6, "Class1.1"] + 0.2
    table.to_csv(tmp_path / "t.csv", index=False)
    labels = read_labels(tmp_path / "t.csv")
    assert labels.names == ("100008", "100015", "100016")
    assert labels.refused == {
        "MISSING_ID": 1,
        "DUPLICATE_ID": 1,
        "MISSING_FRACTION": 2,
        "BAD_FRACTION": 1,
        "BAD_SUM": 1,
    }


def test_a_refused_row_does_not_take_the_place_of_a_good_one(tmp_path):
    table = kaggle_table(to_joint(conditional(2)))
    table["GalaxyID"] = 7
    table.loc[0, "Class3.1"] = np.nan
    table.to_csv(tmp_path / "t.csv", index=False)
    labels = read_labels(tmp_path / "t.csv")
    assert labels.names == ("7",)
    assert labels.refused == {"MISSING_FRACTION": 1}


def test_a_debiased_answer_alone_without_a_number_has_what_the_others_leave(tmp_path):
    fractions = conditional()
    expected = to_joint(fractions)
    fractions[1, 15] = np.nan
    fractions[2, 15:17] = np.nan
    released_table(fractions, "debiased").to_csv(tmp_path / "t.csv", index=False)
    labels = read_labels(tmp_path / "t.csv", "debiased")
    np.testing.assert_allclose(labels.joint, expected[[0, 1, 3, 4]], rtol=1e-5)
    assert labels.refused == {"MISSING_FRACTION": 1}


def test_images_are_named_by_the_archive_s_mapping(tmp_path):
    released_table(conditional()).to_csv(tmp_path / "t.csv", index=False)
    first = 587722981736120347
    lines = ["objid,sample,asset_id", f"{first},extra,1", f"{first},original,2", f"{first + 1},original,3"]
    (tmp_path / "m.csv").write_text("\n".join([*lines, f"{first + 2},extra,4"]) + "\n")
    assert read_mapping(tmp_path / "m.csv")[str(first)] == "1"
    labels = read_labels(tmp_path / "t.csv", mapping=tmp_path / "m.csv")
    assert labels.names == ("2", "3")
    assert labels.refused == {"NO_IMAGE": 3}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda table: table.drop(columns="GalaxyID"), "none of the identifiers"),
        (lambda table: table.drop(columns="Class7.2"), r"1 are missing, the first is 'Class7.2'"),
        (lambda table: table.iloc[:0], "0 rows"),
    ],
)
def test_a_table_that_cannot_be_used(tmp_path, change, words):
    change(kaggle_table(to_joint(conditional()))).to_csv(tmp_path / "t.csv", index=False)
    with pytest.raises(CatalogError, match=words):
        read_labels(tmp_path / "t.csv")


def test_identifiers_that_have_lost_digits_are_refused(tmp_path):
    table = released_table(conditional())
    table["dr7objid"] = table["dr7objid"].astype(float)
    pq.write_table(pa.Table.from_pandas(table), tmp_path / "t.parquet")
    table.to_csv(tmp_path / "t.csv", index=False)
    for name in ("t.parquet", "t.csv"):
        with pytest.raises(CatalogError, match="has lost digits"):
            read_labels(tmp_path / name)


def test_identifiers_that_were_written_as_whole_floats_are_integers(tmp_path):
    table = kaggle_table(to_joint(conditional()))
    table["GalaxyID"] = table["GalaxyID"].astype(float)
    table.to_csv(tmp_path / "t.csv", index=False)
    pq.write_table(pa.Table.from_pandas(table), tmp_path / "t.parquet")
    for name in ("t.csv", "t.parquet"):
        assert read_labels(tmp_path / name).names[:2] == ("100008", "100009")


def test_both_identifiers_are_kept(tmp_path):
    table = released_table(conditional())
    table.insert(0, "asset_id", np.arange(5) + 1)
    table.to_csv(tmp_path / "t.csv", index=False)
    labels = read_labels(tmp_path / "t.csv")
    assert labels.names == ("1", "2", "3", "4", "5")
    assert labels.object_names[1] == "587722981736120348"
    assert (labels.named_by, labels.kind) == ("asset_id", "weighted_fraction")
    assert labels.take(np.array([1])).object_names == ("587722981736120348",)


@pytest.mark.parametrize("count", [-5, 0, np.inf])
def test_a_number_of_volunteers_that_cannot_be(tmp_path, count):
    table = released_table(conditional())
    table["total_classifications"] = table["total_classifications"].astype(float)
    table.loc[[1, 2], "total_classifications"] = count, np.nan
    table.to_csv(tmp_path / "t.csv", index=False)
    labels = read_labels(tmp_path / "t.csv")
    assert labels.refused == {"BAD_VOLUNTEERS": 1}
    assert np.isnan(labels.volunteers).tolist() == [False, True, False, False]


@pytest.mark.parametrize("layout", ["kaggle", "released"])
def test_a_question_that_many_were_asked_has_answers(tmp_path, layout):
    fractions = conditional()
    fractions[:2, :3] = [[0.73, 0.26, 0.01], [0.03, 0.96, 0.01]]
    fractions[:2, 15:18] = 0  # "how rounded?", without an answer
    table = kaggle_table(to_joint(fractions)) if layout == "kaggle" else released_table(fractions)
    table.to_csv(tmp_path / "t.csv", index=False)
    labels = read_labels(tmp_path / "t.csv")
    assert len(labels) == 4  # the weights of the 3 % may have come to nothing
    assert labels.refused == {"BAD_SUM": 1}
    assert labels.votes()[0, 6] == 0


def test_a_kind_that_does_not_exist(tmp_path):
    with pytest.raises(CatalogError, match="debiased"):
        read_labels(tmp_path / "t.csv", "best")
