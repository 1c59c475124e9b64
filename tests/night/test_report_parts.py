"""The parts of a report by themselves: map, times, captions, choice of galaxies, escaping."""

from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gzscale.catalog.partition import Partition
from gzscale.catalog.schema import MORPHOLOGY_COLUMNS, Column
from gzscale.models.votes import ANSWERS, QUESTIONS
from gzscale.night.charts import probability_histograms, stacked_bar, to_svg
from gzscale.night.choice import PARTITIONS, Pool, choose, spread
from gzscale.night.ledger import Count, NightRecord
from gzscale.night.overview import Histogram, PartitionState, _count
from gzscale.night.page import Markup, duration, escape, join, table, tag
from gzscale.night.panels import answer_label, caption, panels, path_columns
from gzscale.night.planned import PlannedPartition
from gzscale.night.skymap import centres, find_owners, project, sky_map
from gzscale.night.timings import take_timings


def state(order, pixel, done=1, rows=1):
    item = PlannedPartition(Partition(order, pixel), rows, "")
    return PartitionState(item, done, {"morphology": done})


@pytest.mark.parametrize(
    ("order", "pixel"),
    [(3, 63), (3, 0), (2, 31), (4, 1023)],
    ids=["corner on the pole", "near the equator", "belt", "corner on RA 0 and the pole"],
)
def test_a_partition_covers_its_area_on_the_map(order, pixel):
    # All HEALPix pixels of an order have the same area, and the map is equal-area: cells can be counted.
    orders, pixels = np.array([order]), np.array([pixel])
    ra, dec = centres(orders, pixels)
    wcs, shape, whole = project(ra, dec, np.array([60.0 / 2**order]))
    assert not whole
    owner = find_owners(wcs, shape, orders, pixels)
    area = (owner == 0).sum() * np.prod(np.abs(wcs.wcs.cdelt))
    assert area == pytest.approx(4 * np.pi / (12 * 4**order) * np.degrees(1) ** 2, rel=0.02)


def test_the_whole_sky_is_covered_by_the_twelve_base_pixels_alike():
    order, pixels = np.zeros(12, np.int64), np.arange(12)
    rng = np.random.default_rng(3)
    wcs, shape, whole = project(rng.uniform(0, 360, 12), rng.uniform(-80, 80, 12), np.full(12, 40.0))
    assert whole
    owner = find_owners(wcs, shape, order, pixels)
    cells = np.bincount(owner[owner >= 0], minlength=12)
    assert cells == pytest.approx(np.full(12, cells.mean()), rel=0.02)
    # Mollweide's ellipse fills pi / 4 of its rectangle.
    assert (owner >= 0).mean() == pytest.approx(np.pi / 4, rel=0.01)


@pytest.mark.parametrize(
    "states",
    [
        [state(0, pixel, pixel % 2) for pixel in range(12)],
        [state(9, 0)],
        [state(18, 5), state(18, 9_000_000_000, 0)],
        [state(1, 3), state(1, 16)],
    ],
    ids=["whole sky", "one", "tiny and far apart", "both poles"],
)
def test_a_map_of_any_partitions_is_drawn(states):
    svg = sky_map(states)
    assert svg == sky_map(states)
    assert svg.startswith("<svg")
    assert "nan" not in svg.split("base64", 1)[0]


def record(seconds, done=0):
    counts = {"objects": Count(done, done)}
    return NightRecord("n", "complete", {}, "", counts=counts, seconds=seconds)


def test_times_of_steps_and_rest_add_up_to_the_work():
    timings = take_timings(record({"find": 1.0, "decode": 4.0, "work": 8.0, "wall": 2.0, "slots": 5.0}, 30))
    assert timings.steps == {"find": 1.0, "decode": 4.0, "other": 3.0}
    assert timings.limiting_step == ("decode", 0.5)
    assert timings.idle == pytest.approx(0.2)
    assert timings.objects_per_second == 15.0


def test_times_that_are_not_there_are_no_error():
    timings = take_timings(record({}))
    assert timings.idle is None
    assert timings.limiting_step is None
    assert timings.limiting_stage is None
    assert timings.objects_per_second == 0


def test_labels_of_the_answers_are_distinct_within_a_question():
    for question in QUESTIONS:
        labels = [answer_label(answer) for answer in ANSWERS[question.answers]]
        assert len(set(labels)) == len(labels)
        assert not any("_" in label for label in labels)
    assert answer_label("t02_edgeon_a05_no") == "not edge-on"
    assert answer_label("t11_arms_number_a32_2") == "2 arms"


def test_the_path_to_the_arms_is_that_of_the_paper():
    # Willett et al. 2013, Figure 1: features, not edge-on, spiral, then the arms.
    assert path_columns(QUESTIONS[9]) == (
        "t01_smooth_or_features_a02_features_or_disk_fraction",
        "t02_edgeon_a05_no_fraction",
        "t04_spiral_a08_spiral_fraction",
    )


def test_a_caption_follows_the_likeliest_answers():
    row = dict.fromkeys((column.name for column in MORPHOLOGY_COLUMNS), 0.1)
    for name, value in (
        ("t01_smooth_or_features_a02_features_or_disk", 0.81),
        ("t02_edgeon_a04_yes", 0.74),
        ("t09_bulge_shape_a26_boxy", 0.6),
        ("t04_spiral_a08_spiral", 0.99),  # not asked of an edge-on galaxy
    ):
        row[f"{name}_fraction"] = value
    assert caption(MORPHOLOGY_COLUMNS, row) == ["features 0.81", "edge-on 0.74", "boxy bulge 0.60"]


OTHER = (
    Column("lens_score", "float32", "", "stat.probability", "Probability"),
    Column("einstein_radius", "float32", "arcsec", "phys.angSize", "Radius"),
)


