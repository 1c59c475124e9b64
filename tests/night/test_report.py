"""The report of small nights: numbers that close, strings that stay text, pictures that hide nothing."""

import base64
import io
import json
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from small_night import BANDS, EVIL, NAME, SIDE, write_small_night

import gzscale
from gzscale.errors import MissingError, Reason
from gzscale.night.contact import picture_of
from gzscale.night.ledger import Ledger, NightRecord
from gzscale.night.overview import look_over
from gzscale.night.panels import panels
from gzscale.night.planned import plan_key, read_plan
from gzscale.night.reasons import reason_meanings
from gzscale.night.report import write_report
from gzscale.storage import open_storage
from gzscale.tasks.morphology import MorphologyTask

VOID = {"meta", "img", "br", "link", "input", "hr", "use", "path"}


class Page(HTMLParser):
    """What a page holds: its text, tables by section, pictures, and whatever it would load or run."""

    def __init__(self, text):
        super().__init__()
        self.text, self.tags, self.tables, self.images, self.loads, self.ids = "", [], {}, [], [], []
        self.captions = []
        self._open, self._section, self._cell = [], "", None
        self.feed(text)
        self.close()
        assert self._open == [], "every element is closed"

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.append(tag)
        self.ids += [attrs["id"]] if "id" in attrs else []
        if tag == "img":
            self.images.append(attrs["src"])
        self.loads += [
            attrs[name]
            for name in ("src", "href", "xlink:href", "data", "action")
            if name in attrs and not attrs[name].startswith(("#", "data:"))
        ]
        if tag == "table":
            self.tables.setdefault(self._section, []).append([])
        elif tag == "tr" and "table" in self._open:
            self.tables[self._section][-1].append([])
        elif tag in ("td", "th", "h2", "figcaption", "dd"):
            self._cell = ""
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        if tag not in VOID:
            self.handle_starttag(tag, attrs)
            self._open.pop()
        else:
            self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag):
        if tag in VOID:
            return
        assert self._open.pop() == tag
        if tag in ("td", "th"):
            self.tables[self._section][-1][-1].append(self._cell)
        elif tag == "h2":
            self._section = self._cell
        elif tag == "figcaption":
            self.captions.append(self._cell)

    def handle_data(self, data):
        if "style" in self._open:
            return
        self.text += data
        if self._cell is not None:
            self._cell += data


def page_of(url):
    return Page(Path(url.removeprefix("file://")).read_text(encoding="utf-8"))


def account_rows(page):
    """Stage -> planned, done, quarantined, failed, as the page's table says."""
    return {
        row[0]: [int(row[place].replace(",", "")) for place in (1, 3, 5, 7)]
        for row in page.tables["Accounting"][0][1:]
    }


@pytest.fixture(scope="module")
def night(tmp_path_factory):
    return write_small_night(tmp_path_factory.mktemp("night"))


@pytest.fixture(scope="module")
def page(night):
    return page_of(write_report(night.output))


def test_the_account_closes_on_the_page_and_in_json(night, page):
    rows = account_rows(page)
    assert list(rows) == ["all objects", "catalog", "cutouts, geometry galaxy", "task morphology"]
    for planned, done, quarantined, failed in rows.values():
        assert planned == done + quarantined + failed
    # 40 good rows, one without ra, one duplicate; every tenth row of a partition has no image.
    assert rows["catalog"] == [42, 40, 2, 0]
    assert rows["all objects"] == [42, len(night.ids), 42 - len(night.ids), 0]
    assert "The account closes" in page.text
    account = json.loads(Path(night.output, "reports", NAME, "accounting.json").read_text())
    assert [account[key] for key in ("planned", "done", "failed")] == [42, len(night.ids), 0]
    assert sum(account["quarantined"].values()) == rows["all objects"][2]


def test_an_account_that_does_not_close_is_shouted(night, tmp_path):
    record = NightRecord(**(vars(night.record) | {"night": "broken"}))
    record.counts = {name: type(count)(**count.to_dict()) for name, count in record.counts.items()}
    record.counts["objects"].done -= 1
    Ledger(open_storage(str(tmp_path))).write_night(record)
    found = page_of(write_report(str(tmp_path), "broken"))
    assert "does not close for objects" in found.text
    assert "The account closes" not in found.text


