"""Images opened and distinct: foreseen by the plan, counted by the night, told by its account."""

import pytest
from toy import toy_config

from gzscale.config import load_config
from gzscale.night import work
from gzscale.night.accounting import status
from gzscale.night.forecast import forecast
from gzscale.night.openings import Openings, openings_text
from gzscale.night.origins import origins
from gzscale.night.plan import make_plan
from gzscale.night.report import write_report
from gzscale.storage import open_storage


def test_openings_and_different_images_are_counted():
    openings = Openings()
    openings.add(["a", "b"])
    openings.add(name for name in ("b", "c", "b"))
    assert openings.to_dict() == {"opened": 5, "distinct": 3}
    assert openings_text(openings.to_dict()) == "3 distinct, opened 5 times (1.67 times each)"


def test_none_is_none():
    assert Openings().to_dict() == {"opened": 0, "distinct": 0}
    assert openings_text(Openings().to_dict()) == "none opened"


def test_a_survey_that_cannot_foresee_says_so(tmp_path):
    assert forecast(toy_config(tmp_path))["images"] == "located by position when the night runs"


@pytest.mark.parametrize("max_objects", [4, 1000])
def test_the_night_opens_what_the_plan_foresees(rubin_sky, tmp_path, max_objects):
    # Of a cluster whose hosts have no room for shared images; of others see test_sharing.
    preset = tmp_path / "no-room.yaml"
    preset.write_text("kind: local\nscratch_cap: 0\n")
    settings = [f"output={tmp_path / 'out'}", f"max_objects={max_objects}", "survey.bands=gri"]
    settings.append(f"cluster={preset}")
    config = load_config(str(rubin_sky / "night.yaml"), settings)
    # Lenses and redshifts would want another band.
    config = config.model_copy(update={"tasks": {"morphology": config.tasks["morphology"]}})
    foreseen = forecast(config)["images"]
    plan, origin, openings = make_plan(config, "n1"), origins(config), Openings()
    for item in plan.partitions:
        openings.add(work.cut(config, origin, item.partition, item.digest).images)
    assert openings_text(openings.to_dict()) == foreseen
    # Two patches, three bands; a partition of the whole sky opens each once.
    assert openings.to_dict()["distinct"] == 6
    assert (openings.to_dict()["opened"] == 6) == (max_objects == 1000)


def test_the_account_and_the_report_tell_them(ran):
    # Two exposures in three bands; each partition opens its own.
    count = ran.record.images
    assert count["distinct"] == 6
    assert count["opened"] == sum(len(summary.images) for summary in ran.summaries) > 6
    assert status(ran.config.output)["images"] == count
    write_report(ran.config.output, "n1")
    page = open_storage(ran.config.output).get("reports/n1/report.html").decode()
    assert openings_text(count) in page
