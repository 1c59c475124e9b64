"""A survey in memory, a small bundle and a small night: what the night's tests run on."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from astropy.wcs import WCS

from gzscale.config import NightConfig
from gzscale.errors import ImageError, Reason
from gzscale.models.bundle import Bundle, BundleGeometry, write_bundle
from gzscale.models.inputs import SDSS_STRETCH, FluxInputs
from gzscale.models.network import build_network
from gzscale.models.votes import ANSWERS
from gzscale.surveys.base import Coverage, Image, ImageRef
from gzscale.tasks.morphology import DISTANCE, OUTPUT

SIDE = 300
SCALE = 0.4
CENTRES = {"a": (10.0, 5.0), "b": (200.0, -30.0)}


class ToySurvey:
    """Two exposures of noise with galaxies; ``root`` may name bands of exposures that are missing."""

    kind = "toy"
    pixel_scale = SCALE

    def __init__(self, root, bands, options=None):
        self.root, self.bands, self.options = root, bands, dict(options or {})

    def wcs(self, exposure):
        wcs = WCS(naxis=2)
        wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
        wcs.wcs.crval = CENTRES[exposure]
        wcs.wcs.crpix = [SIDE / 2 + 0.5] * 2
        wcs.wcs.cdelt = [-SCALE / 3600, SCALE / 3600]
        return wcs

    def find(self, rows, radius):
        refs, objects, images, lost = [], [], [], {}
        ra, dec = rows["ra"].to_numpy(), rows["dec"].to_numpy()
        near = {
            exposure: np.flatnonzero((abs(ra - centre[0]) < 1) & (abs(dec - centre[1]) < 1))
            for exposure, centre in CENTRES.items()
        }
        for band in self.bands:
            for exposure, found in near.items():
                if len(found):
                    name = f"{exposure}-{band}"
                    objects += found.tolist()
                    images += [len(refs)] * len(found)
                    refs.append(ImageRef(name, band, f"{name}.img", exposure))
        covered = set(objects)
        for row in range(len(ra)):
            if row not in covered:
                lost[row] = (Reason.OFF_FOOTPRINT, "no exposure there")
        return Coverage(tuple(refs), np.array(objects, np.int64), np.array(images, np.int64), lost)

    def open(self, ref):
        if ref.name in self.options.get("missing", []):
            raise ImageError(Reason.MISSING_IMAGE, f"{ref.path}: not there")
        rng = np.random.default_rng(int(hashlib.sha256(ref.name.encode()).hexdigest()[:8], 16))
        y, x = np.mgrid[:SIDE, :SIDE]
        pixels = rng.normal(0, 0.02, (SIDE, SIDE)) + 3 * np.exp(-((x - 150) ** 2 + (y - 150) ** 2) / 50)
        return Image(
            ref,
            pixels.astype(np.float32),
            self.wcs(ref.exposure),
            np.full((4, 4), 0.02, np.float32),
            hashlib.sha256(ref.name.encode()).hexdigest(),
            pixels.nbytes,
        )

    def state(self, ref):
        return "absent" if ref.name in self.options.get("missing", []) else self.options.get("state", "s1")


def write_toy_bundle(path: Path, side: int = 32) -> Path:
    """Write a network with random weights as a morphology bundle for cutouts of so many pixels a side."""
    torch.manual_seed(0)
    parameters = {"widths": [8, 8], "blocks": [1, 1], "heads": {OUTPUT: "tree", DISTANCE: "distance"}}
    network = build_network("residual", parameters)
    bundle = Bundle(
        task="morphology",
        name="toy",
        network="residual",
        parameters=parameters,
        geometry=BundleGeometry(side, "0.1 * size"),
        inputs=SDSS_STRETCH,
        symmetries=1,
        outputs={OUTPUT: list(ANSWERS), DISTANCE: ["distance"]},
        training={"data": "none"},
        scores={},
        terms={"licence": "CC0"},
        tensors=dict(network.state_dict()),
        calibration={"vote_spread": [[2.0, 0.0]] * 11, "usual_distance": 1.0},
    )
    path.write_bytes(write_bundle(bundle))
    return path


def write_redshift_bundle(path: Path) -> Path:
    """Write a network with random weights as a redshift bundle for 32-pixel cutouts; u may be missing."""
    torch.manual_seed(1)
    bins = 20
    parameters = {
        "bands": 4,
        "side": 24,
        "crop": 24,
        "width": 8,
        "body": {"widths": [4], "blocks": [1]},
        "heads": {"pdf": {"kind": "pdf", "bins": bins}},
    }
    network = build_network("photometric", parameters)
    network.heads["pdf"].logits.bias.data = -(((torch.arange(bins) - 8.0) / 1.5) ** 2)
    bundle = Bundle(
        task="redshifts",
        name="toy",
        network="photometric",
        parameters=parameters,
        geometry=BundleGeometry(32, "0.1 * size"),
        inputs=FluxInputs("ugri", "gr", (0.1,) * 4, (4.0, 3.0, 2.0, 1.5)),
        symmetries=1,
        outputs={"pdf": [str(number) for number in range(bins)]},
        training={},
        scores={},
        terms={},
        tensors=network.state_dict(),
        calibration={
            "limit": 0.4,
            "bins": bins,
            "temperature": 1.0,
            "pit": [0.0, 1.0],
            "bands": "ugri",
            "reference": "r",
            "flux": [0.0, 1e9],
            "saturation": dict.fromkeys("ugri", 1e6),
        },
    )
    path.write_bytes(write_bundle(bundle))
    return path


def toy_catalog(count: int = 40) -> pa.Table:
    """Objects in both exposures, on an edge, off the footprint, and impossible ones."""
    rng = np.random.default_rng(5)
    ra, dec = [], []
    for number in range(count):
        centre = CENTRES["ab"[number % 2]]
        ra.append(centre[0] + rng.uniform(-0.012, 0.012))
        dec.append(centre[1] + rng.uniform(-0.012, 0.012))
    ra += [50.0, float("nan"), 10.0]
    dec += [50.0, 5.0, 5.0 + SIDE / 2 * SCALE / 3600 - 1e-5]
    ids = [*range(1000, 1000 + count), 1, 2, 3]
    size = [4.0] * (count + 2) + [4.0]
    size[3] = float("nan")
    return pa.table({"id": ids, "ra": ra, "dec": dec, "r90": pa.array(size, pa.float32())})


def toy_config(folder: Path, **changes) -> NightConfig:
    """Write the toy's catalog and bundle, and return its configuration."""
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(toy_catalog(), folder / "catalog.parquet")
    bundle = write_toy_bundle(folder / "toy.safetensors")
    tree = {
        "survey": {"kind": "toy", "root": "memory", "bands": "gri"},
        "catalog": {
            "path": str(folder / "catalog.parquet"),
            "columns": {"object_id": "id", "ra": "ra", "dec": "dec", "size": "r90"},
        },
        "geometries": {"galaxy": {"size": 32, "scale": "0.1 * size"}},
        "tasks": {"morphology": {"geometry": "galaxy", "bundle": str(bundle)}},
        "output": str(folder / "out"),
        "max_objects": 16,
    }
    return NightConfig.model_validate(tree | changes)
