import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from gzscale.models import inputs as inputs_module
from gzscale.models.inputs import SDSS_STRETCH, FluxInputs, from_flux, from_pictures, render, to_channels

fluxes = arrays(np.float32, (1, 3, 4, 4), elements=st.floats(-10, 1000, width=32))


def reference(flux):
    """Lupton et al. 2004 in SDSS's numbers, one pixel at a time; flux in i, r, g."""
    rgb = np.zeros(3)
    bands = [max(0.0, 0.4 * scale * value) for scale, value in zip((5.0, 6.5, 9.0), flux, strict=True)]
    total = sum(bands)
    if total > 0:
        factor = np.arcsinh(2.25 * total) / (2.25 * total)
        if max(bands) * factor > 1:
            factor = 1 / max(bands)
        rgb = np.array(bands) * factor
    return rgb


@given(fluxes)
@settings(max_examples=30, deadline=None)
def test_rendering_is_luptons(flux):
    found = render(torch.from_numpy(flux)).numpy()
    for y in range(4):
        for x in range(4):
            np.testing.assert_allclose(found[0, :, y, x], reference(flux[0, :, y, x]), rtol=1e-4, atol=1e-6)
    assert found.min() >= 0
    assert found.max() <= 1 + 1e-6


def test_surface_brightness_not_flux_is_rendered():
    fine = torch.full((1, 3, 4, 4), 0.01)
    coarse = 4 * fine  # the same sky in pixels twice as wide
    first = from_flux(fine, torch.tensor([0.3]), "irg")
    second = from_flux(coarse, torch.tensor([0.6]), "irg")
    torch.testing.assert_close(first, second)
    native = from_flux(fine, torch.tensor([0.396]), "irg")
    torch.testing.assert_close(native, render(fine))


def test_bands_are_found_by_name():
    flux = torch.rand(2, 5, 4, 4)
    scale = torch.tensor([0.3, 0.5])
    found = from_flux(flux, scale, "ugriz")
    expected = from_flux(flux[:, [3, 2, 1]], scale, "irg")
    torch.testing.assert_close(found, expected)
    red = torch.zeros(1, 3, 2, 2)
    red[:, 2] = 1.0
    assert from_flux(red, torch.tensor([0.396]), "gri")[0, :, 0, 0].tolist()[1:] == [0, 0]


def test_missing_pixels_are_black_and_only_they():
    flux = torch.full((1, 3, 3, 3), 0.5, dtype=torch.float16)
    flux[0, 1, 0, 0] = torch.nan
    flux[0, :, 1, 1] = torch.inf
    found = from_flux(flux, torch.tensor([0.4]), "irg")
    assert found.dtype == torch.float32
    assert torch.isfinite(found).all()
    assert found[0, :, 0, 0].tolist() == [0, 0, 0]
    assert (found[0, :, 2, 2] > 0.1).all()
    assert found[0, :, 1, 1].max() == 1


def test_pictures_are_averaged_over_blocks_and_cut_to_the_centre():
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (2, 424, 424, 3), dtype=np.uint8)
    found = from_pictures(torch.from_numpy(pictures), 96).numpy()
    assert found.shape == (2, 3, 96, 96)
    blocks = pictures.reshape(2, 106, 4, 106, 4, 3).mean(axis=(2, 4))[:, 5:101, 5:101] / 255
    np.testing.assert_allclose(found, blocks.transpose(0, 3, 1, 2), atol=1e-6)


def test_pictures_of_the_cutouts_own_side_are_taken_as_they_are():
    pictures = torch.arange(96 * 96 * 3, dtype=torch.float32).remainder(255).byte().reshape(1, 96, 96, 3)
    found = from_pictures(pictures, 96)
    torch.testing.assert_close(found, pictures.permute(0, 3, 1, 2) / 255)


def test_both_doors_show_the_same_field():
    """A disk of 2 r90 across is as wide through either door."""
    radius = 10.0  # arcsec

    def disk(side, scale):
        offset = (np.arange(side) - (side - 1) / 2) * scale
        return np.hypot(*np.meshgrid(offset, offset)) < radius

    picture = np.repeat(disk(424, 0.02 * radius)[..., None] * np.uint8(255), 3, axis=2)
    shown = from_pictures(torch.from_numpy(picture[None]), 96)[0].mean(dim=0).numpy() > 0.5
    cut = np.repeat(disk(96, 0.08 * radius)[None], 3, axis=0)[None] * np.float32(10)
    rendered = from_flux(torch.from_numpy(cut), torch.tensor([0.08 * radius]), "irg")[0].numpy() > 0.1
    assert np.count_nonzero(shown != rendered[0]) < 0.02 * np.count_nonzero(shown)


def test_pictures_of_another_side():
    with pytest.raises(ValueError, match="500 pixels"):
        from_pictures(torch.zeros(1, 500, 500, 3, dtype=torch.uint8), 96)


def test_the_numbers_are_sdss_own():
    assert SDSS_STRETCH.bands == "irg"
    np.testing.assert_allclose(SDSS_STRETCH.scales, 0.4 * np.array([5.0, 6.5, 9.0]))


