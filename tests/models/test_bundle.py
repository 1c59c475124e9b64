import dataclasses
import json
import struct
from types import SimpleNamespace

import pytest
import torch

from gzscale.errors import BundleError
from gzscale.models import bundle as bundle_module
from gzscale.models import shipped as shipped_module
from gzscale.models.bundle import Bundle, BundleGeometry, load_bundle, write_bundle
from gzscale.models.content import content_digest
from gzscale.models.inputs import SDSS_STRETCH, FluxInputs
from gzscale.models.network import build_network
from gzscale.models.shipped import shipped
from gzscale.models.votes import ANSWERS

PARAMETERS = {"widths": [8], "blocks": [1], "heads": {"vote_fractions": "tree"}}


def make(**changes):
    torch.manual_seed(0)
    values = {
        "task": "morphology",
        "name": "small",
        "network": "residual",
        "parameters": PARAMETERS,
        "geometry": BundleGeometry(96, "0.08 * size"),
        "inputs": SDSS_STRETCH,
        "symmetries": 8,
        "outputs": {"vote_fractions": list(ANSWERS)},
        "training": {"galaxies": 3},
        "scores": {"rmse": 0.1},
        "terms": {"cite": ["Willett+13"]},
        "tensors": build_network("residual", PARAMETERS).state_dict(),
        "calibration": {"usual_distance": 2.5},
        "seen": torch.tensor([-5, 3, 9]),
    }
    return Bundle(**{**values, **changes})


@pytest.fixture
def path(tmp_path):
    target = tmp_path / "small.safetensors"
    target.write_bytes(write_bundle(make()))
    return target


def test_comes_back_as_it_was(path):
    bundle = load_bundle(path)
    assert dataclasses.replace(bundle, sha256="") == make()
    assert bundle.tensors.keys() == make().tensors.keys()
    assert bundle.seen.tolist() == [-5, 3, 9]
    for name, tensor in make().tensors.items():
        assert torch.equal(bundle.tensors[name], tensor)


def test_a_member_of_a_committee():
    parameters = {"kind": "residual", "members": 2, "parameters": PARAMETERS}
    committee = build_network("committee", parameters)
    bundle = make(network="committee", parameters=parameters, tensors=committee.state_dict())
    member = bundle.member(1).build()
    for name, tensor in committee.members[1].state_dict().items():
        assert torch.equal(member.state_dict()[name], tensor)
    with pytest.raises(BundleError, match="no member 2"):
        bundle.member(2)
    with pytest.raises(BundleError, match="no member 0"):
        make().member(0)


def test_same_bundle_same_bytes():
    changed_order = dict(reversed(make().tensors.items()))
    assert write_bundle(make()) == write_bundle(make(tensors=changed_order))


def test_a_url(path):
    assert load_bundle(f"file://{path}").name == "small"


def test_changed_bytes(path):
    digest = load_bundle(path).sha256
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    with pytest.raises(BundleError, match=digest):
        load_bundle(path, digest)


@pytest.mark.parametrize("place", ["weight", "description"])
def test_changed_bytes_are_noticed_without_being_told_the_hash(path, place):
    data = bytearray(path.read_bytes())
    if place == "weight":
        data[-5] ^= 1
    else:
        where = data.index(b"symmetries")
        data[where:] = data[where:].replace(b"8", b"1", 1)
    path.write_bytes(data)
    with pytest.raises(BundleError, match="changed or damaged"):
        load_bundle(path)


def test_half_precision_and_numbers_without_shape_are_hashed(tmp_path):
    plain = {"a": torch.ones(2, 3, dtype=torch.bfloat16), "b": torch.tensor(3)}
    found = {content_digest({}, plain)}
    for change in (
        {"a": plain["a"].float()},
        {"a": plain["a"].T},
        {"b": torch.tensor(4)},
        {"c": torch.ones(1)},
    ):
        found.add(content_digest({}, plain | change))
    found.add(content_digest({"x": 1}, plain))
    assert len(found) == 6
    turned = plain["a"].T.contiguous().T
    assert content_digest({}, plain | {"a": turned}) == content_digest({}, plain)


def test_a_shipped_bundle_is_pinned(tmp_path, monkeypatch):
    target = tmp_path / "morphology-gz2.safetensors"
    target.write_bytes(write_bundle(make()))
    monkeypatch.setattr(shipped_module, "_FOLDER", tmp_path)
    with pytest.raises(BundleError, match="SHA-256"):
        load_bundle(shipped("morphology"))


def test_the_shipped_bundle_loads():
    bundle = load_bundle(shipped("morphology"))
    assert shipped("morphology").stat().st_size < 10e6
    assert bundle.task == "morphology"
    assert list(bundle.outputs["vote_fractions"]) == list(ANSWERS)
    assert sorted(bundle.bands) == ["g", "i", "r"]


def test_no_bundle_for_a_task():
    with pytest.raises(BundleError, match="morphology"):
        shipped("astrology")


@pytest.mark.parametrize("length", [0, 7, 8, 100, 5000])
def test_truncated(path, length):
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(BundleError):
        load_bundle(path)


