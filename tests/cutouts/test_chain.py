"""Stamps along a chain of overlapping images, whose places are used again: each as if it were cut alone."""

import dataclasses

import numpy as np
import pytest
from memory_survey import MemorySurvey, make_image, make_rows, make_wcs

from gzscale.config import GeometryConfig
from gzscale.cutouts.ingest import cut_partition
from gzscale.cutouts.slots import assign_slots
from gzscale.cutouts.stack import Stack
from gzscale.cutouts.store import read_cutouts
from gzscale.storage import open_storage

SKY = {"sky": GeometryConfig(size=32, scale=0.396)}
PREFIX = "cutouts/Norder=3/Dir=0/Npix=7.zarr"
STEP, IMAGES = 80, 7


class Chain(MemorySurvey):
    """Images in a row, each `STEP` pixels on; a stamp lies on up to four, and is paired with those alone."""

    ranked = False

    def find(self, rows, radius):
        every = super().find(rows, radius)
        ra, dec = (rows.column(name).to_numpy() for name in ("ra", "dec"))
        near = np.zeros(len(every.pair_object), bool)
        images = {image.ref: image for image in self.images}
        for place, (image, row) in enumerate(zip(every.pair_image, every.pair_object, strict=True)):
            x, y = images[every.images[image]].wcs.wcs_world2pix(ra[row], dec[row], 0)
            near[place] = -20 < x < 260 and -20 < y < 220
        objects, numbers = every.pair_object[near], every.pair_image[near]
        ranks = None
        if self.ranked:
            # The later image goes before the earlier ones.
            ranks = np.array(
                [(numbers[objects == o] > n).sum() for o, n in zip(objects, numbers, strict=True)]
            )
        return dataclasses.replace(every, pair_object=objects, pair_image=numbers, pair_rank=ranks)


def chain(ranked, broken=()):
    images = []
    for number in range(IMAGES):
        pixels = np.random.default_rng(number).normal(0, 0.02, (200, 240)) + 0.01
        wcs = make_wcs(150.0, 2.0, shift=(-STEP * number, 0))
        images.append(make_image(pixels, wcs, f"frame-r-{number}", exposure=str(number)))
    survey = Chain(images, "r", broken={f"frame-r-{number}": "BAD_IMAGE" for number in broken})
    survey.ranked = ranked
    return survey


def cut(survey, rows, folder):
    storage = open_storage(folder)
    result = cut_partition(survey, rows, SKY, storage, PREFIX)
    return result, read_cutouts(storage, PREFIX, "sky", result.inventory)


@pytest.mark.parametrize("ranked", [False, True])
@pytest.mark.parametrize("broken", [(), (2, 6)])
def test_each_is_cut_as_if_it_were_alone(tmp_path, ranked, broken):
    rng = np.random.default_rng(3)
    x = rng.uniform(20, 220 + STEP * (IMAGES - 1), 25)
    ra, dec = make_wcs(150.0, 2.0).wcs_pix2world(x, rng.uniform(20, 180, 25), 0)
    rows = make_rows(ra, dec)
    survey = chain(ranked, broken)
    result, together = cut(survey, rows, tmp_path / "together")
    cover = survey.find(rows, np.zeros(25))
    several = np.bincount(cover.pair_object, minlength=25)
    assert several.max() > 2, "some wait for a third image"
    lost = dict(zip(result.quarantine["object_id"].to_pylist(), result.quarantine["reason"], strict=True))
    for row in range(25):
        alone, cutouts = cut(chain(ranked, broken), rows.slice(row, 1), tmp_path / str(row))
        name = int(rows["object_id"][row].as_py())
        assert (alone.quarantine.num_rows == 1) == (name in lost)
        if name in lost:
            continue
        at = int(np.flatnonzero(together.object_id == name)[0])
        assert together.images[at].tobytes() == cutouts.images[0].tobytes()
        assert together.coverage[at] == cutouts.coverage[0]
        assert together.noise[at] == pytest.approx(cutouts.noise[0], rel=1e-6, nan_ok=True)
        used = [together.sources[k]["name"] for k in together.image_index[at, 0] if k >= 0]
        assert used == [cutouts.sources[k]["name"] for k in cutouts.image_index[0, 0] if k >= 0]


def test_places_along_the_chain_are_used_again():
    """Else the test above would show nothing."""
    first = np.repeat(np.arange(IMAGES - 1), 5)
    _, count = assign_slots(np.ones(len(first), np.int64), first, first + 1)
    assert count == 10 < len(first)


def test_an_image_before_the_last_one_is_passed_is_refused():
    stack = Stack(SKY["sky"], np.full(1, 0.396), 1)
    stack.start_band(0, np.ones(1, np.int64), np.array([[0, 1]]))
    image = chain(False).images[2]
    with pytest.raises(AssertionError, match="places"):
        stack.add(image, 2, 0, np.array([0]), np.array([150.0]), np.array([2.0]))
