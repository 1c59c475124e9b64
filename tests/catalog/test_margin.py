import astropy.units as u
import hats.pixel_math.healpix_shim as healpix_shim
import lsdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.coordinates import SkyCoord
from hats.pixel_math import compute_spatial_index, get_margin
from lsdb.loaders.dataframe.margin_catalog_generator import MarginCatalogGenerator
from released_sky import part, release, rows_at, whole_sky

from gzscale.catalog import margin
from gzscale.catalog.align import complement, end_index, first_index
from gzscale.catalog.margin import MarginFinder, MarginSpill, margin_order
from gzscale.catalog.pixels import Partition


@pytest.mark.parametrize("threshold", [0.5, 1, 5, 10, 60, 300, 4000])
def test_the_order_is_that_of_hats(threshold):
    assert margin_order(threshold) == healpix_shim.margin2order(threshold / 60)


def test_the_margin_of_a_release_is_lsdbs_own(tmp_path):
    path, _ = release(part(whole_sky(2000), 3), tmp_path, max_rows=200, margin=3000)
    catalog = lsdb.open_catalog(path)
    generator = MarginCatalogGenerator(catalog, margin_threshold=3000.0)
    generator._resolve_margin_order()
    pixels = catalog.get_healpix_pixels()
    empty = complement(sorted((Partition(p.order, p.pixel) for p in pixels), key=first_index))
    pairs = generator._find_margin_pixel_pairs([*pixels, *empty])
    expected = {
        f"Norder={pixel.order}/Dir=0/Npix={pixel.pixel}.parquet": set(rows["object_id"])
        for pixel, rows in generator._create_margins(pairs).items()
    }
    assert sum(map(len, expected.values())) > 100
    dataset = path / "morphology_3000arcs/dataset"
    found = {}
    for file in dataset.rglob("Npix=*.parquet"):
        table = pq.read_table(file, partitioning=None)
        found[file.relative_to(dataset).as_posix()] = set(table["object_id"].to_pylist())
        assert np.all(np.diff(table["_healpix_29"].to_numpy()) >= 0)
    assert found == expected
    assert len(catalog.margin) == sum(map(len, expected.values()))


@pytest.mark.parametrize(("ra", "dec"), [(0.0, 0.0), (0.0, 90.0), (123.0, -90.0), (45.0, 41.8103149)])
def test_neighbours_across_the_wrap_and_the_poles_are_in_the_margin(ra, dec):
    """Every row within the threshold of a pixel is in its margin, whatever the place."""
    rng = np.random.default_rng(5)
    centre = SkyCoord(ra * u.deg, dec * u.deg)
    sky = centre.directional_offset_by(rng.uniform(0, 360, 300) * u.deg, rng.uniform(0, 60, 300) * u.arcsec)
    healpix = compute_spatial_index(sky.ra.deg, sky.dec.deg)
    pixels = [Partition(2, int(pixel)) for pixel in np.unique(healpix >> 54)]
    assert len(pixels) > 1
    finder = MarginFinder(pixels, 30.0)
    found = set()
    for own in pixels:
        rows = np.flatnonzero((healpix >= first_index(own)) & (healpix < end_index(own)))
        row, tile = finder.find(healpix[rows], own)
        found |= {(int(rows[i]), finder.tiles[j]) for i, j in zip(row, tile, strict=True)}
    separation = sky[:, None].separation(sky[None, :]).arcsec
    home = [next(p for p in pixels if first_index(p) <= h < end_index(p)) for h in healpix]
    near = {(i, home[j]) for i, j in np.argwhere(separation < 30) if home[i] != home[j]}
    assert near
    assert near <= found


def test_pixels_smaller_than_the_margins_cells():
    """Two objects 20 arcsec apart in pixels of 3 arcsec are in each other's margin of 60."""
    table = rows_at([10.0, 10.0], [20.0, 20.0 + 20 / 3600])
    healpix = table["_healpix_29"].to_numpy()
    pixels = [Partition(16, int(h) >> 26) for h in healpix]
    assert pixels[0] != pixels[1]
    finder = MarginFinder(pixels, 60.0)
    for i, own in enumerate(pixels):
        _, tiles = finder.find(healpix[i : i + 1], own)
        assert pixels[1 - i] in [finder.tiles[tile] for tile in tiles]
        assert own not in [finder.tiles[tile] for tile in tiles]


def test_the_cells_around_a_pixel_are_those_of_hats():
    own, order = Partition(1, 4), 5
    threshold = 3600 * np.degrees(np.sqrt(np.pi / 3) / 2**order) / 1.6 * 0.99
    assert margin_order(threshold) == order
    finder = MarginFinder([own], threshold)
    cells = np.arange(12 << 2 * order)
    outside = cells[(cells >> 2 * (order - own.order)) != own.pixel]
    touching = []
    for cell in outside:
        home = next(t for t in finder.tiles if first_index(t) <= int(cell) << 48 < end_index(t))
        _, tiles = finder.find(np.array([int(cell) << 48]), home)
        if own in [finder.tiles[tile] for tile in tiles]:
            touching.append(int(cell))
    assert touching == get_margin(own.order, own.pixel, order - own.order)


def test_what_was_spilled_comes_back_in_order(tmp_path, monkeypatch):
    monkeypatch.setattr(margin, "_BUFFER_ROWS", 10)
    schema = pa.schema([("n", pa.int64())])
    spill = MarginSpill(tmp_path, schema)
    rng = np.random.default_rng(3)
    tiles = rng.integers(0, 7, 200)
    for start in range(0, 200, 3):
        stop = min(start + 3, 200)
        spill.add(pa.table([pa.array(range(start, stop))], schema=schema), tiles[start:stop])
    numbers = spill.tiles()
    assert numbers == list(range(7))
    for number, table in zip(numbers, spill.read(numbers), strict=True):
        assert table["n"].to_pylist() == np.flatnonzero(tiles == number).tolist()
