"""A real Butler registry (DC2, tract 3828, no pixels): patches and datasets of a thousand positions."""

import shutil

import numpy as np
import pyarrow as pa
import pytest
import yaml
from astropy.wcs import WCS
from matplotlib.path import Path as Polygon

from gzscale.config import GeometryConfig
from gzscale.cutouts.ingest import cut_partition
from gzscale.storage import open_storage
from gzscale.surveys.rubin import RubinSurvey

sphgeom = pytest.importorskip("lsst.sphgeom")

RUN = "2.2i/runs/test-med-1/w_2022_03/DM-33223/20220118T193330Z"
#: Middle of the tract, its patches' inner side and overlap in pixels of 0.2 arcsec.
CENTRE, INNER, BORDER = (56.6496717, -36.4462532), 4000, 100
COUNT = 1000


@pytest.fixture(scope="module")
def repository(real_data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("dc2")
    for path in (real_data / "rubin").iterdir():
        shutil.copy(path, folder / path.name)
        (folder / path.name).chmod(0o644)
    return folder


@pytest.fixture(scope="module")
def positions():
    """Positions in the tract, which is 1.57 degrees wide, and somewhat around it."""
    rng = np.random.default_rng(3828)
    dec = CENTRE[1] + rng.uniform(-0.82, 0.82, COUNT)
    ra = CENTRE[0] + rng.uniform(-0.82, 0.82, COUNT) / np.cos(np.radians(dec))
    return pa.table({"object_id": np.arange(COUNT), "ra": ra, "dec": dec})


def plane():
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crval, wcs.wcs.crpix = ["RA---TAN", "DEC--TAN"], CENTRE, [1, 1]
    wcs.wcs.cdelt = [-0.2 / 3600, 0.2 / 3600]
    return wcs


class _Loader(yaml.SafeLoader):
    """Reads regions as their bytes; everything else that is not plain as None."""


_Loader.add_constructor(
    "!<lsst.sphgeom.ConvexPolygon>".strip("!<>"),
    lambda loader, node: loader.construct_mapping(node)["encoded"],
)
_Loader.add_multi_constructor("", lambda loader, suffix, node: None)


def exported_regions(folder):
    """The patches' corners in the tract's plane, out of the export and not out of the registry."""
    text = (folder / "dc2-exports.yaml").read_text()
    regions = {}
    for item in yaml.load(text, _Loader)["data"]:
        if item.get("element") == "patch":
            for record in item["records"]:
                polygon = sphgeom.ConvexPolygon.decode(bytes.fromhex(record["region"]))
                sky = [sphgeom.LonLat(vertex) for vertex in polygon.getVertices()]
                degrees = [(at.getLon().asDegrees(), at.getLat().asDegrees()) for at in sky]
                regions[record["id"]] = plane().wcs_world2pix(degrees, 0)
    return regions


def test_a_thousand_positions_find_the_patches_of_a_point_in_polygon_test(repository, positions):
    survey = RubinSurvey(str(repository), "gri", {"collections": [RUN], "dataset_type": "deepCoadd_calexp"})
    cover = survey.find(positions, np.zeros(COUNT))
    x, y = plane().wcs_world2pix(positions["ra"], positions["dec"], 0)
    places = np.stack([x, y], axis=1)
    regions = exported_regions(repository)
    assert len(regions) == 49
    inside = {patch: Polygon(corners).contains_points(places) for patch, corners in regions.items()}
    # Inner regions tile the tract's plane from its lower left corner on.
    left, bottom = np.min([corners.min(axis=0) for corners in regions.values()], axis=0)
    cells = np.floor((places - [left, bottom]) / INNER).astype(int)
    mapped = dict(zip(cover.pair_object.tolist(), cover.pair_image.tolist(), strict=True))
    found, with_images = 0, 0
    for row in range(COUNT):
        holding = {patch for patch in inside if inside[patch][row]}
        assert (row in cover.lost) == (not holding)
        if not holding:
            continue
        found += 1
        tract, patch, _ = cover.images[mapped[row]].path.split("/")
        assert int(tract) == 3828
        # Patch 24 is the only one with images: it goes before the others that hold a position.
        expected = 24 if 24 in holding else cells[row, 1] * 7 + cells[row, 0]
        assert int(patch) == expected
        with_images += expected == 24
    assert found > 800
    assert with_images > 10


def test_each_position_has_the_dataset_of_the_registry(repository, positions):
    survey = RubinSurvey(str(repository), "gri", {"collections": [RUN], "dataset_type": "deepCoadd_calexp"})
    datasets = survey._source.datasets(3828)
    assert sorted(datasets) == [(24, "g"), (24, "i"), (24, "r")]
    for (patch, band), dataset in datasets.items():
        run = RUN.replace("/", "_").replace("2.2i", "2_2i")
        name = f"deepCoadd_calexp_3828_{patch}_{band}_DC2_{run}.fits"
        assert dataset.location == f"{repository}/{RUN}/deepCoadd_calexp/3828/{patch}/{band}/{name}"


def test_missing_pixels_end_as_rows_that_name_the_dataset_and_the_account_closes(
    repository, positions, tmp_path
):
    survey = RubinSurvey(str(repository), "gri", {"collections": [RUN], "dataset_type": "deepCoadd_calexp"})
    geometry = {"sky": GeometryConfig(size=96, scale=0.2)}
    result = cut_partition(survey, positions, geometry, open_storage(tmp_path), "p.zarr")
    assert result.done == {"sky": 0}
    assert result.quarantine.num_rows == COUNT
    reasons = result.quarantine["reason"].to_pylist()
    assert set(reasons) == {"MISSING_IMAGE", "OFF_FOOTPRINT"}
    for row in result.quarantine.to_pylist():
        if row["reason"] == "MISSING_IMAGE":
            assert "deepCoadd_calexp {band: 'g', skymap: 'DC2', tract: 3828, patch: " in row["detail"]
            assert RUN in row["detail"]
