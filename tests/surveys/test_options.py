"""Options that surveys share: what is known, what is refused, and how files are fetched."""

import pytest

from gzscale.errors import ConfigError
from gzscale.surveys.options import check_bands, check_template, take_options, transfer_of

DEFAULTS = {"cache_cap": "20GB", "tree": "a"}


def test_given_options_go_before_defaults():
    options = take_options("toy", {"tree": "b", "concurrency": 3}, DEFAULTS)
    assert options == {"cache": None, "concurrency": 3, "cache_cap": "20GB", "tree": "b"}


def test_an_unknown_option_is_told_beside_those_that_are_known():
    with pytest.raises(ConfigError, match=r"unknown threads; toy knows cache, cache_cap, concurrency, tree"):
        take_options("toy", {"threads": 1}, DEFAULTS)


def test_a_transfer_is_what_the_options_say(tmp_path):
    transfer = transfer_of({"cache": "~/images", "cache_cap": "1.5GiB", "concurrency": "2"}, 77)
    assert (transfer.cap, transfer.concurrency, transfer.largest) == (3 * 2**29, 2, 77)
    assert "~" not in transfer.cache
    assert transfer.fetcher(str(tmp_path)).root == str(tmp_path)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"cache_cap": "much"}, "not a number of bytes"),
        ({"concurrency": 0}, "concurrency 0"),
        ({"concurrency": "x"}, "x"),
    ],
)
def test_a_transfer_that_cannot_be_is_refused(changes, says):
    with pytest.raises(ConfigError, match=says):
        transfer_of({"cache": None, "cache_cap": "1GB", "concurrency": 1} | changes)


@pytest.mark.parametrize("bands", ["", "gg", "gx"])
def test_bands_that_are_not_the_surveys_are_refused(bands):
    with pytest.raises(ConfigError, match="Toy has the bands gri, each at most once"):
        check_bands("Toy", bands, "gri")
    check_bands("Toy", "ig", "gri")


@pytest.mark.parametrize("template", ["{run}", "{run}/{band}/{colour}", "{run}/{band", 5])
def test_a_template_that_cannot_be_filled_in_is_refused(template):
    with pytest.raises(ConfigError, match=r"survey\.options\.tree: .*\{band\}"):
        check_template("tree", template, ("run", "band"), run=1, band="r")
    check_template("tree", "{run:04d}/{band}", ("run", "band"), run=1, band="r")
