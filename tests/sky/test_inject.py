"""Injection: what is added is what was drawn, with its own photons' noise, in any store."""

from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from gzscale.cli import main
from gzscale.config import GeometryConfig
from gzscale.cutouts.store import read_cutouts
from gzscale.cutouts.write import GroupContent, PartitionWriter
from gzscale.errors import CatalogError, MissingError
from gzscale.sky.blocks import Request
from gzscale.sky.deflectors import aperture_flux, measure, measure_seeing
from gzscale.sky.inject import add_light, arc_noise, draw_arcs, electrons_of
from gzscale.sky.inject_store import Injection, inject_store
from gzscale.sky.lens_population import draw_lenses
from gzscale.sky.lens_sources import template_magnitudes
from gzscale.sky.mimics import MIMICS, draw_kinds, draw_mimics
from gzscale.sky.samples import read_sample, write_sample
from gzscale.sky.stamps import measured_stamps, read_stamps, stored_cutouts
from gzscale.storage import open_storage

SCALE, SIZE, SEEING = 0.396, 64, 1.25
NOISE = {"u": 0.045, "g": 0.016, "r": 0.026, "i": 0.046, "z": 0.17}


def moffat(x, y, width):
    core = width / (2 * np.sqrt(2 ** (1 / 3.5) - 1))
    profile = (1 + (x**2 + y**2) / core**2) ** -3.5
    return profile / profile.sum()


def red_galaxies(n, bands="ugriz", seed=1, redshift=0.25, stars=True):
    """Passive galaxies, exponential and blurred by hand, each with a star beside; nanomaggies with noise."""
    rng = np.random.default_rng(seed)
    axis = (np.arange(SIZE) - (SIZE - 1) / 2) * SCALE
    x, y = np.meshgrid(axis, axis)
    magnitudes = template_magnitudes("E", np.array([redshift]), bands)[0]
    magnitudes += 18.3 - template_magnitudes("E", np.array([redshift]), "r")[0, 0]
    images = np.empty((n, len(bands), SIZE, SIZE), np.float32)
    kernel = np.fft.rfft2(np.fft.ifftshift(moffat(x - axis[32], y - axis[32], SEEING)))
    for row in range(n):
        q, angle = rng.uniform(0.6, 0.95), rng.uniform(0, np.pi)
        u, v = np.cos(angle) * x + np.sin(angle) * y, (np.cos(angle) * y - np.sin(angle) * x) / q
        galaxy = np.exp(-np.hypot(u, v) / 0.7)
        galaxy = np.fft.irfft2(np.fft.rfft2(galaxy / galaxy.sum()) * kernel, s=(SIZE, SIZE))
        star = moffat(x - 8.3 - rng.uniform(-1, 1), y + 7.9 + rng.uniform(-1, 1), SEEING) if stars else 0
        for place, band in enumerate(bands):
            light = 10 ** (0.4 * (22.5 - magnitudes[place])) * galaxy + 20 * star
            images[row, place] = light + rng.normal(0, NOISE[band], (SIZE, SIZE))
    return images


def write_store(folder, images, bands="ugriz", first_id=100, seeing=None):
    """Write a store of one image, which says its seeing where it is given."""
    n = len(images)
    source = {"name": "frame-r-000001-1-0001", "band": "r", "sha256": "", "size": 0}
    told = {} if seeing is None else {"seeing": seeing}
    content = GroupContent(
        geometry=GeometryConfig(size=SIZE, scale=SCALE),
        bands=bands,
        images=images.astype(np.float16),
        object_id=first_id + np.arange(n),
        ra=np.linspace(10, 11, n),
        dec=np.linspace(-1, 1, n),
        scale=np.full(n, SCALE),
        coverage=np.isfinite(images).mean(axis=(2, 3)).astype(np.float32),
        noise=np.repeat(np.array([[NOISE[band] for band in bands]], np.float32), n, axis=0),
        band_status=np.zeros((n, len(bands)), np.uint8),
        image_index=np.zeros((n, len(bands), 1), np.int32),
        sources=({**source, **told},),
    )
    writer = PartitionWriter(open_storage(str(folder)), "cutouts/Norder=0/Dir=0/Npix=3.zarr")
    writer.write_group("sky", content)
    writer.close()
    return folder


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return write_store(tmp_path_factory.mktemp("store"), red_galaxies(24))


