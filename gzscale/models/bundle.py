"""A model bundle: weights, and all that is needed to feed them rightly, in one safetensors file.

The file is a safetensors file whose header holds one metadata entry, ``gzscale``: JSON with
the format's version, the task, the network and its parameters, the geometry and the inputs
that it must be fed with, what it was trained on, how well it did, and its terms.
The bytes are a function of the content alone, and state its hash. Pickle is never read.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from gzscale.errors import BundleError, CredentialsError, StorageError
from gzscale.models.backbone import Network
from gzscale.models.content import require_unchanged, sealed
from gzscale.models.field import BundleGeometry, Geometry, same_field, scale_rule
from gzscale.models.inputs import (
    PICTURE_FACTOR,
    PICTURE_SCALE,
    PICTURE_SIZE,
    SDSS_STRETCH,
    FluxInputs,
    Inputs,
    Stretch,
)
from gzscale.models.network import build_network
from gzscale.models.shipped import pin
from gzscale.storage import open_storage, sha256_hex

__all__ = [
    "Bundle",
    "BundleGeometry",
    "load_bundle",
    "write_bundle",
]

FORMAT = 3
#: A bundle is at most this long; a longer file is refused unread.
MAX_BYTES = 1 << 30
MAX_HEADER_BYTES = 4 << 20

#: Names of the tensors of hashes of what was learnt, and of their folds.
_SEEN, _SEEN_FOLD = "seen", "seen_fold"
#: Kinds of inputs, as the file names them.
_INPUTS: dict[str, type[Inputs]] = {"colours": Stretch, "flux": FluxInputs}


@dataclass(frozen=True, slots=True)
class Bundle:
    """Weights and what they need.

    Attributes
    ----------
    task
        Name of the task that reads its outputs.
    name
        Name of the model, with its version: ``gz2-1``.
    network
        Kind of network, see `gzscale.models.network.build_network`.
    parameters
        Keyword arguments of the network.
    geometry
        What its cutouts must be.
    inputs
        How flux is shown to it: in colours, or band by band.
    symmetries
        1, or 8: outputs are averaged over the symmetries of the square.
    outputs
        Name of each head -> the names of its columns.
    training
        What it was trained on, in words and numbers.
    scores
        How well it did on what it never saw.
    terms
        Licence and citations.
    tensors
        The weights by name.
    calibration
        Numbers that the task turns the outputs into columns with.
    seen
        First 64 bits of the SHA-256 of the names and, where they were kept, of the picture of each galaxy
        that was learnt, int64, sorted.
    seen_fold
        Of each of these the member of a committee that has not learnt it, int16.
    sha256
        Of the file; empty for one that was not read from a file.
    """

    task: str
    name: str
    network: str
    parameters: Mapping[str, Any]
    geometry: BundleGeometry
    inputs: Inputs
    symmetries: int
    outputs: Mapping[str, Sequence[str]]
    training: Mapping[str, Any]
    scores: Mapping[str, float]
    terms: Mapping[str, Any]
    tensors: Mapping[str, Tensor] = field(repr=False, compare=False)
    calibration: Mapping[str, Any] = field(default_factory=dict)
    seen: Tensor | None = field(default=None, repr=False, compare=False)
    seen_fold: Tensor | None = field(default=None, repr=False, compare=False)
    sha256: str = ""

    @property
    def bands(self) -> str:
        """The bands that it is shown, in the order of its channels."""
        return self.inputs.bands

    @property
    def required(self) -> str:
        """Those of the bands without which an object gets no answer: for colours, all of them."""
        return self.inputs.required if isinstance(self.inputs, FluxInputs) else self.bands

    @property
    def filters(self) -> str:
        """The survey whose filters it has learnt."""
        return self.inputs.filters

    @property
    def measures_flux(self) -> bool:
        """Whether it is shown flux, and not colours."""
        return isinstance(self.inputs, FluxInputs)

    def build(self) -> Network:
        """Return the network with these weights, in evaluation mode, float32.

        Raises
        ------
        BundleError
            If the network is unknown or a tensor is missing, superfluous or of another shape.
        """
        try:
            network = build_network(self.network, self.parameters)
            network.load_state_dict({name: tensor.float() for name, tensor in self.tensors.items()})
        except (ValueError, RuntimeError) as error:
            raise BundleError(f"bundle {self.name!r}: its weights do not fit its network: {error}") from error
        return network.eval()

    def member(self, number: int) -> Bundle:
        """Return one member of a committee as a bundle of its own.

        Raises
        ------
        BundleError
            If this is no committee, or has no such member.
        """
        prefix = f"members.{number}."
        tensors = {
            name.removeprefix(prefix): tensor
            for name, tensor in self.tensors.items()
            if name.startswith(prefix)
        }
        if self.network != "committee" or not tensors:
            raise BundleError(f"bundle {self.name!r}: no member {number} in a network {self.network!r}")
        kind, parameters = self.parameters["kind"], self.parameters["parameters"]
        return replace(self, network=kind, parameters=parameters, tensors=tensors, seen=None, seen_fold=None)

    def require(self, bands: str, geometry: Geometry, filters: str | None = None) -> None:
        """Refuse to be fed with other cutouts than it was trained for.

        Parameters
        ----------
        bands
            The bands of the cutouts, one letter each, in any order. Those that are not required may be
            missing.
        geometry
            The geometry of the cutouts.
        filters
            The survey whose filters they were taken through, or may pass for; None if it is not known.

        Raises
        ------
        BundleError
            With what is needed and what is there.
        """
        if filters is not None and filters != self.filters:
            raise BundleError(
                f"bundle {self.name!r} ({self.task}) has learnt the filters of {self.filters}, but the "
                f"cutouts are of {filters}: take a bundle for these, or set "
                f"tasks.{self.task}.filters={self.filters} to show it them all the same"
            )
        missing = [band for band in self.required if band not in bands]
        if missing:
            raise BundleError(
                f"bundle {self.name!r} ({self.task}) needs the bands {''.join(sorted(self.required))}, "
                f"but the cutouts have {bands!r}: add {''.join(missing)} to survey.bands"
            )
        if not same_field(geometry, self.geometry):
            raise BundleError(
                f"bundle {self.name!r} ({self.task}) needs cutouts of {self.geometry.size} pixels at "
                f"{self.geometry.scale!r} arcsec, but the geometry has {geometry.size} pixels at "
                f"{geometry.scale!r}: give the task a geometry with these numbers"
            )

    def require_pictures(self) -> None:
        """Refuse to be fed with JPEG or PNG pictures, unless they show what it was trained for.

        Raises
        ------
        BundleError
            If it measures flux, sees other colours than SDSS's, or another field than Galaxy Zoo 2's
            pictures, 424 pixels at 0.02 x petroR90, or a part of their middle.
        """
        if not isinstance(self.inputs, Stretch):
            raise BundleError(
                f"bundle {self.name!r} measures flux, which JPEG and PNG pictures do not tell: "
                f"give it FITS cutouts in {self.required}"
            )
        largest = PICTURE_SIZE // PICTURE_FACTOR
        shown = BundleGeometry(min(self.geometry.size, largest), PICTURE_SCALE)
        if not same_field(shown, self.geometry):
            raise BundleError(
                f"bundle {self.name!r} looks at {self.geometry.size} pixels at {self.geometry.scale!r} "
                f"arcsec, but pictures show at most {largest} at {PICTURE_SCALE!r}: give it FITS cutouts"
            )
        if self.inputs != SDSS_STRETCH:
            raise BundleError(
                f"bundle {self.name!r} sees {self.inputs}, but pictures are in SDSS's colours, "
                f"{SDSS_STRETCH}: give it FITS cutouts"
            )


def write_bundle(bundle: Bundle) -> bytes:
    """Return a bundle as the bytes of a safetensors file: same bundle, same bytes."""
    about = asdict(_without_tensors(bundle))
    kind = next(kind for kind, made in _INPUTS.items() if isinstance(bundle.inputs, made))
    about["inputs"] = {"kind": kind, **about["inputs"]}
    for key in ("tensors", "sha256", _SEEN, _SEEN_FOLD):
        del about[key]
    tensors = {name: tensor.contiguous().cpu() for name, tensor in sorted(bundle.tensors.items())}
    for name, known in ((_SEEN, bundle.seen), (_SEEN_FOLD, bundle.seen_fold)):
        if known is not None:
            tensors[name] = known.contiguous().cpu()
    return safetensors.torch.save(tensors, metadata={"gzscale": sealed({"format": FORMAT, **about}, tensors)})


def load_bundle(location: str | Path, sha256: str | None = None) -> Bundle:
    """Read a bundle.

    Parameters
    ----------
    location
        Path or URL.
    sha256
        What the file's SHA-256 must be; a bundle of the package is always checked.

    Raises
    ------
    BundleError
        If it cannot be read, is not a bundle of this format, or has other bytes than it should or says.
    """
    path = str(location)
    data = _read(path)
    digest = sha256_hex(data)
    expected = sha256 or pin(path)
    if expected and digest != expected:
        raise BundleError(
            f"{path}: SHA-256 is {digest}, but it should be {expected}: the file was changed or "
            "damaged; install it again"
        )
    about = _metadata(path, data)
    try:
        tensors = safetensors.torch.load(data)
    except (SafetensorError, ValueError) as error:
        raise BundleError(f"{path}: damaged: {error}") from error
    require_unchanged(path, about, tensors)
    try:
        bundle = _parse(about, tensors, digest)
    except (KeyError, TypeError, ValueError) as error:
        raise BundleError(f"{path}: its description lacks or misstates {error}") from error
    bundle.build()
    return bundle


def _read(path: str) -> bytes:
    folder, _, name = path.rpartition("/")
    try:
        storage = open_storage(folder or ("/" if path.startswith("/") else "."))
        entry = storage.stat(name)
        if entry is not None and entry.size > MAX_BYTES:
            raise BundleError(f"{path}: {entry.size} bytes; a bundle has at most {MAX_BYTES}")
        return storage.get(name)
    except CredentialsError:  # They concern more than the bundle.
        raise
    except StorageError as error:
        raise BundleError(f"{path}: cannot be read: {error}") from error


def _metadata(path: str, data: bytes) -> dict[str, Any]:
    """Read the JSON of the safetensors header, bounded."""
    length = struct.unpack("<Q", data[:8])[0] if len(data) >= 8 else 0
    if not 2 <= length <= min(MAX_HEADER_BYTES, len(data) - 8):
        raise BundleError(f"{path}: not a safetensors file ({len(data)} bytes, header of {length})")
    try:
        text = json.loads(data[8 : 8 + length])["__metadata__"]["gzscale"]
        about = json.loads(text)
        version = about["format"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise BundleError(f"{path}: a safetensors file, but not a gzscale bundle") from error
    if version != FORMAT:
        raise BundleError(f"{path}: bundle format {version!r}; this version of gzscale reads {FORMAT}")
    return about


def _parse(about: dict[str, Any], tensors: dict[str, Tensor], digest: str) -> Bundle:
    geometry = BundleGeometry(int(about["geometry"]["size"]), about["geometry"]["scale"])
    scale_rule(geometry.scale)
    if about["symmetries"] not in (1, 8):
        raise ValueError(f"symmetries {about['symmetries']!r}, not 1 or 8")
    plain = ("task", "name", "network", "parameters", "symmetries", "outputs")
    told = ("training", "scores", "terms", "calibration")
    seen, seen_fold = tensors.pop(_SEEN, None), tensors.pop(_SEEN_FOLD, None)
    if seen_fold is not None and (seen is None or seen.shape != seen_fold.shape):
        raise ValueError("the folds of what was learnt: not one for each hash")
    return Bundle(
        **{key: about[key] for key in (*plain, *told)},
        seen=seen,
        seen_fold=seen_fold,
        geometry=geometry,
        inputs=_parse_inputs(about["inputs"]),
        tensors=tensors,
        sha256=digest,
    )


def _parse_inputs(about: dict[str, Any]) -> Inputs:
    values: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in about.items()
    }
    return _INPUTS[values.pop("kind")](**values)


def _without_tensors(bundle: Bundle) -> Bundle:
    """Copy a bundle without its weights, which `asdict` would copy in full."""
    return replace(bundle, tensors=dict[str, torch.Tensor](), seen=None, seen_fold=None)
