import numpy as np
import pytest
import torch
from small_bundles import votes_bundle

from gzscale.models.observation import Observation


@pytest.fixture(autouse=True)
def _one_thread():
    """Small networks gain nothing from threads, and lose much on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def bundle():
    return votes_bundle()


@pytest.fixture
def cutouts(rng):
    images = rng.gamma(0.5, 0.1, (21, 5, 32, 32)).astype(np.float16)
    images[2, :, :9] = np.nan
    images[3] = np.nan
    images[4, 2, 5, 5] = np.inf
    return images, rng.uniform(0.2, 2.0, 21)


@pytest.fixture
def rng():
    return np.random.default_rng(11)


@pytest.fixture
def measured(cutouts, rng):
    images = cutouts[0]
    noise = rng.uniform(0.01, 0.05, (21, 5)).astype(np.float32)
    ebv = rng.uniform(0, 0.3, 21).astype(np.float32)
    ebv[5] = np.nan
    return Observation(images, "ugriz", np.full(21, 0.396), noise, ebv)


@pytest.fixture
def with_room_for(monkeypatch):
    """Leave an engine's device memory for so many images at once."""

    def limit(most, engine):
        outputs = engine.network.outputs

        def limited(prepared):
            if len(prepared) > most:
                raise torch.OutOfMemoryError("no memory for so many")
            return outputs(prepared)

        monkeypatch.setattr(engine.network, "outputs", limited)

    return limit
