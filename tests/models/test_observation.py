import numpy as np

from gzscale.models.observation import Observation, background_noise
from gzscale.tasks.seen import look


def make(count=5, bands="ug"):
    rng = np.random.default_rng(0)
    return Observation.of(rng.normal(0, 0.1, (count, len(bands), 40, 40)), bands, np.full(count, 0.4))


def test_what_is_not_known_is_nan():
    made = make()
    assert np.isnan(made.noise).all()
    assert made.noise.shape == (5, 2)
    assert np.isnan(made.extinction).all()
    assert len(made.take(slice(1, 3))) == 2


def test_the_seeing_goes_with_the_object():
    images, seeing = make().images, np.arange(10.0).reshape(5, 2)
    made = Observation.of(images, "ug", np.full(5, 0.4), seeing=seeing)
    rows = np.array([4, 1])
    for some in (made.take(rows), look(made).take(rows), look(made.take(rows))):
        np.testing.assert_array_equal(some.seeing, seeing[rows].astype(np.float32))
    assert make().take(rows).seeing is None
    assert look(make()).take(rows).seeing is None


def test_the_rim_tells_the_noise_whatever_lies_in_the_middle():
    images = make(200).images
    images[:, :, 10:30, 10:30] += 50
    images[0, 0] = np.nan
    noise = background_noise(images)
    assert np.isnan(noise[0, 0])
    assert abs(np.nanmean(noise) - 0.1) < 0.003


def test_what_is_seen():
    images = make(400).images.astype(np.float16)
    images[0, 0] = np.nan
    images[1, 1] = 0
    images[2, 0, :20] = np.nan
    images[3, 1, 5, 5] = 7
    images[4, 0, 0, 0] = np.inf
    seen = look(Observation.of(images, "ug", np.full(400, 0.4)))
    assert seen.measured[:5].tolist() == [[False, True], [True, False], *([[True, True]] * 3)]
    assert seen.coverage[:3].tolist() == [[0, 1], [1, 1], [0.5, 1]]
    assert seen.brightest[3, 1] == 7
    assert np.isnan(seen.brightest[0, 0])
    assert seen.flux[0, 0] == 0
    expected = np.where(np.isfinite(images), images, 0).astype(np.float64).sum(axis=(2, 3))
    np.testing.assert_allclose(seen.flux, expected, atol=1e-4)
    assert seen.take(np.array([3])).brightest[0, 1] == 7
    assert (seen.band("g"), seen.band("z")) == (1, None)


def test_nothing_is_seen_of_nothing():
    seen = look(make(0))
    assert len(seen) == 0
    assert seen.flux.shape == (0, 2)