def test_the_page_is_self_contained_and_well_formed(page, night):
    assert page.loads == []
    assert not {"script", "link", "iframe", "object", "embed"} & set(page.tags)
    assert len(page.ids) == len(set(page.ids))
    assert len(page.text) < Path(night.output, "reports", NAME, "report.html").stat().st_size < 6e6
    assert gzscale.__version__ in page.text


def test_strings_of_outside_stay_text(page):
    assert EVIL in page.text
    assert "script" not in page.tags


def test_reasons_come_with_their_meaning_and_examples(page, night):
    summary, examples = page.tables["Quarantine"]
    said = {row[0]: (int(row[1]), row[2]) for row in summary[1:]}
    assert said["MISSING_IMAGE"][0] == night.record.counts["objects"].quarantined["MISSING_IMAGE"]
    assert said["BAD_COORDINATES"] == (1, reason_meanings()["BAD_COORDINATES"])
    assert said["DUPLICATE_ID"][0] == 1
    bad = next(row for row in examples if row[0] == "BAD_COORDINATES")
    assert bad[1:4] == ["11", "none", "2.10000"]
    assert 1 <= sum(row[0] == "MISSING_IMAGE" for row in examples) <= 3


def test_every_reason_has_a_meaning():
    assert set(reason_meanings()) == {reason.value for reason in Reason}
    assert reason_meanings()["CHECKSUM"] == "The image file's bytes do not match its own checksum."


def test_the_limiting_step_is_named_with_its_share(page):
    assert "decode is what limits: it takes 61 % of their time" in page.text
    assert "process, 86 % of the wall time" in page.text  # 56 of 3 + 56 + 6 seconds
    assert "9.1 % of the workers' capacity (2 slots)" in page.text  # 1 - 100 / (2 x 55)
    steps = {row[0]: row[3] for row in page.tables["Timings"][0][1:]}
    assert steps == {
        "find": "1.0 %",
        "decode": "61.0 %",
        "resample": "20.0 %",
        "write": "5.0 %",
        "load": "2.0 %",
        "infer": "10.0 %",
        "other": "1.0 %",
    }


def test_histograms_count_the_galaxies_that_would_be_asked(night):
    storage = open_storage(night.output)
    shown = panels(MorphologyTask().columns)
    overview = look_over(storage, night.record, read_plan(storage, NAME), {"morphology": shown})
    table = pa.concat_tables(night.tables)
    features = table["t01_smooth_or_features_a02_features_or_disk_fraction"].to_numpy()
    face_on = table["t02_edgeon_a05_no_fraction"].to_numpy()
    spiral = table["t04_spiral_a08_spiral_fraction"].to_numpy()
    asked = {
        1: np.ones(len(features), bool),
        2: features >= 0.5,
        4: features.astype(float) * face_on >= 0.5,
        11: features.astype(float) * face_on * spiral >= 0.5,
    }
    for question, chosen in asked.items():
        histogram = overview.histograms["morphology"][question - 1]
        assert histogram.objects == chosen.sum()
        for column, counts in zip(histogram.panel.columns, histogram.counts, strict=True):
            values = table[column].to_numpy()[chosen]
            assert counts.tolist() == np.histogram(values, 20, (0, 1))[0].tolist()
    assert sum(state.done for state in overview.partitions) == len(night.ids)


def test_the_sheet_shows_each_galaxy_once_with_its_likeliest_path(page, night):
    shown = [int(caption[:19]) for caption in page.captions]
    assert len(shown) == len(set(shown)) == len(page.images) > 20
    assert set(shown) <= set(night.ids)
    table = pa.concat_tables(night.tables)
    row = table.slice(table["object_id"].to_pylist().index(shown[0]), 1).to_pylist()[0]
    smooth = row["t01_smooth_or_features_a01_smooth_fraction"]
    assert f"smooth {smooth:.2f}" in page.captions[0]
    assert smooth == max(table["t01_smooth_or_features_a01_smooth_fraction"].to_pylist())
    assert "0.48″/px, 12″" in page.captions[0]