@pytest.fixture(scope="module")
def stamps(store):
    (cutouts,) = stored_cutouts(str(store), "sky")
    return measured_stamps(cutouts, "gri")


def test_seeing_is_that_of_the_stars(stamps):
    np.testing.assert_allclose(stamps.seeing, SEEING, rtol=0.08)


def test_red_galaxies_are_deflectors_of_their_redshift(stamps):
    assert stamps.deflector.mean() > 0.9
    np.testing.assert_allclose(stamps.magnitude, 18.3, atol=0.15)
    assert np.median(np.abs(stamps.redshift - 0.25)) < 0.04


def test_stars_halos_and_holes_are_none():
    axis = (np.arange(SIZE) - (SIZE - 1) / 2) * SCALE
    x, y = np.meshgrid(axis, axis)
    galaxy = red_galaxies(1, "gri", stars=False)[0]
    star = np.stack([flux * moffat(x, y, SEEING) for flux in (10, 45, 70)])
    halo, hole, beside = galaxy + 0.5, galaxy.copy(), galaxy.copy()
    hole[:, :20] = np.nan
    beside += 300 * moffat(x - 2.5, y, SEEING)
    images = np.stack([galaxy, star, halo, hole, beside]).astype(np.float32)
    n = len(images)
    noise = np.repeat([[NOISE[band] for band in "gri"]], n, axis=0)
    found = measure(images, "gri", np.full(n, SCALE), np.full((n, 3), SEEING), noise)
    assert found.chosen.tolist() == [True, False, False, False, False]


@pytest.mark.parametrize("seeing", [0.7, 1.0, 1.5])
@pytest.mark.parametrize(("scale", "survey"), [(0.396, "sdss"), (0.2, "rubin")])
def test_a_star_beside_the_centre_is_no_galaxy(scale, survey, seeing):
    """Pixels are averages of the light, here of 9 x 9 parts of each."""
    place = (np.arange(SIZE) - (SIZE - 1) / 2) * scale
    fine = (place[:, None] + ((np.arange(9) + 0.5) / 9 - 0.5) * scale).ravel()
    images = []
    for dx, dy in ((0, 0), (0.2, 0), (0.14, 0.14), (0.2, 0.2)):
        star = moffat(fine[None, :] - dx, fine[:, None] - dy, seeing)
        star = star.reshape(SIZE, 9, SIZE, 9).mean(axis=(1, 3))
        images.append(np.stack([flux * star / star.sum() for flux in (40, 180, 280)]))
    n = len(images)
    noise = np.tile([NOISE[band] for band in "gri"], (n, 1))
    found = measure(np.array(images), "gri", np.full(n, scale), np.full((n, 3), seeing), noise, survey=survey)
    assert not found.chosen.any()
    # A galaxy of the same light, half as large again, is one where it is as red as the survey's have to be.
    wide = moffat(fine[None, :], fine[:, None], 1.5 * seeing).reshape(SIZE, 9, SIZE, 9).mean(axis=(1, 3))
    galaxy = np.stack([flux * wide / wide.sum() for flux in (40, 180, 280)])[None]
    alone = measure(galaxy, "gri", np.array([scale]), np.full((1, 3), seeing), noise[:1], survey=survey)
    assert alone.chosen.all()


def test_a_star_among_neighbours_is_no_galaxy():
    axis = (np.arange(SIZE) - (SIZE - 1) / 2) * SCALE
    x, y = np.meshgrid(axis, axis)
    rng = np.random.default_rng(4)
    images = []
    for _ in range(20):
        star = np.stack([flux * moffat(x, y, SEEING) for flux in (10, 45, 70)])
        for _ in range(2):
            distance, angle = rng.uniform(3.5, 5), rng.uniform(0, 2 * np.pi)
            star += 15 * moffat(x - distance * np.cos(angle), y - distance * np.sin(angle), SEEING)
        images.append(star)
    n = len(images)
    noise = np.tile([NOISE[band] for band in "gri"], (n, 1))
    images = np.array(images) + rng.normal(0, 1, (n, 3, SIZE, SIZE)) * noise[:, :, None, None]
    found = measure(images, "gri", np.full(n, SCALE), np.full((n, 3), SEEING), noise)
    assert not found.chosen.any()


