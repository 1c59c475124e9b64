"""The night's configuration: what it accepts, what it refuses, and in which words."""

import os
from pathlib import Path

import pytest
from faults import files
from hypothesis import given
from hypothesis import strategies as st

from gzscale._settings import merge
from gzscale._yaml import parse_yaml
from gzscale.config import GeometryConfig, NightConfig, load_config, parse_bytes
from gzscale.errors import ConfigError
from gzscale.storage import open_storage

NIGHT = """
survey: {kind: sdss, root: frames, bands: ugriz, options: {cache: ./cache, index: "s3://b/index", rerun: 301}}
catalog: {path: ../galaxies.parquet, columns: {object_id: object_id, ra: ra, dec: dec, size: r90}}
geometries:
  galaxy: {size: 96, scale: "0.08 * size"}
  sky: {size: 64, scale: 0.396}
tasks: {morphology: {geometry: galaxy, bundle: b.safetensors}, lenses: {geometry: sky}}
output: ./night
"""


@pytest.fixture
def night(tmp_path: Path) -> str:
    (tmp_path / "folder").mkdir()
    path = tmp_path / "folder" / "night.yaml"
    path.write_text(NIGHT)
    return str(path)


def load(path: str, *settings: str, **environment: str) -> NightConfig:
    return load_config(path, settings, environment)


def test_file_below_environment_below_command_line(night: str) -> None:
    environment = {"GZSCALE_MAX_OBJECTS": "100", "GZSCALE_RELEASE__MARGIN": "5"}
    assert load(night).max_objects == 2048
    assert load(night, **environment).max_objects == 100
    config = load(night, "max_objects=7", "max_objects=8", **environment)
    assert config.max_objects == 8, "the last one wins"
    assert config.release.margin == 5.0
    assert config.release.max_rows == 1_000_000
    assert config.geometries["sky"].factor == 0.396, "what is not named stays"


def test_values_of_the_command_line_are_yaml(night: str) -> None:
    config = load(
        night,
        "survey.options.rerun=302",
        "survey.options.bands=[u, g]",
        "survey.options.polite=true",
        "geometries.sky.scale=2e-1",
        "geometries.wide={size: 128, scale: 1 * size}",
        "output=2026-11-23",
        "tasks.morphology.bundle=",
    )
    assert config.survey.options["rerun"] == 302
    assert config.survey.options["bands"] == ["u", "g"]
    assert config.survey.options["polite"] is True
    assert config.geometries["sky"].scale == 0.2
    assert config.geometries["wide"].needs_size
    assert config.output == os.path.join(os.getcwd(), "2026-11-23")
    assert config.tasks["morphology"].bundle is None


def test_variables_of_others_are_left_alone(night: str) -> None:
    assert load(night, GZSCALE_REAL_DATA="/data", GZSCALE_TEST_S3="x", HOME__X="y", GZSCALE="z") == load(
        night
    )


