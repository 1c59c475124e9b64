"""Which images partitions share, and that a night with them opens each once and makes the same bytes."""

import cdshealpix.nested
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from small_frames import sky, tree
from toy import toy_config

from gzscale.catalog.pixels import Partition
from gzscale.config import load_config
from gzscale.night import scratch, work
from gzscale.night.forecast import forecast
from gzscale.night.ledger import Ledger
from gzscale.night.openings import Openings, openings_text
from gzscale.night.origins import origins, survey_of
from gzscale.night.plan import make_plan
from gzscale.night.scratch import Room
from gzscale.night.sharing import ForeseenRoom, shared_images
from gzscale.storage import open_storage
from gzscale.surveys.base import ImageRef, Shareable
from gzscale.surveys.sdss_ids import Release, encode_objid

ORDER = 6
PIXEL = 12_345


class Circles:
    """Images of a radius of 0.05 degrees at given places."""

    def __init__(self, places, whole=True):
        self.places, self.whole, self.asked = places, whole, []

    def extent(self, ref):
        return (*self.places[ref.name], 0.05)

    def wants_whole(self, density, radius):
        self.asked.append((density, radius))
        return self.whole


def objects(number, width, place):
    """Objects along the diagonal of a square of some degrees."""
    line = np.linspace(-width / 2, width / 2, number)
    return pa.table({"ra": place[0] + line / np.cos(np.radians(place[1])), "dec": place[1] + line})


def refs(names):
    return [ImageRef(name, "r", name, name) for name in names]


def corners():
    """The middle, and a corner, of a pixel 0.9 degrees wide."""
    lon, lat = cdshealpix.nested.healpix_to_lonlat(np.array([PIXEL]), ORDER)
    vertex = cdshealpix.nested.vertices(np.array([PIXEL]), ORDER)
    return (lon.deg[0], lat.deg[0]), (vertex[0].deg[0, 0], vertex[1].deg[0, 0])


def test_an_image_that_reaches_beyond_the_pixel_is_shared():
    middle, corner = corners()
    survey = Circles({"in": middle, "edge": corner})
    rows = objects(9, 0.3, middle)
    found = shared_images(survey, refs(["in", "edge"]), rows, np.full(9, 0.01), Partition(ORDER, PIXEL), 2048)
    assert found == {"edge"}


def test_all_are_shared_where_pixels_are_smaller_than_images():
    middle, _ = corners()
    survey = Circles({"in": middle})
    small = Partition(12, PIXEL << 12)
    rows = objects(9, 0.01, middle)
    assert shared_images(survey, refs(["in"]), rows, np.full(9, 0.01), small, 2048) == {"in"}


def test_the_survey_is_asked_with_the_density_that_is_known():
    middle, corner = corners()
    survey = Circles({"edge": corner}, whole=False)
    partition, area = Partition(ORDER, PIXEL), 41_252.96 / 12 / 4**ORDER
    for number, width in ((9, 2.0), (2000, 2.0), (100, 0.08)):
        rows, radius = objects(number, width, middle), np.full(number, 0.01)
        assert shared_images(survey, refs(["edge"]), rows, radius, partition, 2048) == frozenset()
    # The parent, four times as large, holds more than 2,048 objects; the partition itself is as dense; all
    # of its objects are in a corner.
    expected = [512 / area, 2000 / area, 100 / 0.1**2]
    assert [density for density, _ in survey.asked] == pytest.approx(expected, rel=1e-3)


def test_a_partition_without_neighbours_shares_nothing():
    middle, _ = corners()
    assert not shared_images(
        Circles({"in": middle}), refs(["in"]), objects(3, 1.0, middle), np.ones(3), Partition(0, 3), 10
    )


def test_rubin_takes_a_coadd_whole_where_stamps_would_touch_most_of_it(rubin_sky):
    survey = survey_of(load_config(str(rubin_sky / "night.yaml")))
    assert isinstance(survey, Shareable)
    # Stamps of 19.2 arcsec and cells of 12.8: 7,000 on 0.05 square degrees cover all, 20 a small part.
    radius = 19.2 / 2 * 2**0.5 / 3600
    assert survey.wants_whole(7000 / 0.05, radius)
    assert not survey.wants_whole(20 / 0.05, radius)