@pytest.mark.parametrize(("stars", "chosen"), [(0, True), (3, True), (60, False)])
def test_a_galaxy_in_a_crowd_is_no_deflector(stars, chosen):
    """Of 25 by 25 arcsec, 60 stars of 18th magnitude cover a third."""
    axis = (np.arange(SIZE) - (SIZE - 1) / 2) * SCALE
    x, y = np.meshgrid(axis, axis)
    rng = np.random.default_rng(5)
    image = red_galaxies(1, "gri", stars=False)[0]
    for place in rng.uniform(-12, 12, (stars, 2)):
        if np.hypot(*place) > 6:
            image += 63 * moffat(x - place[0], y - place[1], SEEING)
    noise = np.array([[NOISE[band] for band in "gri"]])
    found = measure(image[None], "gri", np.array([SCALE]), np.full((1, 3), SEEING), noise)
    assert found.chosen.tolist() == [chosen]


def test_a_few_of_an_image_are_drawn_as_often_as_many(stamps):
    names = np.repeat(["a", "b", "c", "a"], [10, 2, 6, 6])
    several = replace(stamps.take(np.arange(24)), source=names, location=np.repeat([0, 1], [18, 6]))
    rows = np.arange(1, 24)
    share = several.even_shares(rows)
    assert share.sum() == pytest.approx(1)
    # Half for each store; in the first store a third of it for each image, of whatever number of objects.
    place = np.repeat([0, 1, 2, 3], [9, 2, 6, 6])
    np.testing.assert_allclose(np.bincount(place, share), [1 / 6, 1 / 6, 1 / 6, 1 / 2])
    np.testing.assert_allclose(share[:9], 1 / 54)


def test_of_a_sample_seeing_and_redshift_are_known(tmp_path):
    write_sample(str(tmp_path), Request("sdss", 80, 3), workers=1)
    stamps, _ = read_stamps([str(tmp_path)], "gri")
    ((_, truth),) = read_sample(str(tmp_path))
    assert stamps.object_id.tolist() == truth["object_id"].to_pylist()
    np.testing.assert_array_equal(stamps.redshift, truth["redshift"].to_numpy())
    for place, band in enumerate("gri"):
        np.testing.assert_array_equal(stamps.seeing[:, place], truth[f"seeing_{band}"].to_numpy())
    # Fields of 64 galaxies have seeing of their own.
    assert stamps.source.tolist() == ["field-0"] * 64 + ["field-1"] * 16
    assert len(np.unique(stamps.seeing[:, 1])) == 2


def test_without_stars_the_seeing_is_the_surveys_median():
    images = np.random.default_rng(1).normal(0, 0.02, (4, 3, SIZE, SIZE))
    found = measure_seeing(images, "gri", np.full(4, SCALE), np.full((4, 3), 0.02))
    np.testing.assert_allclose(found, [1.44, 1.32, 1.26])


def test_added_light_has_the_noise_of_its_electrons():
    rng = np.random.default_rng(1)
    light = np.full((1, 3, 200, 200), 0.5, np.float32)
    base = np.zeros_like(light)
    base[0, 0, 0, 0] = np.nan
    electrons = electrons_of("gri")
    added = add_light(base, light, electrons, rng)
    assert np.isnan(added[0, 0, 0, 0])
    assert np.isnan(added).sum() == 1
    for place in range(3):
        values = added[0, place].ravel()[1:]
        assert values.mean() == pytest.approx(0.5, rel=2e-3)
        assert values.var() == pytest.approx(0.5 / electrons[place], rel=0.03)


def test_electrons_of_another_camera_have_to_be_named():
    assert electrons_of("gV", {"V": 12.0})[1] == 12
    with pytest.raises(ValueError, match="'V'"):
        electrons_of("gV")