def test_another_task_has_generic_panels_and_captions():
    assert [panel.columns for panel in panels(OTHER)] == [("lens_score",)]
    assert caption(OTHER, {"lens_score": 0.25, "einstein_radius": 1.5}) == [
        "lens_score 0.25",
        "einstein_radius 1.5",
    ]


def scores(*decades):
    """Return a table of scores whose odds are powers of ten."""
    odds = 10.0 ** np.array(decades)
    return pa.table({"lens_score": (odds / (1 + odds)).astype(np.float32)})


def test_rare_probabilities_are_counted_by_their_odds():
    histogram = Histogram.empty(panels(OTHER)[0])
    _count(histogram, scores(-30, -6.1, -6.1, -3.1, -3.1, -3.1, -0.1, 2.9, 7))
    # One without a value does not count.
    _count(histogram, pa.table({"lens_score": pa.array([None], pa.float32())}))
    assert histogram.objects == histogram.counts.sum() == 9
    odds = np.log10(histogram.edges / (1 - histogram.edges))
    found = {
        round(odds[place], 2): int(histogram.counts[0, place]) for place in histogram.counts[0].nonzero()[0]
    }
    # What is beyond the scale is in the outermost bins.
    assert found == {-8.0: 1, -6.25: 2, -3.25: 3, -0.25: 1, 2.75: 1, 3.75: 1}


def test_the_chart_of_probabilities_shows_the_decades_that_hold_objects(monkeypatch):
    seen = []

    def look(figure, name, text):
        seen.extend(figure.axes)
        return to_svg(figure, name, text)

    monkeypatch.setattr("gzscale.night.charts.to_svg", look)
    histogram = Histogram.empty(panels(OTHER)[0])
    _count(histogram, scores(-4.6, -3.1, -2.2, -0.1))
    assert probability_histograms("lenses", [histogram]).startswith("<svg")
    (axes,) = seen
    assert axes.get_xlim() == (-5, 0)
    labels = [label.get_text() for label in axes.get_xticklabels()]
    assert labels == ["$10^{-5}$", "$10^{-4}$", "0.001", "0.01", "0.09", "0.5"]
    assert axes.get_xlabel() == "probability"
    assert len(probability_histograms("lenses", [Histogram.empty(panels(OTHER)[0])])) > 500


def other_pool(partitions=4, objects=50):
    count = partitions * objects
    rng = np.random.default_rng(0)
    table = pa.table(
        {
            "object_id": np.arange(count) * 7919 + 5,
            "lens_score": rng.random(count, np.float32),
            "einstein_radius": rng.random(count, np.float32),
            "lenses_coverage": np.where(np.arange(count) % 50 == 0, 0.5, 1.0).astype(np.float32),
        }
    )
    return Pool(table, np.repeat(np.arange(partitions), objects))


def test_the_choice_takes_the_best_of_each_partition_first_and_nobody_twice():
    pool = other_pool()
    groups = choose(pool, "lenses", OTHER)
    rows = [row for group in groups.values() for row in group]
    assert len(rows) == len(set(rows)) <= 60
    scores = pool.table["lens_score"].to_numpy().reshape(4, 50)
    first = groups["Highest lens_score"][:4]
    assert sorted(pool.partition[first]) == [0, 1, 2, 3]
    assert set(pool.table["lens_score"].to_numpy()[first]) == set(scores.max(axis=1))
    assert set(groups["Least covered by images"]) <= set(range(0, 200, 50))
    assert choose(pool, "lenses", OTHER) == groups


def test_the_random_ones_do_not_depend_on_the_order_of_the_rows():
    pool = other_pool()
    shuffled = np.random.default_rng(1).permutation(200)
    order = shuffled[np.argsort(pool.partition[shuffled], kind="stable")]
    again = Pool(pool.table.take(pa.array(order)), pool.partition[order])

    def drawn(some):
        return some.table["object_id"].to_numpy()[choose(some, "lenses", OTHER)["Drawn at random"]].tolist()

    assert drawn(pool) == drawn(again)


@given(st.lists(st.integers(1, 3000), min_size=1, max_size=80))
@settings(max_examples=40, deadline=None)
def test_partitions_are_spread_over_the_whole_night(answered):
    states = [
        SimpleNamespace(item=number, answered={"morphology": count}) for number, count in enumerate(answered)
    ]
    chosen = spread(states, "morphology")
    assert chosen == sorted(set(chosen))
    assert 1 <= len(chosen) <= PARTITIONS
    ends = np.cumsum(answered)
    # No stretch of more than two twelfths of the objects is without one, ends and gaps alike.
    where = [ends[number] - answered[number] / 2 for number in chosen]
    widest = max(answered) + 2 * ends[-1] / PARTITIONS
    assert np.diff([0, *where, ends[-1]]).max() <= widest


@given(st.text())
def test_text_enters_a_page_escaped_and_once(text):
    cell = tag("td", tag("b", text))
    inner = cell.removeprefix("<td><b>").removesuffix("</b></td>")
    assert "<" not in inner
    assert table(("a",), [(text,)]).count("<td>") == 1
    assert join((Markup("<i>"), text)) == "<i>" + escape(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.123, "0.12 s"),
        (59.96, "60.0 s"),
        (185, "3 min 05 s"),
        (3599.7, "60 min 00 s"),
        (7800, "2 h 10 min"),
    ],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_charts_are_the_same_bytes_again_and_follow_the_page():
    bar = stacked_bar({"find": 1.0, "decode": 2.0}, {"find": "#4477aa", "decode": "#ee6677"})
    assert bar == stacked_bar({"find": 1.0, "decode": 2.0}, {"find": "#4477aa", "decode": "#ee6677"})
    assert "var(--muted)" in bar
    assert "<metadata" not in bar
