import numpy as np
import pytest

from gzscale.models.votes import ANSWERS, KAGGLE_NAMES, QUESTIONS
from gzscale.tasks.gz2_class import MAIN_SAMPLE, STRIPE82_COADD, clean_flags, gz2_class


def galaxy(**fractions):
    """One galaxy: the answers named have the fraction given, the rest share what is left."""
    row = np.zeros(37)
    for question in QUESTIONS:
        names = KAGGLE_NAMES[question.answers]
        given = {
            name: fractions[name.replace(".", "_")] for name in names if name.replace(".", "_") in fractions
        }
        rest = (1 - sum(given.values())) / max(1, len(names) - len(given))
        row[question.answers] = [given.get(name, rest) for name in names]
    return row[None]


SMOOTH = {"Class1_1": 0.9, "Class6_1": 0.1}
DISK = {"Class1_2": 0.9, "Class6_1": 0.1}
FACE_ON = {**DISK, "Class2_2": 0.9}


@pytest.mark.parametrize(
    ("votes", "expected"),
    [
        ({**SMOOTH, "Class7_1": 0.8}, "Er"),
        ({**SMOOTH, "Class7_2": 0.8}, "Ei"),
        ({**SMOOTH, "Class7_3": 0.8, "Class6_1": 0.6, "Class8_6": 0.9}, "Ec(m)"),
        ({**DISK, "Class2_1": 0.9, "Class9_2": 0.8}, "Seb"),
        ({**DISK, "Class2_1": 0.9, "Class9_3": 0.8, "Class6_1": 0.5, "Class8_7": 0.9}, "Sen(u)"),
        ({**FACE_ON, "Class3_1": 0.2, "Class4_1": 0.1, "Class5_3": 0.9}, "Sb"),
        (
            {
                **FACE_ON,
                "Class3_1": 0.9,
                "Class4_1": 0.9,
                "Class5_2": 0.9,
                "Class10_2": 0.9,
                "Class11_2": 0.9,
            },
            "SBc2m",
        ),
        (
            {
                **FACE_ON,
                "Class3_1": 0.5,
                "Class4_1": 0.9,
                "Class5_1": 0.9,
                "Class10_3": 0.9,
                "Class11_5": 0.9,
            },
            "Sd+l",
        ),
        ({"Class1_3": 0.9, "Class6_1": 0.9, "Class8_1": 0.9}, "A"),
    ],
)
def test_strings_of_the_appendix(votes, expected):
    assert gz2_class(galaxy(**votes)).tolist() == [expected]


def test_an_answer_alone_without_a_number_has_what_the_others_leave():
    row = galaxy(**SMOOTH, Class7_2=0.1, Class7_3=0.05)
    row[0, KAGGLE_NAMES.index("Class7.1")] = np.nan
    assert gz2_class(row).tolist() == ["Er"]


def test_no_galaxies():
    assert gz2_class(np.empty((0, 37))).shape == (0,)
    assert clean_flags(np.empty((0, 37)), np.empty((0, 37)), np.empty((0, 11))).shape == (0, 37)


def flags(row, votes=40.0, rule=MAIN_SAMPLE):
    found = clean_flags(row, row, np.full((1, 11), votes), rule)[0]
    return {name for name, flag in zip(KAGGLE_NAMES, found, strict=True) if flag}


def test_the_paper_s_barred_galaxies():
    # Section 3.3: p_features > 0.430, p_not_edgeon > 0.715, N_not_edgeon >= 20.
    barred = {"Class3_1": 0.85}
    assert "Class3.1" in flags(galaxy(Class1_2=0.45, Class2_2=0.75, **barred))
    assert "Class3.1" not in flags(galaxy(Class1_2=0.42, Class2_2=0.75, **barred))
    assert "Class3.1" not in flags(galaxy(Class1_2=0.45, Class2_2=0.70, **barred))
    assert "Class3.1" not in flags(galaxy(Class1_2=0.45, Class2_2=0.75, Class3_1=0.79))
    assert "Class3.1" not in flags(galaxy(Class1_2=0.45, Class2_2=0.75, **barred), votes=19)


def test_each_question_has_its_own_limit():
    edge_on = galaxy(Class1_2=0.9, Class2_1=0.65, Class9_1=0.9)
    assert "Class9.1" in flags(edge_on)
    assert "Class9.1" not in flags(galaxy(Class1_2=0.9, Class2_1=0.55, Class9_1=0.9))
    three_arms = {"Class1_2": 0.9, "Class2_2": 0.9, "Class4_1": 0.65, "Class11_3": 0.9}
    assert "Class11.3" in flags(galaxy(**three_arms))
    assert "Class11.3" not in flags(galaxy(**{**three_arms, "Class4_1": 0.6}))


def test_the_coadd_s_own_numbers():
    row = galaxy(Class1_2=0.55, Class2_2=0.55)
    assert "Class2.2" in flags(row, votes=5, rule=STRIPE82_COADD)
    assert "Class2.2" not in flags(row, votes=4, rule=STRIPE82_COADD)
    assert "Class1.1" not in flags(galaxy(Class1_1=0.9), votes=9, rule=STRIPE82_COADD)
    assert "Class1.1" in flags(galaxy(Class1_1=0.9), votes=10, rule=STRIPE82_COADD)


def test_nothing_is_certain_of_what_is_not_known():
    assert not clean_flags(*(np.full((1, 37), np.nan),) * 2, np.full((1, 11), 40.0)).any()
    assert len(ANSWERS) == 37
