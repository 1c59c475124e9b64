"""Heads: from a feature vector to the numbers of a task.

What is averaged over views of a galaxy and over the members of a committee are the outputs of
heads, so they must be linear in probability: for morphology the joint fractions of the tree, from
which conditional fractions follow by division and stay consistent (see `gzscale.models.votes`);
for redshifts the probability of each bin. For lenses it is the probability of being one, which a committee
pools by its logits.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gzscale.models.votes import ANSWERS, QUESTIONS

__all__ = ["HEADS", "LOGIT_BOUND", "DistanceHead", "LensHead", "PdfHead", "TreeHead", "steady_linear"]

#: Logits stay within +-this. A joint fraction is then at least exp(-20)^4 / 10, about 1e-36, so
#: that no question ever counts as asked of exactly nobody in float32.
LOGIT_BOUND = 10.0


class TreeHead(nn.Module):
    """Features -> the 37 joint vote fractions in the Kaggle scheme.

    One softmax a question, multiplied down the tree: every output is consistent by construction.

    Parameters
    ----------
    features
        Length of the feature vector.
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        self.logits = nn.Linear(features, len(ANSWERS))
        # All answers alike at first, whatever the galaxy.
        nn.init.normal_(self.logits.weight, 0, 0.01)
        nn.init.zeros_(self.logits.bias)

    def forward(self, features: Tensor) -> Tensor:
        """Return joint fractions, float32, shape (n, 37), of features of shape (n, features)."""
        # Not a matrix product: its order of summation, and so the last bit, depends on the number
        # of threads; this sum's does not.
        products = features.float()[:, None] * self.logits.weight.float()
        logits = products.sum(dim=2) + self.logits.bias.float()
        logits = LOGIT_BOUND * torch.tanh(logits / LOGIT_BOUND)
        joint: list[Tensor] = []
        for question in QUESTIONS:
            fractions = torch.softmax(logits[:, question.answers], dim=1)
            if question.parent is not None:
                fractions = fractions * torch.cat(joint, dim=1)[:, question.parent, None]
            joint.append(fractions)
        return torch.cat(joint, dim=1)


class DistanceHead(nn.Module):
    """Features -> how far they are from those of the training set.

    The Mahalanobis distance over the square root of the number of features: some 1 for a galaxy such as
    those learnt, more for an image such as none of them (Lee et al. 2018, arXiv:1807.03888).

    Parameters
    ----------
    features
        Length of the feature vector.
    """

    centre: Tensor
    axes: Tensor

    def __init__(self, features: int) -> None:
        super().__init__()
        self.register_buffer("centre", torch.zeros(features))
        self.register_buffer("axes", torch.zeros(features, features))

    def learn(self, features: Tensor) -> None:
        """Take the distribution of the training set's features, shape (n, features)."""
        self.centre.copy_(features.mean(dim=0))
        covariance = torch.cov(features.double().T)
        # A little of the mean variance in every direction: few galaxies do not span all of them.
        floor = 0.01 * covariance.diagonal().mean()
        values, vectors = torch.linalg.eigh(covariance + floor * torch.eye(len(covariance)))
        self.axes.copy_((vectors / values.sqrt()).float())

    def forward(self, features: Tensor) -> Tensor:
        """Return the distance, float32, shape (n, 1), of features of shape (n, features)."""
        apart = (features.float() - self.centre.float())[:, :, None] * self.axes.float()
        return apart.sum(dim=1).square().mean(dim=1, keepdim=True).sqrt()


class PdfHead(nn.Module):
    """Features -> the probability of each bin of a quantity: a softmax (Pasquet et al. 2019, Section 3).

    Parameters
    ----------
    features
        Length of the feature vector.
    bins
        Number of bins.
    hidden
        Width of a layer before the softmax; none if 0.
    """

    def __init__(self, features: int, bins: int, hidden: int = 0) -> None:
        super().__init__()
        self.hidden = nn.Linear(features, hidden) if hidden else None
        self.logits = nn.Linear(hidden or features, bins)
        # All bins alike at first, whatever the galaxy.
        nn.init.normal_(self.logits.weight, 0, 0.01)
        nn.init.zeros_(self.logits.bias)

    def forward(self, features: Tensor) -> Tensor:
        """Return probabilities that sum to 1, float32, shape (n, bins)."""
        vector = features.float()
        if self.hidden is not None:
            vector = torch.relu(steady_linear(vector, self.hidden))
        return torch.softmax(steady_linear(vector, self.logits), dim=1)


class LensHead(nn.Module):
    """Features -> the probability that a galaxy is a lens.

    It is linear before the logistic function, and features are means over the image: the logit is the mean of
    a map of evidence, which tells where it comes from (class activation: Zhou et al. 2016,
    arXiv:1512.04150). See `gzscale.models.backbone.Network.evidence`.

    Parameters
    ----------
    features
        Length of the feature vector.
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        self.logits = nn.Linear(features, 1)
        nn.init.normal_(self.logits.weight, 0, 0.01)
        nn.init.zeros_(self.logits.bias)

    def forward(self, features: Tensor) -> Tensor:
        """Return probabilities, float32, shape (n, 1), of features of shape (n, features)."""
        return torch.sigmoid(steady_linear(features.float(), self.logits))

    @staticmethod
    def pooled(said: Tensor) -> Tensor:
        """Return what several networks say together, shape (n, 1), of what each says, shape (k, n, 1).

        It is that of their mean logit, of which the mean of their maps tells where it comes from. The mean of
        probabilities would be less sure than they are (Ranjan & Gneiting 2010, J. R. Stat. Soc. B 72, 71).
        """
        return torch.sigmoid(torch.logit(said, eps=1e-7).mean(dim=0))


def steady_linear(vectors: Tensor, layer: nn.Linear) -> Tensor:
    """Apply a layer in float32, with the same last bit whatever the number of threads.

    In evaluation it is not a matrix product: that one's order of summation depends on the threads.
    """
    weight, bias = layer.weight.float(), layer.bias.float()
    if torch.is_grad_enabled():
        with torch.autocast(vectors.device.type, enabled=False):
            return nn.functional.linear(vectors, weight, bias)
    return (vectors[:, None] * weight).sum(dim=2) + bias


#: Kind of a head, as bundles name it.
HEADS: dict[str, type[nn.Module]] = {
    "tree": TreeHead,
    "distance": DistanceHead,
    "pdf": PdfHead,
    "lens": LensHead,
}
