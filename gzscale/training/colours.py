"""Redshifts from total colours: what an astronomer would use without the image.

Two methods on the same colours and reference magnitude: the nearest neighbours in colour (Csabai et al.
2007, AN 328, 852; Beck et al. 2016, MNRAS 460, 1371), and a small neural network with a softmax over the
bins. Both give a PDF, on the same grid as the network that sees the image.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d
from scipy.spatial import cKDTree
from torch import nn

__all__ = ["METHODS", "colour_features", "neighbours", "perceptron"]

#: Neighbours in colour, and the width in bins that their redshifts are smoothed with.
NEIGHBOURS, SMOOTHING = 40, 2.0
#: Epochs, galaxies of a step, width of the layers and largest learning rate of the small network.
EPOCHS, BATCH, WIDTH, RATE = 40, 256, 128, 3e-3
#: Flux in nanomaggies at which asinh magnitudes turn from logarithmic to linear.
_SOFTENING = 0.5


def colour_features(
    flux: NDArray[np.floating], extinction: NDArray[np.floating], reddening: Sequence[float], reference: int
) -> NDArray[np.float64]:
    """Return colours of neighbouring bands and the magnitude in the reference band.

    Parameters
    ----------
    flux
        Total fluxes in nanomaggies, shape (n, B); NaN where not measured.
    extinction
        E(B-V), shape (n,); NaN: not corrected.
    reddening
        Extinction in magnitudes per E(B-V), one a band.
    reference
        Index of the reference band.

    Returns
    -------
    NDArray[np.float64]
        Asinh magnitudes (Lupton, Gunn & Szalay 1999), shape (n, B); NaN where a band was not measured.
    """
    corrected = flux * 10 ** (0.4 * np.nan_to_num(extinction)[:, None] * np.asarray(reddening))
    magnitude = 22.5 - 2.5 / np.log(10) * (np.arcsinh(corrected / (2 * _SOFTENING)) + np.log(_SOFTENING))
    return np.column_stack([magnitude[:, :-1] - magnitude[:, 1:], magnitude[:, reference]])


def neighbours(
    known: NDArray[np.float64],
    redshift: NDArray[np.float64],
    asked: NDArray[np.float64],
    edges: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Return the PDFs that the nearest neighbours of each galaxy give it, shape (n, bins).

    Parameters
    ----------
    known, redshift
        Features and redshifts of the galaxies that are learnt.
    asked
        Features of n galaxies.
    edges
        Of the bins.
    """
    known, asked = _scaled(known, asked)
    distance, index = cKDTree(known).query(asked, k=min(NEIGHBOURS, len(known)))
    weight = 1 / (distance + 1e-3 * np.median(distance))
    bins = np.clip(np.searchsorted(edges, redshift[index], side="right") - 1, 0, len(edges) - 2)
    counts = np.zeros((len(asked), len(edges) - 1))
    np.add.at(counts, (np.arange(len(asked))[:, None], bins), weight)
    smooth = gaussian_filter1d(counts, SMOOTHING, axis=1, mode="nearest")
    result: NDArray[np.float64] = smooth / smooth.sum(axis=1, keepdims=True)
    return result


def perceptron(
    known: NDArray[np.float64],
    redshift: NDArray[np.float64],
    asked: NDArray[np.float64],
    edges: NDArray[np.float64],
    seed: int = 0,
) -> NDArray[np.float64]:
    """Return the PDFs that a small neural network gives to n galaxies, shape (n, bins); see `neighbours`."""
    learnt, new = (torch.from_numpy(part).float() for part in _scaled(known, asked))
    target = torch.from_numpy(np.clip(np.searchsorted(edges, redshift, side="right") - 1, 0, len(edges) - 2))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = nn.Sequential(
            nn.Linear(learnt.shape[1], WIDTH), nn.SiLU(), nn.Linear(WIDTH, WIDTH), nn.SiLU(),
            nn.Linear(WIDTH, len(edges) - 1),
        )  # fmt: skip
        per_epoch = max(1, len(learnt) // BATCH)
        steps = EPOCHS * per_epoch
        optimizer = torch.optim.AdamW(network.parameters(), weight_decay=1e-4)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps + 1)
        for step in range(steps):
            if step % per_epoch == 0:
                order = torch.randperm(len(learnt))
            first = step % per_epoch * BATCH
            chosen = order[first : first + BATCH]
            loss = nn.functional.cross_entropy(network(learnt[chosen]), target[chosen])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
        with torch.inference_mode():
            found: NDArray[np.float64] = torch.softmax(network(new), dim=1).double().numpy()
    return found


def _scaled(
    known: NDArray[np.float64], asked: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Scale both to the middle and the spread of what is known; what is missing is in the middle."""
    middle = np.nanmedian(known, axis=0)
    spread = np.maximum(1.4826 * np.nanmedian(np.abs(known - middle), axis=0), 1e-6)
    return np.nan_to_num((known - middle) / spread), np.nan_to_num((asked - middle) / spread)


#: Name of a method -> what gives PDFs.
METHODS = {"neighbours": neighbours, "perceptron": perceptron}
