"""Lensed arcs against lenstronomy, the field's own code, and against what lensing conserves."""

import numpy as np
import pytest
from lenstronomy.Data.imaging_data import ImageData
from lenstronomy.Data.psf import PSF
from lenstronomy.ImSim.image_model import ImageModel
from lenstronomy.LensModel.lens_model import LensModel
from lenstronomy.LightModel.light_model import LightModel
from lenstronomy.Util.param_util import phi_q2_ellipticity, shear_polar2cartesian

from gzscale.sky.lens import CLUMPS, Lenses, deflection, render_arcs, sersic_peak

SCALE, SIZE = 0.396, 64


def lenses(n=1, **changes):
    """One clump of old light, n times, with some values changed."""
    zeros = np.zeros((n, CLUMPS))
    share = np.zeros((n, 2, CLUMPS))
    share[:, 0, 0] = 1
    given = {
        "einstein_radius": np.full(n, 1.5),
        "axis_ratio": np.full(n, 0.7),
        "angle": np.full(n, 0.5),
        "shear": np.full(n, 0.05),
        "shear_angle": np.full(n, 1.1),
        "x": zeros + 0.15,
        "y": zeros - 0.1,
        "radius": zeros + 0.25,
        "index": zeros + 1.0,
        "flattening": zeros + 0.8,
        "tilt": zeros + 0.3,
        "share": share,
        "flux": np.repeat(np.array([[[2.0, 3.0], [0.0, 0.0]]]), n, axis=0),
    }
    return Lenses(**(given | changes))


def centroid(image):
    row, column = np.indices(image.shape)
    middle = (image.shape[0] - 1) / 2
    return ((image * part).sum() / image.sum() - middle for part in (column, row))


@pytest.mark.parametrize("axis_ratio", [0.4, 0.75, 0.95])
@pytest.mark.parametrize("angle", [0.0, 0.7, 2.4])
def test_deflection_is_that_of_lenstronomy(axis_ratio, angle):
    rng = np.random.default_rng(1)
    x, y = rng.uniform(-4, 4, (2, 200))
    ours = deflection(x, y, 1.4, axis_ratio, angle, 0.07, 2.0)
    e1, e2 = phi_q2_ellipticity(angle, axis_ratio)
    gamma1, gamma2 = shear_polar2cartesian(2.0, 0.07)
    model = LensModel(["SIE", "SHEAR"])
    theirs = model.alpha(x, y, [{"theta_E": 1.4, "e1": e1, "e2": e2}, {"gamma1": gamma1, "gamma2": gamma2}])
    # Theirs has a core of 1e-4 of the scale.
    np.testing.assert_allclose(ours, theirs, atol=2e-3)


def test_arcs_are_those_of_lenstronomy():
    lens = lenses()
    seeing = 1.3
    (image,), _ = render_arcs(lens, np.full((1, 2), seeing), SIZE, np.array([SCALE]))
    e1, e2 = phi_q2_ellipticity(0.5, 0.7)
    gamma1, gamma2 = shear_polar2cartesian(1.1, 0.05)
    s1, s2 = phi_q2_ellipticity(0.3, 0.8)
    edge = -(SIZE - 1) / 2 * SCALE
    data = ImageData(
        np.zeros((SIZE, SIZE)),
        ra_at_xy_0=edge,
        dec_at_xy_0=edge,
        transform_pix2angle=SCALE * np.eye(2),
        background_rms=1.0,
        exposure_time=1.0,
    )
    fine = 5
    axis = (np.arange(25 * fine) - (25 * fine - 1) / 2) * SCALE / fine
    core = seeing / (2 * np.sqrt(2 ** (1 / 3.5) - 1))
    kernel = (1 + (axis[:, None] ** 2 + axis[None, :] ** 2) / core**2) ** -3.5
    psf = PSF("PIXEL", kernel_point_source=kernel / kernel.sum(), point_source_supersampling_factor=fine)
    model = ImageModel(
        data,
        psf,
        LensModel(["SIE", "SHEAR"]),
        LightModel(["SERSIC_ELLIPSE"]),
        kwargs_numerics={"supersampling_factor": fine, "supersampling_convolution": True},
    )
    # Their radius is the geometric mean of the axes, ours the major one.
    source = {
        "amp": 1.0,
        "R_sersic": 0.25 * np.sqrt(0.8),
        "n_sersic": 1.0,
        "e1": s1,
        "e2": s2,
        "center_x": 0.15,
        "center_y": -0.1,
    }
    theirs = model.image(
        [{"theta_E": 1.5, "e1": e1, "e2": e2}, {"gamma1": gamma1, "gamma2": gamma2}], [source]
    )
    theirs *= image[0].sum() / theirs.sum()
    assert np.abs(image[0] - theirs).max() < 0.02 * image[0].max()
    assert np.abs(image[0] - theirs).sum() < 0.03 * image[0].sum()
    np.testing.assert_allclose(image[1], 1.5 * image[0], atol=1e-6 * image[0].max())


def test_magnification_far_out_is_one_and_position_is_kept():
    lens = lenses(
        einstein_radius=np.full(1, 1e-6),
        shear=np.zeros(1),
        x=np.full((1, CLUMPS), 1.2),
        y=np.full((1, CLUMPS), -0.4),
    )
    (image,), magnification = render_arcs(lens, np.full((1, 2), 1.2), SIZE, np.array([SCALE]))
    assert magnification[0] == pytest.approx(1, abs=0.02)
    assert image[0].sum() == pytest.approx(2, rel=0.02)
    x, y = centroid(image[0])
    assert x * SCALE == pytest.approx(1.2, abs=0.01)
    assert y * SCALE == pytest.approx(-0.4, abs=0.01)


def test_magnification_of_a_point_behind_a_sphere():
    impact = 0.5
    lens = lenses(
        axis_ratio=np.ones(1),
        shear=np.zeros(1),
        x=np.full((1, CLUMPS), impact),
        y=np.zeros((1, CLUMPS)),
        radius=np.full((1, CLUMPS), 0.1),
        flattening=np.ones((1, CLUMPS)),
    )
    _, magnification = render_arcs(lens, np.full((1, 2), 1.2), SIZE, np.array([SCALE]))
    assert magnification[0] == pytest.approx(2 * 1.5 / impact, rel=0.05)


def test_sersic_of_unit_flux():
    for index, reach in ((1.0, 40), (2.0, 400)):
        peak, b = sersic_peak(np.array(0.7), np.array(index), np.array(0.6))
        radius = np.linspace(0, reach, 400_001)
        profile = peak * np.exp(-b * (radius / 0.7) ** (1 / index)) * 2 * np.pi * radius * 0.6
        step = radius[1]
        assert profile.sum() * step == pytest.approx(1, rel=2e-3)
        assert profile[radius < 0.7].sum() * step == pytest.approx(0.5, rel=5e-3)


def test_coarse_and_fine_pixels_hold_the_same_flux():
    lens = lenses()
    totals = [
        render_arcs(lens, np.full((1, 2), 1.3), size, np.array([scale]))[0][0, 0].sum()
        for size, scale in ((64, 0.396), (33, 0.8), (128, 0.2))
    ]
    np.testing.assert_allclose(totals, totals[0], rtol=0.02)
