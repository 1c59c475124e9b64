"""What every network is: images in, one tensor a head out, and what lies between is its body's matter."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from gzscale.models.heads import HEADS, LensHead

__all__ = ["HeadKind", "Network"]

#: A head as bundles name it: its kind, or ``kind`` and its parameters.
HeadKind = str | Mapping[str, Any]


class Network(nn.Module, ABC):
    """Images -> one tensor a head.

    A body has to give `features`, and their number to `add_heads`, which keeps it as ``length``.

    Parameters
    ----------
    mean, spread
        What the input is shifted and divided by.
    dropout
        Share of features dropped in training.
    crop
        Side of the central square that is looked at; all of the image if absent.
    size
        Side that the square is resampled to (bilinear); none if absent. Small stars and arms are a few
        pixels wide, and a body that halves the image at once sees more of them in a larger one.
    """

    def __init__(
        self, mean: float, spread: float, dropout: float, crop: int | None = None, size: int | None = None
    ) -> None:
        super().__init__()
        self.mean, self.spread, self.crop, self.size = mean, spread, crop, size
        self.dropout = nn.Dropout(dropout)
        self.heads = nn.ModuleDict()

    def add_heads(self, features: int, heads: Mapping[str, HeadKind] | None) -> None:
        """Make the heads for feature vectors of a length.

        Parameters
        ----------
        features
            Length of the vectors.
        heads
            Name -> kind, or a mapping of ``kind`` and the parameters of the head.
        """
        self.length = features
        for name, kind in sorted((heads or {}).items()):
            about = {"kind": kind} if isinstance(kind, str) else dict(kind)
            self.heads[name] = HEADS[about.pop("kind")](features, **about)

    def together(self, name: str, said: Tensor) -> Tensor:
        """Return what several networks such as this one say together of one head.

        Parameters
        ----------
        name
            Of the head.
        said
            What each says of n images, shape (k, n, numbers).

        Returns
        -------
        Tensor
            Shape (n, numbers): the mean, or what the head makes of them.
        """
        head = self.heads[name]
        return head.pooled(said) if isinstance(head, LensHead) else said.mean(dim=0)

    def prepare(self, images: Tensor) -> Tensor:
        """Return what `outputs` takes: the central square, resampled, shifted and scaled.

        It does the same to every view of an image, so it is done once for all of them.
        """
        if self.crop is not None:
            top, left = (images.shape[2] - self.crop) // 2, (images.shape[3] - self.crop) // 2
            images = images[:, :, top : top + self.crop, left : left + self.crop]
        if self.size is not None and self.size != images.shape[-1]:
            images = functional.interpolate(images, size=(self.size, self.size), mode="bilinear")
        return (images - self.mean) / self.spread

    @abstractmethod
    def features(self, prepared: Tensor) -> Tensor:
        """Return the feature vectors, float32, one a row, of prepared images."""

    @abstractmethod
    def fuse(self) -> None:
        """Fold what is constant in evaluation into plain convolutions, in place."""

    def evidence(self, prepared: Tensor, head: str) -> Tensor:
        """Return maps whose means over the image are the logits of a head that is linear in the features.

        Parameters
        ----------
        prepared
            As `outputs` takes them.
        head
            Name of a head of kind ``lens``.

        Returns
        -------
        Tensor
            float32, shape (n, rows, columns), coarser than the image.

        Raises
        ------
        ValueError
            If the features of this body are not means over the image.
        """
        raise ValueError(f"a {type(self).__name__} has no map of what its features come from")

    def outputs(self, prepared: Tensor) -> dict[str, Tensor]:
        """Return each head's output of prepared images. See `forward`."""
        features = self.dropout(self.features(prepared))
        return {name: head(features) for name, head in self.heads.items()}

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Return each head's output.

        Parameters
        ----------
        images
            Shape (n, channels, y, x): see `gzscale.models.inputs`.

        Returns
        -------
        dict[str, Tensor]
            Name of the head -> float32 tensor with n rows.
        """
        return self.outputs(self.prepare(images))
