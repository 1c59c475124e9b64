"""The package's bundles are chosen by the filters, bands and cutouts that each declares."""

from types import SimpleNamespace

import pytest

from gzscale.errors import BundleError
from gzscale.models import fitting as fitting_module
from gzscale.models.bundle import load_bundle
from gzscale.models.fitting import fitting
from gzscale.models.inputs import REDDENING
from gzscale.models.shipped import SHIPPED, shelf, shipped


def geometry(size, scale):
    return SimpleNamespace(size=size, scale=scale)


NATIVE = {"sdss": geometry(64, 0.396), "rubin": geometry(64, 0.2)}
BANDS = {"sdss": "ugriz", "rubin": "ugrizy"}


@pytest.mark.parametrize("survey", ["sdss", "rubin"])
@pytest.mark.parametrize("task", ["lenses", "redshifts"])
def test_each_survey_gets_its_own(task, survey):
    path = fitting(task, BANDS[survey], NATIVE[survey], survey)
    assert path.name == f"{task}-{survey}.safetensors"
    bundle = load_bundle(path)
    assert bundle.filters == survey
    # A file's filters are those whose extinction it corrects for.
    assert list(bundle.inputs.reddening) == [REDDENING[survey][band] for band in bundle.bands]
    # Where nobody knows the filters the pixels still tell them apart.
    assert fitting(task, BANDS[survey], NATIVE[survey], None) == path


@pytest.mark.parametrize("task", ["lenses", "redshifts"])
def test_another_surveys_bundle_is_refused_by_name(task):
    sdss, rubin = (load_bundle(path) for path in shelf(task))
    with pytest.raises(BundleError) as caught:
        fitting(task, "ugrizy", NATIVE["sdss"], "rubin")
    said = str(caught.value)
    assert f"{sdss.name!r} ({task}) has learnt the filters of sdss" in said
    assert f"{rubin.name!r} ({task}) needs cutouts of 64 pixels at 0.2 arcsec" in said
    with pytest.raises(BundleError, match=f"{rubin.name}.*has learnt the filters of rubin"):
        fitting(task, "ugriz", NATIVE["rubin"], "sdss")


def test_redshifts_of_rubin_need_i_and_r():
    assert fitting("redshifts", "irgz", NATIVE["rubin"], "rubin").name == "redshifts-rubin.safetensors"
    with pytest.raises(BundleError, match=r"add i to survey\.bands"):
        fitting("redshifts", "gr", NATIVE["rubin"], "rubin")


def test_morphology_is_shown_rubins_pixels_only_knowingly():
    told = geometry(96, "0.08 * size")
    with pytest.raises(BundleError, match=r"filters of sdss.*set tasks\.morphology\.filters=sdss"):
        fitting("morphology", "ugrizy", told, "rubin")
    assert fitting("morphology", "ugrizy", told, "sdss") == shipped("morphology")


def test_none_is_guessed_where_several_fit(monkeypatch):
    path = shipped("lenses")
    monkeypatch.setattr(fitting_module, "shelf", lambda task: [path, path])
    with pytest.raises(BundleError, match=r"name one with tasks\.lenses\.bundle"):
        fitting("lenses", "ugriz", NATIVE["sdss"], "sdss")


def test_what_is_shipped_is_small_and_has_a_card_that_says_first_what_it_was_trained_on():
    for files in SHIPPED.values():
        for name in files:
            assert (path := shelf_path(name)).stat().st_size < 10e6
            assert path.with_suffix(".md").exists()
    for task in ("lenses", "redshifts"):
        for path in shelf(task):
            card = path.with_suffix(".md").read_text()
            assert "rained on simulations" in card.split("\n\n")[1]
            assert SHIPPED[task][path.name] in card


def shelf_path(name):
    return next(path for task in SHIPPED for path in shelf(task) if path.name == name)
