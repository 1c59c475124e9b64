"""A night over a sky in which all is wrong that can be: each object gets its reason, the others are done."""

import bz2
import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from conftest import run_night
from small_frames import SCALE, SHAPE, frame, header, path, sky, write
from toy import toy_config

from gzscale.cutouts.store import read_cutouts
from gzscale.errors import CatalogError
from gzscale.night.origins import cutouts_prefix
from gzscale.night.verify import verify
from gzscale.storage import open_storage
from gzscale.surveys.sdss_ids import Release, encode_objid

BOMB = bytes(30_000_000)


def flipped(stored):
    damaged = bytearray(stored)
    damaged[len(damaged) // 2] ^= 0xFF
    return bytes(damaged)


def with_cards(**cards):
    def change(field):
        head = header(field=field, band="r")
        for key, value in cards.items():
            if value is None:
                del head[key]
            else:
                head[key] = value
        return bz2.compress(frame(cards=head, field=field, band="r"))

    return change


def claiming_ten_billion(field):
    data = frame(field=field, band="r")
    for key in ("NAXIS1", "NAXIS2"):
        place = data.index(f"{key:8}=".encode())
        data = data[:place] + f"{key:8}= {100_000:>20}".ljust(80).encode() + data[place + 80 :]
    return bz2.compress(data)


def whole(field):
    return bz2.compress(frame(field=field, band="r"))


def with_a_nan_block(field):
    pixels = fits.getdata(io.BytesIO(frame(field=field, band="r")))
    pixels[40:110, 40:110] = np.nan
    return bz2.compress(frame(pixels, field=field, band="r"))


#: What is done to a field's r frame -> the reason of the object in its middle.
DAMAGE = {
    "truncated": (lambda field: whole(field)[:-4000], "TRUNCATED_IMAGE"),
    "flipped": (lambda field: flipped(whole(field)), "CHECKSUM"),
    "empty": (lambda field: b"", "EMPTY_IMAGE"),
    "missing band": (lambda field: None, "MISSING_BAND"),
    "html": (lambda field: b"<!DOCTYPE html><html><h1>503</h1></html>", "NOT_FITS"),
    "unit": (with_cards(BUNIT="electron"), "BAD_UNIT"),
    "no wcs": (with_cards(CTYPE1=None, CTYPE2=None, CRVAL1=None), "BAD_WCS"),
    "singular wcs": (with_cards(CD1_1=0.0, CD2_2=0.0), "BAD_WCS"),
    "ten billion pixels": (claiming_ten_billion, "OVERSIZED_IMAGE"),
    "bomb": (lambda field: bz2.compress(frame(field=field, band="r") + BOMB), "OVERSIZED_IMAGE"),
    "all nan": (
        lambda field: bz2.compress(frame(np.full(SHAPE, np.nan, np.float32), field=field, band="r")),
        "ALL_NAN",
    ),
}
FIELDS = {name: 100 + 10 * number for number, name in enumerate(DAMAGE, start=1)}
#: A field whose r frame has a block of NaN, larger than a stamp.
BLOCK = 300


class Sky:
    """The catalog and what each of its objects should become."""

    def __init__(self, root):
        self.root, self.rows, self.expected, self.repeated = root, [], {}, []

    def add(self, name, ra, dec, reason, field=100, size=4.0, object_id=None):
        """Add an object; ``reason`` is None where it should be done."""
        number = len(self.rows)
        if object_id is None:
            object_id = int(encode_objid(Release.DR8, 301, 1234, 3, field, number)[()])
        self.rows.append((object_id, float(ra), float(dec), size))
        self.expected[name] = (object_id, reason)

    def repeat(self, name, shift=0.0):
        """Add an object's row again, so many degrees further north."""
        object_id, _ = self.expected[name]
        row = next(row for row in self.rows if row[0] == object_id)
        self.rows.append((object_id, row[1], row[2] + shift, row[3]))
        self.repeated.append(object_id)

    def field(self, number, r_frame=None, **place):
        for band in "gri":
            stored = bz2.compress(frame(field=number, band=band, **place))
            if band == "r" and r_frame is not None:
                stored = r_frame(number)
            if stored is not None:
                write(self.root, path(number, band), stored)

    def table(self):
        ids, ra, dec, size = zip(*self.rows, strict=True)
        return pa.table({"id": ids, "ra": ra, "dec": dec, "r90": pa.array(size, pa.float32())})


def a_damaged_sky(root):
    made = Sky(root)
    middle = (SHAPE[1] / 2, SHAPE[0] / 2)
    for name, (damage, reason) in DAMAGE.items():
        made.field(FIELDS[name], damage)
        made.add(name, *sky(*middle, FIELDS[name]), reason, FIELDS[name])
    made.field(100)
    made.add("good", *sky(*middle), None)
    made.field(BLOCK, with_a_nan_block)
    made.add("in a nan block", *sky(75, 75, BLOCK), "ALL_NAN", BLOCK)
    made.add("beside a nan block", *sky(118, 75, BLOCK), None, BLOCK)
    made.add("far from a nan block", *sky(200, 220, BLOCK), None, BLOCK)
    made.add("edge", *sky(12, 150), None)
    made.add("corner", *sky(12, 5), None)
    made.add("missing field", *sky(*middle, 90), "MISSING_IMAGE", 90)
    made.add("off every frame", 10.0, -40.0, "OFF_FOOTPRINT")
    made.add("size zero", *sky(100, 100), "BAD_SIZE", size=0.0)
    made.add("size negative", *sky(100, 110), "BAD_SIZE", size=-3.0)
    made.add("size of a million", *sky(100, 120), "BAD_SIZE", size=1e6)
    made.add("no size", *sky(100, 130), "MISSING_SIZE", size=float("nan"))
    made.add("nan ra", float("nan"), 2.0, "BAD_COORDINATES")
    made.add("dec beyond the pole", 150.0, 90.5, "BAD_COORDINATES")
    made.add("north pole", 150.0, 90.0, "OFF_FOOTPRINT")
    made.add("south pole", 150.0, -90.0, "OFF_FOOTPRINT")
    made.repeat("good", 20 * SCALE)
    made.repeat("all nan")
    return made


@pytest.fixture(scope="module")
def damaged(tmp_path_factory):
    folder = tmp_path_factory.mktemp("damaged")
    made = a_damaged_sky(folder / "images")
    config = toy_config(folder, survey={"kind": "sdss", "root": str(folder / "images"), "bands": "gri"})
    pq.write_table(made.table(), folder / "catalog.parquet")
    return made, run_night(config)


def reasons_of(night):
    folder = f"{night.config.output}/releases/{night.record.release}"
    table = pq.read_table(f"{folder}/quarantine.parquet")
    return {row["object_id"]: row for row in table.to_pylist() if row["reason"] != "DUPLICATE_ID"}


def answers_of(night):
    """The released rows, by object."""
    folder = Path(
        night.config.output, "releases", night.record.release, "morphology", "morphology", "dataset"
    )
    rows = [row for file in folder.rglob("Npix=*.parquet") for row in pq.read_table(file).to_pylist()]
    assert len({row["object_id"] for row in rows}) == len(rows)
    return {row["object_id"]: row for row in rows}


OTHERS = [
    "good",
    "in a nan block",
    "beside a nan block",
    "far from a nan block",
    "edge",
    "corner",
    "missing field",
    "off every frame",
    "size zero",
    "size negative",
    "size of a million",
    "no size",
    "nan ra",
    "dec beyond the pole",
    "north pole",
    "south pole",
]


@pytest.mark.parametrize("name", [*DAMAGE, *OTHERS])
def test_each_object_gets_its_reason(damaged, name):
    made, night = damaged
    object_id, reason = made.expected[name]
    row = reasons_of(night).get(object_id)
    assert (row and row["reason"]) == reason, row
    if name in DAMAGE:
        assert "frame-r-001234-3-" in row["detail"]


def test_a_block_of_nan_costs_what_lies_in_it(damaged):
    made, night = damaged
    storage, coverage = open_storage(night.config.output), {}
    for item in night.plan.partitions:
        cutouts = read_cutouts(storage, cutouts_prefix(item.partition), "galaxy")
        coverage |= dict(zip(cutouts.object_id.tolist(), cutouts.coverage.tolist(), strict=True))
    inside, beside, far = (made.expected[f"{where} a nan block"][0] for where in ("in", "beside", "far from"))
    assert coverage[inside] == [1, 0, 1]
    green, red, infrared = coverage[beside]
    assert 0.5 < red < 0.9
    assert (green, infrared) == (1, 1)
    assert coverage[far] == [1, 1, 1]
    assert answers_of(night)[beside]["coverage"] == pytest.approx(red)
    assert answers_of(night)[far]["coverage"] == 1
    detail = reasons_of(night)[inside]["detail"]
    assert detail == f"r: every pixel of {Path(path(BLOCK, 'r')).name.partition('.')[0]} here is missing"


def test_an_object_that_is_given_twice_is_done_once(damaged):
    made, night = damaged
    folder = f"{night.config.output}/releases/{night.record.release}"
    quarantine = pq.read_table(f"{folder}/quarantine.parquet").to_pylist()
    second = {row["object_id"]: row for row in quarantine if row["reason"] == "DUPLICATE_ID"}
    assert sorted(second) == sorted(made.repeated)
    good, _ = made.expected["good"]
    first_dec, second_dec = (dec for object_id, _, dec, _ in made.rows if object_id == good)
    assert first_dec < second_dec
    assert answers_of(night)[good]["dec"] == first_dec
    assert second[good]["dec"] == second_dec
    assert [row["reason"] for row in quarantine if row["object_id"] == good] == ["DUPLICATE_ID"]


def test_nothing_is_lost(damaged):
    made, night = damaged
    assert set(made.expected) == {*DAMAGE, *OTHERS}
    objects = night.record.counts["objects"]
    assert objects.planned == len(made.rows)
    assert objects.closes
    assert objects.failed == 0
    assert objects.done == sum(reason is None for _, reason in made.expected.values())
    assert objects.quarantined["DUPLICATE_ID"] == len(made.repeated) == 2
    assert verify(night.config.output) == []


def test_mending_an_image_is_enough(damaged, tmp_path):
    import shutil

    made, night = damaged
    output, images = tmp_path / "out", tmp_path / "images"
    shutil.copytree(night.config.output, output)
    shutil.copytree(made.root, images)
    survey = night.config.survey.model_copy(update={"root": str(images)})
    config = night.config.model_copy(update={"output": str(output), "survey": survey})
    before = run_night(config, "n2").record.counts["objects"]
    write(images, path(FIELDS["truncated"], "r"), whole(FIELDS["truncated"]))
    after = run_night(config, "n3").record.counts["objects"]
    assert after.done == before.done + 1
    assert "TRUNCATED_IMAGE" not in after.quarantined
    for band in "gri":
        write(images, path(90, band), bz2.compress(frame(field=90, band=band)))
    last = run_night(config, "n4").record.counts["objects"]
    assert last.done == after.done + 1
    assert last.quarantined.get("MISSING_IMAGE", 0) == after.quarantined["MISSING_IMAGE"] - 1


@pytest.mark.parametrize("ra0", [359.9999, 0.0001])
def test_the_seam_of_the_sky(tmp_path, ra0):
    made = Sky(tmp_path / "images")
    made.field(100, ra0=ra0)
    for number, x in enumerate((20, 128, 230)):
        made.add(number, sky(x, 150, ra0=ra0)[0] % 360, sky(x, 150, ra0=ra0)[1], None)
    config = toy_config(tmp_path, survey={"kind": "sdss", "root": str(made.root), "bands": "gri"})
    pq.write_table(made.table(), tmp_path / "catalog.parquet")
    counts = run_night(config).record.counts["objects"]
    assert (counts.planned, counts.done) == (3, 3)


def test_a_catalog_of_one_row_and_of_none(tmp_path):
    made = Sky(tmp_path / "images")
    made.field(100)
    made.add("only", *sky(128, 150), None)
    config = toy_config(tmp_path, survey={"kind": "sdss", "root": str(made.root), "bands": "gri"})
    pq.write_table(made.table(), tmp_path / "catalog.parquet")
    assert run_night(config).record.counts["objects"].done == 1
    pq.write_table(made.table().slice(0, 0), tmp_path / "catalog.parquet")
    with pytest.raises(CatalogError, match=r"catalog\.parquet: the table has 0 rows; .*catalog\.path"):
        run_night(config, "n2")
