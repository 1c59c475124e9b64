import gzip

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.table import Table

from gzscale.errors import CatalogError
from gzscale.models.votes import ANSWERS, KAGGLE_NAMES, QUESTIONS, to_joint
from gzscale.training.label_tables import read_labels


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
    table = released_table(fractions, kind)
    # Without them how many answers were counted follows from the volunteers.
    uncounted = table.drop(columns=[f"{answer}_count" for answer in ANSWERS])
    uncounted.to_csv(tmp_path / "t.csv", index=False)
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


FIRST = 587722981736120347
MAPPING = [
    "objid,sample,asset_id",
    f"{FIRST},extra,1",
    f"{FIRST},original,2",
    f"{FIRST + 1},original,3",
    f"{FIRST + 2},extra,4",
    f"{FIRST + 3},stripe82_coadd_2,6",
    f"{FIRST + 3},stripe82_coadd_1,5",
]


def mapped(folder, table, mapping=MAPPING):
    table.to_csv(folder / "t.csv", index=False)
    (folder / "m.csv").write_text("\n".join(mapping) + "\n")
    return read_labels(folder / "t.csv", mapping=folder / "m.csv")


def test_images_are_named_by_the_archive_s_mapping(tmp_path):
    labels = mapped(tmp_path, released_table(conditional()))
    assert labels.names == ("2", "3")
    assert labels.object_names == (str(FIRST), str(FIRST + 1))
    assert labels.refused == {"OTHER_SAMPLE": 2, "NO_IMAGE": 1}


def test_a_sample_may_be_cut_short(tmp_path):
    """As in the published table 5: ``stripe82_c``."""
    table = released_table(conditional())
    table["sample"] = "stripe82_c"
    labels = mapped(tmp_path, table)
    assert labels.names == ("5",)
    table["sample"] = "stripe82_coadd_2"
    assert mapped(tmp_path, table).names == ("6",)


def test_the_beginning_of_a_sample_that_has_a_name_of_its_own_is_no_other(tmp_path):
    table = released_table(conditional())
    table["sample"] = "stripe82"
    assert mapped(tmp_path, table).names == ("5",)
    named = [*MAPPING, f"{FIRST + 9},stripe82,9"]
    labels = mapped(tmp_path, table, named)
    assert labels.names == ()
    assert labels.refused == {"OTHER_SAMPLE": 4, "NO_IMAGE": 1}


def test_a_position_off_the_sky_is_none(tmp_path):
    table = released_table(conditional())
    table["ra"] = [-999.0, 10.0, 400.0, -12.5, 360.0]
    table["dec"] = [-999.0, -9999.0, 5.0, 90.0, -90.0]
    table.to_csv(tmp_path / "t.csv", index=False)
    labels = read_labels(tmp_path / "t.csv")
    assert np.isnan(labels.ra).tolist() == np.isnan(labels.dec).tolist() == [True, True, True, False, False]
    assert labels.ra[3:].tolist() == [347.5, 360.0]
    assert len(labels) == 5


def test_without_samples_the_original_is_meant(tmp_path):
    table = released_table(conditional()).drop(columns="sample")
    assert mapped(tmp_path, table).names == ("2", "3", "4", "6")


def test_a_mapping_without_samples(tmp_path):
    plain = ["objid,asset_id", f"{FIRST},7", f"{FIRST + 4},8"]
    labels = mapped(tmp_path, released_table(conditional()), plain)
    assert labels.names == ("7", "8")
    assert labels.refused == {"NO_IMAGE": 3}
    with pytest.raises(CatalogError, match="no column asset_id"):
        mapped(tmp_path, released_table(conditional()), ["objid,sample", "1,original"])


@pytest.mark.parametrize("kind", ["count", "weight", "fraction", "weighted_fraction", "debiased"])
def test_an_infinite_vote_is_refused(tmp_path, kind):
    values = conditional()
    values[2, 1] = np.inf
    released_table(values, kind).to_csv(tmp_path / "t.csv", index=False)
    labels = read_labels(tmp_path / "t.csv", kind)
    assert len(labels) == 4
    assert labels.refused == {"BAD_FRACTION": 1}