def test_relative_paths_are_those_of_where_they_were_written(night: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    config = load(night)
    assert config.survey.root == str(tmp_path / "folder" / "frames")
    assert config.survey.options["cache"] == str(tmp_path / "folder" / "cache")
    assert config.survey.options["index"] == "s3://b/index"
    assert config.catalog.path == str(tmp_path / "galaxies.parquet")
    assert config.tasks["morphology"].bundle == str(tmp_path / "folder" / "b.safetensors")
    assert config.output == str(tmp_path / "folder" / "night")
    config = load(night, "survey.root=here", "catalog.path=/there/t", "output=s3://b/o", GZSCALE_OUTPUT="x")
    assert config.survey.root == os.path.join(os.getcwd(), "here")
    assert config.catalog.path == "/there/t"
    assert config.output == "s3://b/o"
    assert load(night, "survey.root=~/frames").survey.root == "/home/somebody/frames"
    Path(night).write_text(NIGHT.replace("output: ./night", ""))
    assert load(night).output == os.path.join(os.getcwd(), "night"), "the default is the working folder's"


def test_a_configuration_from_the_web_and_from_s3(serve, s3) -> None:
    text = NIGHT.encode()
    server = serve(files({"a/b/night.yaml": text}, ranges=False))
    config = load(f"{server.url}/a/b/night.yaml")
    assert config.catalog.path == f"{server.url}/a/galaxies.parquet"
    assert config.output == f"{server.url}/a/b/night"
    open_storage(s3.url).put("x/night.yaml", text)
    config = load(f"{s3.url}/x/night.yaml")
    assert config.output == f"{s3.url}/x/night"
    assert config.catalog.path == f"{s3.url}/galaxies.parquet"


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("survey.rooot=/x", ["survey.rooot: unknown key; did you mean root?"]),
        ("tasks.lenses.geometri=sky", ["tasks.lenses.geometri: unknown key; did you mean geometry?"]),
        ("weather=red", ["weather: unknown key; known are survey, catalog, geometries"]),
        ("survey.root=12", ["survey.root: ", "valid string, found 12; put it in quotes"]),
        ("max_objects=true", ["max_objects: ", "integer, found True"]),
        ("max_objects=many", ["max_objects: ", "integer, found 'many'"]),
        ("max_objects=0", ["max_objects: ", "found 0"]),
        ("release.margin=-1", ["release.margin: ", "found -1"]),
        ("geometries.sky.size=4", ["geometries.sky.size: ", "8, found 4"]),
        ("geometries.sky.scale=0", ["geometries.sky", "scale 0.0 is not positive"]),
        ("geometries.sky.scale=2 * r90", ["geometries.sky", "'2 * r90'", "'<number> * size'"]),
        ("geometries.sky.scale=1e999 * size", ["geometries.sky", "not positive and finite"]),
        ("geometries.sky.scale=[1]", ["geometries.sky.scale: ", "found [1]"]),
        ("tasks.lenses.geometry=moon", ["tasks.lenses.geometry is 'moon'", "['galaxy', 'sky']"]),
        ("survey.bands=ugg", ["survey.bands: ", "'ugg'"]),
        ("catalog.format=excel", ["catalog.format: ", "'parquet'"]),
        ("catalog.columns={ra: RA, colour: c}", ["catalog.columns: ", "unknown ['colour']"]),
        ("tasks=", ["tasks: ", "found None"]),
        ("survey=sdss", ["survey: ", "found 'sdss'"]),
        ("tasks=[1, 2]", ["tasks: ", "dictionary"]),
    ],
)
def test_what_does_not_fit_is_told_with_file_key_and_origin(
    night: str, setting: str, words: list[str]
) -> None:
    with pytest.raises(ConfigError) as caught:
        load(night, setting)
    told = str(caught.value)
    for word in [night, *words]:
        assert word in told
    if " is 'moon'" not in told and "geometries.sky:" not in told:
        assert f"(set by --set {setting.split('=')[0]})" in told


def test_every_problem_is_told_at_once(night: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(night, "survey.rooot=/x", GZSCALE_CATALOG__PATHH="y", GZSCALE_MAX_OBJECTS="[]")
    told = str(caught.value)
    assert "3 problems" in told
    assert "catalog.pathh: unknown key; did you mean path? (set by GZSCALE_CATALOG__PATHH)" in told
    assert "(set by GZSCALE_MAX_OBJECTS)" in told


def test_a_section_that_is_missing(night: str) -> None:
    Path(night).write_text("survey: {kind: sdss, root: x, bands: r}\n")
    with pytest.raises(ConfigError, match=r"catalog: is needed(.|\n)*geometries: is needed(.|\n)*tasks: "):
        load(night)


def test_a_size_that_no_column_gives(night: str) -> None:
    Path(night).write_text(NIGHT.replace(", size: r90", ""))
    with pytest.raises(ConfigError, match=r"geometries.galaxy.scale .* maps no size"):
        load(night)


@pytest.mark.parametrize(
    "setting", ["survey.root", "=x", "a..b=1", ".=1", "survey.options={a: 1", "output=&a [*a]"]
)
def test_settings_that_are_no_settings(night: str, setting: str) -> None:
    with pytest.raises(ConfigError, match="--set"):
        load(night, setting)


def test_a_section_is_no_value(night: str) -> None:
    with pytest.raises(ConfigError, match=r"--set survey.root: survey is set to a single value"):
        load(night, "survey=5", "survey.root=x")


LAUGHS = "a: &a [x, x]\n" + "".join(
    f"{n}: &{n} [*{p}, *{p}]\n" for p, n in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "expected sections"),
        (b"- a\n- b\n", "expected sections"),
        (b"<html><body>404</body></html>", "expected sections"),
        (b"survey: [", "not a YAML"),
        (b"survey: {kind: a}\nsurvey: {kind: b}\n", "survey stands twice"),
        (b"\xff\xfe\x00", "not a YAML"),
        (LAUGHS.encode(), r"alias \*a: aliases are not read"),
        (b"a: " + b"[" * 2_000, "nested too deeply"),
        (b"a: !!python/object/apply:os.system [date]", "not a YAML"),
        (b"a: !!map [1]", "not a YAML"),
        (b"#" * 1_000_001, "more than 1000000 bytes"),
    ],
)
def test_files_that_are_no_configuration(night: str, content: bytes, words: str) -> None:
    Path(night).write_bytes(content)
    with pytest.raises(ConfigError, match=words) as caught:
        load(night)
    assert night in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml: cannot be read: .*no such file"):
        load(str(tmp_path / "none.yaml"))
    with pytest.raises(ConfigError, match="cannot be read"):
        load(str(tmp_path))