def test_header_that_claims_too_much(path):
    path.write_bytes(struct.pack("<Q", 1 << 60) + path.read_bytes()[8:])
    with pytest.raises(BundleError, match="not a safetensors file"):
        load_bundle(path)


def test_missing_file(tmp_path):
    with pytest.raises(BundleError, match="cannot be read"):
        load_bundle(tmp_path / "none.safetensors")


def test_too_long(path, monkeypatch):
    monkeypatch.setattr(bundle_module, "MAX_BYTES", 100)
    with pytest.raises(BundleError, match="at most 100"):
        load_bundle(path)


def test_pickle_is_not_read(tmp_path):
    target = tmp_path / "weights.pt"
    torch.save({"a": torch.zeros(3)}, target)
    with pytest.raises(BundleError, match="not a safetensors file"):
        load_bundle(target)


def rewrite(path, change):
    """Change the description inside a bundle, as one would who states no hash."""
    data = path.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + length])
    about = json.loads(header["__metadata__"]["gzscale"])
    del about["digest"]
    change(about)
    header["__metadata__"]["gzscale"] = json.dumps(about)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])


COLOURS = {"kind": "colours", "bands": "gri", "scales": [1, 2, 3], "nonlinearity": 2, "pixel_scale": 0.4}
FLUX = {
    "kind": "flux",
    "bands": "gri",
    "required": "r",
    "softening": [0.1, 0.2, 0.3],
    "reddening": [3.0, 2.0, 1.0],
    "pixel_scale": None,
}


@pytest.mark.parametrize("inputs", [COLOURS, FLUX, {**FLUX, "pixel_scale": 0.4}])
def test_a_description_of_inputs_that_fits(path, inputs):
    rewrite(path, lambda about: about.update({"inputs": inputs}))
    bundle = load_bundle(path)
    assert bundle.bands == "gri"
    assert bundle.required == ("r" if inputs["kind"] == "flux" else "gri")
    assert bundle.measures_flux is (inputs["kind"] == "flux")
    assert bundle.inputs.pixel_scale == inputs["pixel_scale"]


@pytest.mark.parametrize(
    "change",
    [
        {"format": 99},
        {"network": "transformer"},
        {"parameters": {**PARAMETERS, "widths": [16]}},
        {"parameters": {**PARAMETERS, "depth": 3}},
        {"parameters": {**PARAMETERS, "heads": {"vote_fractions": "oracle"}}},
        {"symmetries": 3},
        {"geometry": {"size": 96, "scale": "r90"}},
        {"inputs": {**COLOURS, "bands": "ri", "scales": [1, 2]}},
        {"inputs": {**COLOURS, "kind": "magnitudes"}},
        {"inputs": {**COLOURS, "gamma": 2}},
        {"inputs": {**FLUX, "required": "y"}},
        {"inputs": {**FLUX, "softening": [0.1]}},
        {"inputs": {**FLUX, "reddening": [1.0, "2", 3.0]}},
        {"inputs": {**FLUX, "pixel_scale": -0.4}},
    ],
    ids=[
        *("format", "network", "shapes", "parameter", "head", "symmetries", "scale", "two bands", "kind"),
        *("superfluous", "required", "too few", "text", "negative"),
    ],
)
def test_a_description_that_does_not_fit(path, change):
    rewrite(path, lambda about: about.update(change))
    with pytest.raises(BundleError):
        load_bundle(path)


def test_a_description_that_lacks_something(path):
    rewrite(path, lambda about: about.pop("geometry"))
    with pytest.raises(BundleError, match="geometry"):
        load_bundle(path)


def test_a_safetensors_file_of_others(tmp_path):
    import safetensors.torch

    target = tmp_path / "other.safetensors"
    target.write_bytes(safetensors.torch.save({"a": torch.zeros(3)}))
    with pytest.raises(BundleError, match="not a gzscale bundle"):
        load_bundle(target)


def geometry(size, scale):
    return SimpleNamespace(size=size, scale=scale)


def test_bands_that_are_not_required_may_be_missing():
    made = make(inputs=FluxInputs("ugriz", "gri", (0.1,) * 5, (1.0,) * 5))
    made.require("irg", geometry(96, "0.08 * size"))
    with pytest.raises(BundleError, match="add g to"):
        made.require("uriz", geometry(96, "0.08 * size"))


def test_what_it_may_be_fed_with():
    make().require("ugriz", geometry(96, "0.080*size"))
    make().require("gri", geometry(96, " 0.08 * size"))


@pytest.mark.parametrize(
    ("bands", "food", "words"),
    [
        ("gr", geometry(96, "0.08 * size"), "add i to survey.bands"),
        ("gri", geometry(64, "0.08 * size"), "64 pixels"),
        ("gri", geometry(96, "0.10 * size"), "0.10"),
        ("gri", geometry(96, 0.08), "0.08"),
    ],
)
def test_what_it_may_not_be_fed_with(bands, food, words):
    with pytest.raises(BundleError, match=words):
        make().require(bands, food)