def draw(stamps, count=30, seed=2):
    rng = np.random.default_rng(seed)
    rows = rng.choice(np.flatnonzero(stamps.deflector), count)
    depth = arc_noise(stamps.noise[rows], stamps.scale[rows])
    return draw_lenses(stamps.deflectors, rows, "gri", rng, depth, SEEING, (0.8, 3.5))


def test_signal_counts_the_deflectors_photons(stamps):
    lenses, truth = draw(stamps)
    base = stamps.take(truth.deflector)
    electrons = electrons_of("gri")
    arcs = draw_arcs(lenses, base.images, base.seeing, base.scale, base.noise, electrons)
    sky = np.sqrt(np.square(arcs.images, dtype=np.float64).sum(axis=(2, 3))) / base.noise
    assert (arcs.signal < sky).all()
    assert (arcs.signal > 0.3 * sky).all()
    np.testing.assert_allclose(
        arcs.magnitude, 22.5 - 2.5 * np.log10(arcs.images.astype(float).sum(axis=(2, 3))), atol=1e-6
    )


def test_companions_have_the_colours_of_their_galaxy(stamps):
    lenses, truth = draw(stamps)
    base = stamps.take(truth.deflector)
    light = draw_mimics(lenses, np.full(len(lenses), "companions"), base, np.random.default_rng(1))
    assert np.isfinite(light).all()
    assert light.min() > -1e-3 * light.max()
    total, own = light.sum(axis=(2, 3)), aperture_flux(base.images, base.scale, 2.0)
    share = total.sum(axis=1) / own.sum(axis=1)
    assert 0.02 < share.min() < 0.1 < 0.4 < share.max() < 0.8
    apart = 2.5 * np.log10((total[:, 0] / total[:, 2]) / (own[:, 0] / own[:, 2]))
    assert 0 < np.median(apart) < 0.4
    assert np.median(apart) < apart.mean()


def test_companions_are_as_frequent_as_asked_for():
    rng = np.random.default_rng(2)
    for share in (0.0, 0.3, 1.0):
        kinds = draw_kinds(4000, rng, share)
        assert (kinds == "companions").mean() == pytest.approx(share, abs=0.03)
        others = kinds[kinds != "companions"]
        if len(others):
            assert (others == "spiral").mean() == pytest.approx(0.18, abs=0.03)


@pytest.mark.parametrize("kind", [kind for kind in MIMICS if kind != "companions"])
def test_mimics_are_as_bright_as_arcs(stamps, kind):
    lenses, truth = draw(stamps)
    base = stamps.take(truth.deflector)
    light = draw_mimics(lenses, np.full(len(lenses), kind), base, np.random.default_rng(1))
    arcs = draw_arcs(lenses, base.images, base.seeing, base.scale, base.noise, electrons_of("gri"))
    ratio = light.sum(axis=(1, 2, 3)) / arcs.images.sum(axis=(1, 2, 3))
    assert np.isfinite(light).all()
    assert light.min() > -1e-3 * light.max()
    assert 0.5 < np.median(ratio) < 2
    # Colours are those of the sources.
    colour = light[:, 0].sum(axis=(1, 2)) / light[:, 2].sum(axis=(1, 2))
    source = lenses.flux.sum(axis=1)
    assert np.median(colour / (source[:, 0] / source[:, 2])) == pytest.approx(1, abs=0.25)


def test_store_of_lenses_is_the_old_one_with_arcs(store, tmp_path):
    injection = Injection(lenses=20, mimics=10, seed=3)
    made = inject_store(str(store), str(tmp_path / "new"), injection)
    truth = pq.read_table(tmp_path / "new" / "truth.parquet").to_pandas().set_index("object_id")
    (before,) = stored_cutouts(str(store), "sky")
    old = {int(number): row for row, number in enumerate(before.object_id)}
    assert made == truth.lens.sum() > 10
    total = 0
    for cutouts in stored_cutouts(str(tmp_path / "new"), "sky"):
        assert cutouts.bands == before.bands
        for row, number in enumerate(cutouts.object_id.tolist()):
            told = truth.loc[number]
            base = before.images[old[int(told.deflector_id)]].astype(np.float64)
            added = (cutouts.images[row].astype(np.float64) - base).sum(axis=(1, 2))
            if told.lens:
                expected = [10 ** (0.4 * (22.5 - told[f"arc_magnitude_{band}"])) for band in "gri"]
                np.testing.assert_allclose(added[1:4], expected, rtol=0.08)
            total += 1
    assert total == len(truth)
    field = pq.read_schema(tmp_path / "new" / "truth.parquet").field("einstein_radius")
    assert field.metadata[b"unit"] == b"arcsec"