def test_what_is_not_covered_is_transparent_in_the_sheet(page):
    covered = []
    for source in page.images:
        picture = Image.open(io.BytesIO(base64.b64decode(source.split(",")[1])))
        assert picture.size == (SIDE, SIDE)
        assert picture.mode == "RGBA"
        covered.append((np.asarray(picture)[..., 3] == 255).mean())
    assert set(covered) == {0.75, 1.0}
    said = [0.75 if "75 % covered" in caption else 1.0 for caption in page.captions]
    assert said == covered


def test_pictures_have_north_up_and_their_own_colours():
    flux = np.zeros((5, 8, 8), np.float32)
    flux[BANDS.index("i"), 7, 0] = 0.1  # the row that is farthest north: red
    flux[BANDS.index("g"), 0, 7] = 0.1  # the row that is farthest south: blue
    flux[BANDS.index("r"), 3, 3] = np.nan
    flux[BANDS.index("u"), 4, 4] = np.nan  # not shown, so not missed
    pixels = np.asarray(picture_of(flux, 0.396, BANDS))
    assert pixels[0, 0, 0] > 0
    assert pixels[0, 0, 1:3].max() == 0
    assert pixels[7, 7, 2] > 0
    assert pixels[7, 7, :2].max() == 0
    assert np.argwhere(pixels[..., 3] == 0).tolist() == [[4, 3]]


def test_the_page_is_the_same_bytes_again(night, page):
    path = Path(night.output, "reports", NAME, "report.html")
    before = path.read_bytes()
    write_report(night.output, NAME)
    assert path.read_bytes() == before


def test_a_failed_night_says_what_failed(tmp_path):
    night = write_small_night(tmp_path, failed_partitions=1, state="failed")
    found = page_of(write_report(night.output))
    failed = night.record.failures[0]
    assert found.tables["Failures"][0][1] == [
        failed["partition"],
        str(failed["rows"]),
        f"StorageError: {EVIL}",
    ]
    rows = account_rows(found)
    assert rows["all objects"][3] == rows["task morphology"][3] == failed["rows"]
    assert rows["all objects"][0] == sum(rows["all objects"][1:])
    assert "This night released nothing" in found.text
    assert "script" not in found.tags


def test_a_night_of_which_nothing_was_done(tmp_path):
    night = write_small_night(tmp_path, objects=6, lost_every=1)
    found = page_of(write_report(night.output))
    assert account_rows(found)["all objects"] == [8, 0, 8, 0]
    assert found.images == []
    assert "0 of 1 partitions are wholly done" in found.text


def test_a_night_that_is_not_finished_has_no_account_yet(night, tmp_path):
    storage = open_storage(str(tmp_path))
    record = NightRecord(NAME, "running", night.record.inputs, "f" * 64, started="2031-05-06T07:08:09+00:00")
    Ledger(storage).write_night(record)
    assert "before its account was closed" in page_of(write_report(str(tmp_path))).text


def test_damage_is_named_on_the_page(tmp_path):
    night = write_small_night(tmp_path, objects=30)
    lost = next(Path(night.output, "predictions").rglob("*.parquet"))
    lost.write_bytes(b"PAR1 nothing")
    shard = next(Path(night.output, "cutouts").rglob("images/c/0/0/0/0"))
    shard.write_bytes(shard.read_bytes()[:-1])
    found = page_of(write_report(night.output))
    messages = " ".join(row[0] for row in found.tables["Not readable"][0][1:])
    assert lost.name in messages
    if lost.stem not in str(shard):  # of a partition without predictions no cutout is looked at
        assert "images/c/0/0/0/0" in messages


def test_a_night_without_a_plan_still_has_a_page(tmp_path):
    night = write_small_night(tmp_path, objects=4)
    Path(night.output, plan_key(NAME)).unlink()
    found = page_of(write_report(night.output))
    assert account_rows(found)["all objects"][0] == 6
    assert "The plan cannot be read" in found.text


def test_no_night_is_an_error_that_names_the_output(tmp_path):
    with pytest.raises(MissingError, match="no night was run"):
        write_report(str(tmp_path))