def test_the_catalogs_of_the_project_are_read() -> None:
    catalogs = sorted((Path(__file__).parents[1] / "catalogs").glob("*.yaml"))
    assert catalogs
    for path in catalogs:
        config = load(str(path))
        assert NightConfig.model_validate_json(config.model_dump_json()) == config


@pytest.mark.parametrize(
    ("scale", "factor"), [("0.08 * size", 0.08), (" 1*size", 1.0), ("8e-2 * size", 0.08), (0.4, 0.4)]
)
def test_scales(scale: float | str, factor: float) -> None:
    geometry = GeometryConfig(size=96, scale=scale)
    assert geometry.factor == factor
    assert geometry.needs_size == isinstance(scale, str)


@pytest.mark.parametrize("scale", [float("nan"), float("inf"), -1.0, "size", "size * 2", "-1 * size", True])
def test_scales_that_are_none(scale: float | str) -> None:
    with pytest.raises(ValueError, match="scale"):
        GeometryConfig(size=96, scale=scale)


UNITS = {
    "": 1,
    "B": 1,
    "kB": 10**3,
    "K": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "GiB": 2**30,
    "TiB": 2**40,
    "Mi": 2**20,
}


@given(st.integers(0, 10**6), st.sampled_from(sorted(UNITS)), st.sampled_from(["", " "]))
def test_bytes_with_units(number: int, unit: str, space: str) -> None:
    assert parse_bytes(f"{number}{space}{unit}") == number * UNITS[unit]
    assert parse_bytes(number) == number


@given(st.integers(0, 10**12))
def test_fractions_of_a_gigabyte_are_exact(number: int) -> None:
    assert parse_bytes(f"{number // 10**9}.{number % 10**9:09d} GB") == number


@given(st.text())
def test_no_text_breaks_the_reading_of_bytes(text: str) -> None:
    try:
        assert parse_bytes(text) >= 0
    except ValueError as error:
        assert repr(text) in str(error)  # noqa: PT017


@pytest.mark.parametrize("value", ["", "GB", "-1", "1,5GB", "1 XB", "1e3", -1, True, 1.5, None, "٣GB"])
def test_what_is_no_number_of_bytes(value: object) -> None:
    with pytest.raises(ValueError, match="number of bytes"):
        parse_bytes(value)  # type: ignore[arg-type]


leaves = st.none() | st.booleans() | st.integers() | st.text(max_size=3)
trees = st.dictionaries(
    st.sampled_from("abc"),
    st.recursive(
        leaves, lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3), max_leaves=6
    ),
    max_size=3,
)


def _leaves(tree: object, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], object]:
    if not isinstance(tree, dict) or not tree:
        return {path: tree}
    return {
        place: leaf for key, value in tree.items() for place, leaf in _leaves(value, (*path, key)).items()
    }


@given(trees, trees)
def test_layers(below: dict, above: dict) -> None:
    merged = merge(below, above)
    assert merge(below, {}) == below
    assert merge({}, above) == above
    assert merge(merged, above) == merged
    for path, leaf in _leaves(above).items():
        if leaf != {}:
            value: object = merged
            for key in path:
                assert isinstance(value, dict)
                value = value[key]
            assert value == leaf


@given(st.integers(-(10**17), 10**17), st.floats(allow_nan=False, allow_infinity=False), st.booleans())
def test_numbers_of_yaml(integer: int, number: float, truth: bool) -> None:
    assert parse_yaml(str(integer)) == integer
    assert parse_yaml(repr(number)) == number
    assert parse_yaml(str(truth)) is truth


@pytest.mark.parametrize(
    "word", ["12:30", "2026-11-23", "0123", "no", "on", "1_000", "0x10", ".", "-", "e5", "1.2.3"]
)
def test_words_stay_words(word: str) -> None:
    assert parse_yaml(f"{{key: {word}}}" if word != "-" else "key: '-'") == {"key": word}