def test_the_seeing_that_a_store_says_goes_with_its_cutouts(tmp_path):
    store = write_store(tmp_path / "store", red_galaxies(12), seeing=1.07)
    (stamps, _) = read_stamps([str(store)], "gri")
    assert (stamps.seeing == np.float32(1.07)).all()
    assert (stamps.told_seeing == stamps.seeing).all()
    inject_store(str(store), str(tmp_path / "new"), Injection(lenses=4, mimics=4))
    for cutouts in stored_cutouts(str(tmp_path / "new"), "sky"):
        assert (cutouts.seeing == np.float32(1.07)).all()


def test_lenses_in_a_sample_have_the_seeing_of_their_fields(tmp_path):
    request = Request("sdss", 128, 3, seeing_scatter=0.3)
    write_sample(str(tmp_path / "sample"), request, workers=1)
    ((_, truth),) = read_sample(str(tmp_path / "sample"))
    seeing = dict(zip(truth["object_id"].to_pylist(), truth["seeing_r"].to_numpy(), strict=True))
    assert len(set(seeing.values())) == 2
    inject_store(str(tmp_path / "sample"), str(tmp_path / "new"), Injection(lenses=0, mimics=60))
    told = pq.read_table(tmp_path / "new" / "truth.parquet").to_pandas().set_index("object_id").deflector_id
    found = set()
    for cutouts in stored_cutouts(str(tmp_path / "new"), "sky"):
        expected = [seeing[int(told.loc[number])] for number in cutouts.object_id.tolist()]
        np.testing.assert_allclose(cutouts.seeing[:, 2], expected, atol=6e-4)
        found |= set(expected)
    assert len(found) == 2


def test_a_seeing_that_nobody_says_is_measured_to_draw_with_and_not_known(stamps):
    assert np.isfinite(stamps.seeing).all()
    assert np.isnan(stamps.told_seeing).all()


def test_command_and_its_errors(store, tmp_path):
    run = CliRunner().invoke(
        main, ["sky", "inject", str(store), "-o", str(tmp_path / "a"), "--lenses", "5", "--prior", "uniform"]
    )
    assert run.exit_code == 0, run.output
    assert "5 lenses" in run.output
    with pytest.raises(MissingError, match="no cutouts"):
        inject_store(str(tmp_path / "none"), str(tmp_path / "b"), Injection(lenses=1))
    empty = write_store(tmp_path / "noise", np.random.default_rng(1).normal(0, 0.02, (3, 5, SIZE, SIZE)))
    with pytest.raises(CatalogError, match="bright red galaxy"):
        inject_store(str(empty), str(tmp_path / "c"), Injection(lenses=1))


def test_images_are_kept_apart_by_name(store):
    learnt, kept = read_stamps([str(store)], "gri")
    assert (len(learnt), len(kept)) == (24, 0)
    with pytest.raises(CatalogError, match="to learn from"):
        read_stamps([str(store)], "gri", held_out=("000001-1-0001",))
    with pytest.raises(CatalogError, match="000009"):
        read_stamps([str(store)], "gri", held_out=("000009",))


def test_store_reads_back_as_any_other(store, tmp_path):
    inject_store(str(store), str(tmp_path), Injection(lenses=4))
    cutouts = read_cutouts(open_storage(str(tmp_path)), "cutouts/Norder=0/Dir=0/Npix=0.zarr", "sky")
    assert cutouts.geometry["size"] == SIZE
    assert cutouts.sources[0]["name"] == "frame-r-000001-1-0001"