def test_the_room_is_foreseen():
    room = ForeseenRoom(2)
    took = [room.take(name, True) for name in ("a", "b", "a", "c", "a", "b")]
    assert took == [False, False, True, False, True, False]
    assert not room.take("d", shared=False)
    assert not room.take("d", shared=False)


def hashes(output):
    storage = open_storage(output)
    return {entry.key: storage.get(entry.key) for entry in storage.list("cutouts")}


@pytest.fixture
def config(rubin_sky, tmp_path):
    def make(name, *more):
        given = [f"output={tmp_path / name}", "max_objects=8", "survey.bands=gri", *more]
        night = load_config(str(rubin_sky / "night.yaml"), given)
        # Lenses and redshifts would want another band.
        return night.model_copy(update={"tasks": {"morphology": night.tasks["morphology"]}})

    return make


def cut_all(config, images):
    plan, origin, openings = make_plan(config, "n1"), origins(config), Openings()
    made = [work.cut(config, origin, item.partition, item.digest, images) for item in plan.partitions]
    for one in made:
        openings.add(one.images, one.taken)
    return openings.to_dict(), made


@pytest.fixture
def images(tmp_path, monkeypatch):
    monkeypatch.setattr(scratch, "_kind_of_disk", lambda folder: "ext4")
    yield scratch.join(tmp_path / "scratch", Room("n1", 10**9, 0))
    scratch._let_go()


def test_a_dense_night_opens_each_image_once_as_the_plan_foresees_and_makes_the_same_bytes(config, images):
    alone, shared = config("alone"), config("shared")
    before, opened = cut_all(alone, None)
    after, made = cut_all(shared, images)
    assert before["opened"] > 20
    assert (after["opened"], after["distinct"]) == (6, 6)
    assert after["taken"] == before["opened"] - 6
    assert forecast(shared)["images"] == openings_text(after)
    assert hashes(alone.output) == hashes(shared.output)
    # Bytes are read once, too.
    assert sum(one.bytes_read for one in made) < sum(one.bytes_read for one in opened) / 2


def test_without_room_the_plan_foresees_what_is_opened_then(config, tmp_path):
    preset = tmp_path / "none.yaml"
    preset.write_text("kind: local\nscratch_cap: 0\n")
    alone = config("alone", f"cluster={preset}")
    assert forecast(alone)["images"] == openings_text(cut_all(alone, None)[0])


def test_an_image_that_changes_during_the_night_is_decoded_anew(config, images, monkeypatch):
    night = config("out")
    survey, item = type(survey_of(night)), make_plan(night, "n1").partitions[0]

    def opened():
        made = work.cut(night, origins(night), item.partition, item.digest, images)
        return len(made.images), len(made.taken)

    number = opened()[0]
    Ledger(open_storage(night.output)).revoke("cut", item.partition)
    assert opened() == (0, number)
    state = survey.state
    monkeypatch.setattr(survey, "state", lambda self, ref: state(self, ref) + " changed")
    assert opened() == (number, 0)


def test_a_survey_that_cannot_be_shared_is_cut_as_ever(tmp_path, images):
    counts, made = cut_all(toy_config(tmp_path / "toy"), images)
    assert "taken" not in counts
    assert len(made) > 1


def test_frames_of_sdss_are_decoded_once_where_partitions_meet(tmp_path, images):
    fields = (100, 101, 102)
    tree(tmp_path / "sky", fields)
    places = [(field, sky(x, y, field)) for field in fields for x, y in ((80, 90), (170, 150), (90, 240))]
    ids = [int(encode_objid(Release.DR8, 301, 1234, 3, place[0], n)[()]) for n, place in enumerate(places)]
    ra, dec = np.array([place[1] for place in places]).T
    size = np.full(len(ids), 4.0, np.float32)

    def night(name):
        config = toy_config(
            tmp_path,
            survey={"kind": "sdss", "root": str(tmp_path / "sky"), "bands": "gri"},
            output=str(tmp_path / name),
            max_objects=2,
        )
        pq.write_table(pa.table({"id": ids, "ra": ra, "dec": dec, "r90": size}), tmp_path / "catalog.parquet")
        return config

    alone, shared = night("alone"), night("shared")
    before, _ = cut_all(alone, None)
    after, _ = cut_all(shared, images)
    assert before["distinct"] == after["distinct"] == 3 * len(fields)
    assert after["opened"] == after["distinct"] < before["opened"]
    assert after["taken"] == before["opened"] - after["opened"]
    assert hashes(alone.output) == hashes(shared.output)
