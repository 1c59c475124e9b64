"""The convolutional network: a residual body and one head a task.

A head's output is what is averaged over views of a galaxy, so it must be linear in
probability: for morphology the joint fractions of the tree, from which conditional fractions
follow by division and stay consistent (see `gzscale.models.votes`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gzscale.models.votes import ANSWERS, QUESTIONS

__all__ = ["ResidualNetwork", "TreeHead", "build_network", "fuse"]

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


class _Block(nn.Module):
    """Two 3 x 3 convolutions and a shortcut (He et al. 2016, arXiv:1512.03385)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )
        nn.init.zeros_(self.norm2.weight)

    def forward(self, images: Tensor) -> Tensor:
        inner = self.norm2(self.conv2(self.relu(self.norm1(self.conv1(images)))))
        return self.relu(inner + self.shortcut(images))


class ResidualNetwork(nn.Module):
    """Images -> one tensor a head.

    Parameters
    ----------
    channels
        Channels of the input image.
    widths
        Channels of the stages; each stage halves the side of the image.
    blocks
        Residual blocks of each stage.
    heads
        Name of an output -> kind of head (``tree``).
    mean, spread
        What the input is shifted and divided by.
    dropout
        Share of features dropped in training.
    stride
        Step of the first convolution; the side of the image shrinks by it before the stages.
    crop
        Side of the central square that is looked at; all of the image if absent.
    """

    def __init__(
        self,
        channels: int = 3,
        widths: Sequence[int] = (64, 128, 256),
        blocks: Sequence[int] = (2, 2, 1),
        heads: Mapping[str, str] | None = None,
        mean: float = 0.1,
        spread: float = 0.15,
        dropout: float = 0.3,
        stride: int = 2,
        crop: int | None = None,
    ) -> None:
        super().__init__()
        if len(widths) != len(blocks):
            raise ValueError(f"{len(widths)} widths but {len(blocks)} numbers of blocks")
        self.mean, self.spread, self.crop = mean, spread, crop
        stem = widths[0] // 2
        self.stem = nn.Sequential(
            nn.Conv2d(channels, stem, 5, stride, 2, bias=False), nn.BatchNorm2d(stem), nn.ReLU(inplace=True)
        )
        stages: list[nn.Module] = []
        previous = stem
        for width, count in zip(widths, blocks, strict=True):
            stages += [_Block(previous if i == 0 else width, width, 2 if i == 0 else 1) for i in range(count)]
            previous = width
        self.stages = nn.Sequential(*stages)
        self.dropout = nn.Dropout(dropout)
        self.heads = nn.ModuleDict(
            {name: _HEADS[kind](previous) for name, kind in sorted((heads or {}).items())}
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def prepare(self, images: Tensor) -> Tensor:
        """Return what `outputs` takes: the central square, shifted and scaled.

        It does the same to every view of an image, so it is done once for all of them.
        """
        if self.crop is not None:
            top, left = (images.shape[2] - self.crop) // 2, (images.shape[3] - self.crop) // 2
            images = images[:, :, top : top + self.crop, left : left + self.crop]
        return (images - self.mean) / self.spread

    def features(self, prepared: Tensor) -> Tensor:
        """Return the feature vectors, shape (n, widths[-1]), of prepared images."""
        return self.stages(self.stem(prepared)).mean(dim=(2, 3))

    def outputs(self, prepared: Tensor) -> dict[str, Tensor]:
        """Return each head's output of prepared images. See `forward`."""
        features = self.dropout(self.features(prepared))
        return {name: head(features) for name, head in self.heads.items()}

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Return each head's output.

        Parameters
        ----------
        images
            Shape (n, channels, y, x), values in [0, 1].

        Returns
        -------
        dict[str, Tensor]
            Name of the head -> float32 tensor with n rows.
        """
        return self.outputs(self.prepare(images))


_HEADS: dict[str, type[nn.Module]] = {"tree": TreeHead}
_NETWORKS: dict[str, type[ResidualNetwork]] = {"residual": ResidualNetwork}


def build_network(name: str, parameters: Mapping[str, Any]) -> ResidualNetwork:
    """Make a network, its weights at random, from what a bundle says of it.

    Parameters
    ----------
    name
        ``residual``.
    parameters
        Keyword arguments of the network.

    Raises
    ------
    ValueError
        If the name, a head or a parameter is not known.
    """
    if name not in _NETWORKS:
        raise ValueError(f"network {name!r} is not one of {sorted(_NETWORKS)}")
    try:
        return _NETWORKS[name](**parameters)
    except (TypeError, KeyError) as error:
        raise ValueError(f"network {name!r} does not take {dict(parameters)!r}: {error}") from error


def fuse(network: ResidualNetwork) -> ResidualNetwork:
    """Fold every batch normalisation into the convolution before it; the network must be in eval mode."""
    for module in network.modules():
        if isinstance(module, _Block):
            module.conv1 = nn.utils.fuse_conv_bn_eval(module.conv1, module.norm1)
            module.conv2 = nn.utils.fuse_conv_bn_eval(module.conv2, module.norm2)
            module.norm1 = module.norm2 = nn.Identity()  # type: ignore[assignment]
        elif isinstance(module, nn.Sequential) and len(module) > 1:
            first, second = module[0], module[1]
            if isinstance(first, nn.Conv2d) and isinstance(second, nn.BatchNorm2d):
                module[0] = nn.utils.fuse_conv_bn_eval(first, second)
                module[1] = nn.Identity()
    return network