@pytest.mark.parametrize("kind", ["count", "weight"])
def test_votes_by_their_numbers(tmp_path, kind):
    rng = np.random.default_rng(5)
    numbers = rng.integers(1, 30, (5, 37)).astype(float)
    if kind == "weight":
        numbers -= 0.25
    table = released_table(numbers, kind)
    table.to_csv(tmp_path / "t.csv", index=False)
    labels = read_labels(tmp_path / "t.csv", kind)
    expected = numbers.copy()
    for question in QUESTIONS:
        expected[:, question.answers] /= numbers[:, question.answers].sum(axis=1, keepdims=True)
    np.testing.assert_allclose(labels.joint, to_joint(expected), rtol=1e-5)
    counts = numbers if kind == "count" else np.full((5, 37), 10.0)
    asked = np.stack([counts[:, question.answers].sum(axis=1) for question in QUESTIONS], axis=1)
    np.testing.assert_allclose(labels.votes(), asked)
    assert labels.says_votes().all()


def test_numbers_that_cannot_be(tmp_path):
    table = released_table(np.full((5, 37), 4.0), "count")
    table.loc[1, f"{ANSWERS[3]}_count"] = -1
    table[f"{ANSWERS[5]}_count"] = table[f"{ANSWERS[5]}_count"].where(table.index != 2)
    table.to_csv(tmp_path / "t.csv", index=False)
    labels = read_labels(tmp_path / "t.csv", "count")
    assert labels.refused == {"BAD_FRACTION": 1, "MISSING_FRACTION": 1}
    # Of other columns they only say how many voted, and what cannot be is not believed.
    table[[f"{answer}_weighted_fraction" for answer in ANSWERS]] = conditional()
    table.to_csv(tmp_path / "t.csv", index=False)
    labels = read_labels(tmp_path / "t.csv")
    assert len(labels) == 5
    assert np.isfinite(labels.counted).all(axis=1).tolist() == [True, False, False, True, True]
    assert np.isfinite(labels.votes()).all()


@pytest.mark.parametrize("ending", ["csv", "parquet", "fits"])
@pytest.mark.parametrize("kind", [int, bool, float])
def test_flags_of_clean_samples_are_read(tmp_path, ending, kind):
    table = released_table(conditional(4))
    for answer in ANSWERS:
        table[f"{answer}_flag"] = np.zeros(4, kind)
    table[f"{ANSWERS[1]}_flag"] = np.array([1, 0, 0, 1], kind)
    path = tmp_path / f"t.{ending}"
    if ending == "csv":
        table.to_csv(path, index=False)
    elif ending == "parquet":
        table.to_parquet(path)
    else:
        Table.from_pandas(table).write(path)
    labels = read_labels(path)
    assert labels.flags.unclear == 0
    assert [np.flatnonzero(row).tolist() for row in labels.flags.flagged] == [[1], [], [], [1]]
    assert labels.take(np.array([3, 2])).flags.flagged.sum(axis=1).tolist() == [1, 0]


def test_no_votes_are_lost_by_a_flag(tmp_path):
    table = released_table(conditional(4))
    table[f"{ANSWERS[1]}_flag"] = [1, 0, 2, np.nan]
    table[f"{ANSWERS[2]}_flag"] = np.nan
    table.to_csv(tmp_path / "t.csv", index=False)
    labels = read_labels(tmp_path / "t.csv")
    assert len(labels) == 4
    assert labels.flags.flagged.sum(axis=1).tolist() == [1, 0, 0, 0]
    assert labels.flags.unclear == 1
    table.drop(columns=f"{ANSWERS[1]}_flag").to_csv(tmp_path / "t.csv", index=False)
    assert read_labels(tmp_path / "t.csv").flags is None


def test_names_of_refused_rows_are_kept(tmp_path):
    table = released_table(conditional(4))
    table.loc[2, f"{ANSWERS[0]}_weighted_fraction"] = np.nan
    table.loc[3, "dr7objid"] = table.dr7objid[0]
    table.to_csv(tmp_path / "t.csv", index=False)
    labels = read_labels(tmp_path / "t.csv")
    assert labels.refused == {"MISSING_FRACTION": 1, "DUPLICATE_ID": 1}
    assert labels.refused_names == {str(table.dr7objid[2])}
    table.insert(0, "asset_id", [1, 2, 3, 4])
    table.to_csv(tmp_path / "t.csv", index=False)
    labels = read_labels(tmp_path / "t.csv")
    assert (labels.refused_names, labels.refused_objects) == ({"3"}, {str(table.dr7objid[2])})


def test_a_table_that_counts_nothing_says_so(tmp_path):
    kaggle_table(to_joint(conditional())).to_csv(tmp_path / "t.csv", index=False)
    labels = read_labels(tmp_path / "t.csv")
    assert not labels.says_votes().any()
    np.testing.assert_allclose(labels.votes()[:, 0], 44)


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