INPUTS = FluxInputs("ur", "r", (0.5, 0.1), (4.0, 2.0))


def channels(images, scale=0.5, noise=0.02, extinction=0.0, inputs=INPUTS):
    count = len(images)
    return to_channels(
        torch.as_tensor(images),
        torch.full((count,), scale, dtype=torch.float64),
        torch.full((count, 2), noise),
        torch.full((count,), extinction),
        inputs,
    ).numpy()


@given(
    arrays(np.float32, (1, 2, 3, 3), elements=st.floats(-1000, 1000, width=32)),
    st.floats(0.1, 2),
    st.floats(1e-3, 10),
    st.floats(0, 2),
)
@settings(max_examples=40, deadline=None)
def test_flux_is_asinh_of_corrected_surface_brightness(images, scale, noise, extinction):
    images[0, :, 0, 0] = 1.0  # no band is 0 throughout
    found = channels(images, scale, noise, extinction)
    factor = 10 ** (0.4 * extinction * np.array([4.0, 2.0])) / scale**2 / np.array([0.5, 0.1])
    expected = np.arcsinh(images.astype(np.float64) * factor[:, None, None])
    np.testing.assert_allclose(found[:, :2], expected, rtol=2e-5, atol=2e-6)
    known = np.broadcast_to((1 / (1 + noise * factor))[:, None, None], (1, 2, 3, 3))
    np.testing.assert_allclose(found[:, 2:], known, rtol=1e-5)


def test_what_was_not_measured_is_zero_and_not_known():
    images = np.ones((4, 2, 3, 3), np.float16)
    images[0, 0, 1, 1] = np.nan
    images[1, 1] = np.nan
    images[2, 0] = 0
    images[3, 0, 0, 0] = np.inf
    found = channels(images)
    assert np.isfinite(found).all()
    for index in ((0, 0, 1, 1), (1, 1), (2, 0)):
        assert not found[index].any()
        assert not found[(index[0], index[1] + 2, *index[2:])].any()
    assert (found[0, 0] == 0).sum() == 1
    assert (found[2, 1] > 0).all()
    assert found[3, 0, 0, 0] > 10


def test_unknown_noise_counts_as_the_softening_and_unknown_extinction_as_none():
    images = np.ones((1, 2, 3, 3), np.float32)
    np.testing.assert_allclose(channels(images, noise=np.nan)[:, 2:], 0.5)
    assert np.array_equal(channels(images, extinction=np.nan), channels(images, extinction=0.0))
    assert (channels(images, noise=np.inf)[:, 2:] == 0).all()


def test_a_fixed_pixel_scale_is_the_inputs_own():
    images = np.ones((1, 2, 3, 3), np.float32)
    fixed = FluxInputs("ur", "r", (0.5, 0.1), (4.0, 2.0), 0.5)
    assert np.array_equal(channels(images, 2.0, inputs=fixed), channels(images, 0.5))


@pytest.mark.parametrize(
    "wrong",
    [
        ("uu", "u", (1.0, 1.0), (1.0, 1.0)),
        ("ur", "", (1.0, 1.0), (1.0, 1.0)),
        ("ur", "r", (1.0, 0.0), (1.0, 1.0)),
    ],
)
def test_inputs_that_cannot_be(wrong):
    with pytest.raises(ValueError, match=r"band|positive"):
        FluxInputs(*wrong)


def test_constants_are_sent_once_and_serve_inference_and_training(monkeypatch):
    sent, tensor = [], torch.tensor
    monkeypatch.setattr(torch, "tensor", lambda *given, **how: sent.append(given) or tensor(*given, **how))
    inputs_module._constants.cache_clear()
    flux, scale = torch.rand(2, 3, 4, 4), torch.ones(2)
    with torch.inference_mode():
        first = from_flux(flux, scale, "irg")
        from_flux(flux, scale, "irg")
    assert len(sent) == 1
    assert torch.equal(from_flux(flux[:, [2, 0, 1]], scale, "gir"), first)
    # Gradients may be wanted of what they are multiplied with.
    kept = inputs_module._constants(SDSS_STRETCH.scales, torch.float32, torch.device("cpu"))
    assert not kept.is_inference()
    assert len(sent) == 1


@pytest.mark.parametrize("size", [96, 95, 32, 106])
@pytest.mark.parametrize("count", [0, 1, 9])
def test_pictures_are_averaged_over_blocks_around_the_centre(size, count):
    pictures = torch.randint(0, 256, (count, 424, 424, 3), dtype=torch.uint8)
    found = from_pictures(pictures, size)
    blocks = pictures.numpy().reshape(count, 106, 4, 106, 4, 3).mean(axis=(2, 4)) / 255
    start = (106 - size) // 2
    centre = blocks[:, start : start + size, start : start + size].transpose(0, 3, 1, 2)
    np.testing.assert_allclose(found, centre, atol=1e-6)
    # To the bit as all of it would be at once: what was learnt was made so.
    whole = torch.nn.functional.avg_pool2d(pictures.permute(0, 3, 1, 2).float().div_(255), 4)
    assert torch.equal(found, whole[..., start : start + size, start : start + size])
