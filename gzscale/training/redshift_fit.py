"""Fits a network to stamps and redshifts, predicts stamps, and finds how wide its PDFs should be."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from torch import Tensor, nn

from gzscale.models.backbone import Network
from gzscale.models.inputs import FluxInputs
from gzscale.tasks.redshift_pdf import recalibrate
from gzscale.tasks.redshifts import OUTPUT
from gzscale.training.flux_views import FluxViews, draw_views, plain_views
from gzscale.training.loop import Pace, autocast
from gzscale.training.photoz_metrics import crps, pit_values
from gzscale.training.stamps import StampSet
from gzscale.training.warm_start import WarmStart

__all__ = ["RedshiftLesson", "RedshiftSettings", "fit_calibration", "predict_pdfs"]

#: Stamps that are predicted together.
_BLOCK = 64
#: Steps of the distribution of PIT values that a calibration keeps.
PIT_STEPS = 50
#: No probability counts as less in the loss.
_LEAST = 1e-9


@dataclass(frozen=True, slots=True)
class RedshiftSettings:
    """How to learn redshifts.

    Attributes
    ----------
    pace
        How fast and how long.
    views
        How views differ.
    warm
        How the measurements are learnt first.
    ranked
        Weight of the CRPS, in units of the grid, beside the cross-entropy: it counts how far a bin is off.
    """

    pace: Pace = field(
        default_factory=lambda: Pace(
            epochs=5, batch=128, rate=0.002, head_rate=1e-3, decay=0.01, memory=0.998, seed=20190106
        )
    )
    views: FluxViews = field(default_factory=FluxViews)
    ranked: float = 5.0
    warm: WarmStart = field(default_factory=WarmStart)


class RedshiftLesson:
    """Stamps and redshifts as something to be learnt. See `gzscale.training.loop.Lesson`.

    Parameters
    ----------
    stamps
        All of them.
    rows, held_back
        Which of them are learnt, and which are scored after some epochs.
    inputs
        How they are shown.
    edges
        Of the bins, shape (bins + 1,).
    settings
        How they are learnt.
    """

    def __init__(
        self,
        stamps: StampSet,
        rows: NDArray[np.int64],
        held_back: NDArray[np.int64],
        inputs: FluxInputs,
        edges: NDArray[np.float64],
        settings: RedshiftSettings,
    ) -> None:
        self.stamps, self.rows, self.held_back = stamps, rows, held_back
        self.inputs, self.edges, self.settings = inputs, edges, settings
        self.extra = nn.ParameterDict()
        redshift = stamps.labels.redshift[rows]
        self._bin = torch.from_numpy(np.searchsorted(edges, redshift, side="right") - 1)
        # 1 in the bins above the true one, and the part of its own that lies above the redshift.
        above = (edges[1:] - redshift[:, None]) / np.diff(edges)
        self._step = torch.from_numpy(np.clip(above, 0, 1).astype(np.float32))

    def __len__(self) -> int:
        return len(self.rows)

    def views(self, chosen: NDArray[np.int64], generator: torch.Generator, device: torch.device) -> Tensor:
        """Return views of examples."""
        return draw_views(
            self.stamps.observation, self.rows[chosen], self.inputs, self.settings.views, generator, device
        )

    def loss(self, outputs: dict[str, Tensor], chosen: NDArray[np.int64]) -> Tensor:
        """Return the mean loss of examples."""
        probability = outputs[OUTPUT]
        true = self._bin[chosen].to(probability.device)
        entropy = -probability.gather(1, true[:, None]).clamp_min(_LEAST).log().mean()
        ranked = (probability.cumsum(dim=1) - self._step[chosen].to(probability.device)).square().mean()
        return entropy + self.settings.ranked * ranked

    def score(self, network: Network, device: torch.device) -> float:
        """Return the mean CRPS of what is held back."""
        if not len(self.held_back):
            return float("nan")
        found = predict_pdfs(network, self.stamps, self.held_back, self.inputs, device)
        return float(crps(found, self.edges, self.stamps.labels.redshift[self.held_back]).mean())

    def digest(self) -> str:
        """Return a hash of the examples and of how they are learnt."""
        about = [asdict(self.settings), asdict(self.inputs), self.edges.tolist()]
        digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
        digest.update(self.stamps.labels.object_id[self.rows].tobytes())
        digest.update(self.stamps.labels.redshift[self.rows].tobytes())
        sample = self.rows[:: max(1, len(self.rows) // 64)]
        digest.update(self.stamps.observation.images[sample].tobytes())
        return digest.hexdigest()


def predict_pdfs(
    network: Network,
    stamps: StampSet,
    rows: NDArray[np.int64],
    inputs: FluxInputs,
    device: torch.device | str = "cpu",
) -> NDArray[np.float32]:
    """Return the probabilities that a network gives to stamps as they are, shape (n, bins)."""
    device = torch.device(device)
    training = network.training
    network.eval()
    side = network.crop or stamps.observation.images.shape[-1]
    parts = []
    with torch.inference_mode(), autocast(device):
        for start in range(0, len(rows), _BLOCK):
            views = plain_views(stamps.observation, rows[start : start + _BLOCK], inputs, side, device)
            parts.append(network(views)[OUTPUT].float().cpu().numpy())
    network.train(training)
    return np.concatenate(parts)


def fit_calibration(
    probabilities: NDArray[np.floating], edges: NDArray[np.float64], redshift: NDArray[np.float64]
) -> tuple[float, list[float]]:
    """Find the temperature and the distribution of PIT values of galaxies that were held back.

    Parameters
    ----------
    probabilities
        What the network gives them, shape (n, bins).
    edges, redshift
        Of the bins; and the truth, shape (n,).

    Returns
    -------
    temperature : float
        That which makes the truth most likely.
    pit : list[float]
        The distribution of PIT values after it, at `PIT_STEPS` equal steps; see
        `gzscale.tasks.redshift_pdf.recalibrate`.
    """
    place = np.searchsorted(edges, redshift, side="right") - 1
    rows = np.arange(len(redshift))

    def unlikely(logarithm: float) -> float:
        again = recalibrate(probabilities, float(np.exp(logarithm)), (0.0, 1.0))
        return -float(np.log(np.maximum(again[rows, place], _LEAST)).mean())

    temperature = float(np.exp(minimize_scalar(unlikely, bounds=(-0.7, 0.7), method="bounded").x))
    pit = np.sort(pit_values(recalibrate(probabilities, temperature, (0.0, 1.0)), edges, redshift))
    knots = np.linspace(0, 1, PIT_STEPS + 1)
    reached = np.searchsorted(pit, knots, side="right") / len(pit)
    reached[0], reached[-1] = 0.0, 1.0
    return round(temperature, 5), [round(value, 6) for value in reached.tolist()]
