"""The synthetic frame beside a real one: the same HDUs, cards and column formats."""

import bz2
import io

import numpy as np
import pytest
from astropy.io import fits

from gzscale.sky import camera, frames, scan

KEY = scan.FieldKey(3, 11)

pytestmark = pytest.mark.real


def real(data, band):
    path = data / f"sdss/eboss/photoObj/frames/301/3918/3/frame-{band}-003918-3-0213.fits.bz2"
    return fits.open(io.BytesIO(bz2.decompress(path.read_bytes())))


def synthetic(band):
    pixels = camera.observe(np.zeros((scan.ROWS, scan.COLUMNS), np.float32), KEY, band, seed=1)
    return fits.open(io.BytesIO(frames.frame_bytes(KEY, band, pixels)))


@pytest.fixture(scope="module", params=["r", "u"])
def pair(request, real_data):
    return real(real_data, request.param), synthetic(request.param)


def test_cards_are_the_same_in_the_same_order(pair):
    for theirs, ours in zip(*pair, strict=True):
        assert list(ours.header) == list(theirs.header)
        for name, value in theirs.header.items():
            if name not in ("COMMENT", "HISTORY"):
                assert type(ours.header[name]) is type(value), name


def test_layout_is_the_same(pair):
    for theirs, ours in zip(*pair, strict=True):
        assert ours.data.dtype == theirs.data.dtype
        assert ours.data.shape == theirs.data.shape
        assert type(ours) is type(theirs)


def test_noise_is_within_a_fifth_of_the_real(pair):
    spread = [1.4826 * np.median(np.abs(hdus[0].data - np.median(hdus[0].data))) for hdus in pair]
    assert spread[1] == pytest.approx(spread[0], rel=0.2)


def test_compressed_size_is_like_the_real(pair):
    sizes = [len(bz2.compress(hdus[0].data[:300].tobytes())) for hdus in pair]
    assert sizes[1] == pytest.approx(sizes[0], rel=0.2)
