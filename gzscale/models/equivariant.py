"""A residual network whose votes do not change when an image is turned by 90 degrees or mirrored.

Its layers are group convolutions for p4m (Cohen & Welling 2016, arXiv:1602.07576, Sections 4 to 6): each of
c learnt filters is used in the 8 orientations of the square, so that a layer has 8 c channels, and
turning the input turns every layer's output and permutes its orientations alike. The mean over
orientations and pixels is then the same for all 8 views: one pass gives what averaging over 8 views
gives an ordinary network, and from few galaxies a filter for a bar is learnt once, not eight times.

Every step halves the image with windows that lie symmetrically on it (4 x 4 pixels, step 2, one pixel of
border, an even side): the symmetry holds to the rounding of floats. In evaluation the filters are expanded
once, and the network is one of ordinary convolutions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import product

import torch
from torch import Tensor, nn
from torch.nn import functional

from gzscale.models.backbone import HeadKind, Network

__all__ = ["EquivariantNetwork"]

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": functional.relu,
    "gelu": functional.gelu,
    "silu": functional.silu,
}
#: Order of the group: 4 turns, each with and without a mirror image before.
ORDER = 8


def _compose(first: int, second: int) -> int:
    """Return the element that does ``second``, then ``first``.

    Element 4 m + r mirrors m times, then makes r quarter turns.
    """
    mirror, turns = divmod(first, 4)
    mirror_2, turns_2 = divmod(second, 4)
    return (mirror + mirror_2) % 2 * 4 + (turns + (-turns_2 if mirror else turns_2)) % 4


def _inverse(element: int) -> int:
    return next(other for other in range(ORDER) if _compose(element, other) == 0)


#: For each orientation of a filter, which of its input orientations stands where.
_PERMUTED = tuple(tuple(_compose(_inverse(g), h) for h in range(ORDER)) for g in range(ORDER))


def _transform(filters: Tensor, element: int) -> Tensor:
    """Mirror and turn the last two axes."""
    mirror, turns = divmod(element, 4)
    return torch.rot90(filters.flip(-1) if mirror else filters, turns, (-2, -1))


class _GroupConvolution(nn.Module):
    """A convolution of ``inputs`` x 8 channels to ``outputs`` x 8; of an image where ``lifts`` is set.

    The learnt filters are the rows of a matrix, which is what `torch.optim.Muon` works on.
    """

    def __init__(self, inputs: int, outputs: int, side: int, step: int = 1, lifts: bool = False) -> None:
        super().__init__()
        self.step, self.border, self.lifts = step, (side - step) // 2, lifts
        self.shape = (inputs, 1 if lifts else ORDER, side, side)
        fan_in = torch.Size(self.shape).numel()
        self.weight = nn.Parameter(torch.randn(outputs, fan_in) * (2 / fan_in) ** 0.5)

    def expanded(self) -> Tensor:
        """Return the filters in all orientations, as an ordinary convolution takes them."""
        filters = self.weight.view(-1, *self.shape)
        turned = [_transform(filters if self.lifts else filters[:, :, _PERMUTED[g]], g) for g in range(ORDER)]
        return torch.stack(turned, dim=1).flatten(0, 1).flatten(1, 2)

    def forward(self, images: Tensor) -> Tensor:
        return functional.conv2d(images, self.expanded(), None, self.step, self.border)


class _GroupNorm(nn.Module):
    """Batch normalisation with the same statistics for all orientations of a filter."""

    def __init__(self, filters: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(filters)

    def forward(self, images: Tensor) -> Tensor:
        n, channels, height, width = images.shape
        joined = images.reshape(n, channels // ORDER, ORDER * height, width)
        return self.norm(joined).reshape(n, channels, height, width)


class _Unit(nn.Module):
    """A group convolution and its normalisation."""

    def __init__(self, inputs: int, outputs: int, side: int, step: int = 1, lifts: bool = False) -> None:
        super().__init__()
        self.conv: nn.Module = _GroupConvolution(inputs, outputs, side, step, lifts)
        self.norm: nn.Module = _GroupNorm(outputs)

    def forward(self, images: Tensor) -> Tensor:
        return self.norm(self.conv(images))

    @torch.no_grad()
    def fuse(self) -> None:
        """Become one ordinary convolution."""
        source, norm = self.conv, self.norm
        if not isinstance(source, _GroupConvolution) or not isinstance(norm, _GroupNorm):
            return
        statistics = norm.norm
        if statistics.running_var is None or statistics.running_mean is None:
            raise ValueError("a normalisation without running statistics cannot be folded")
        gain = statistics.weight / torch.sqrt(statistics.running_var + statistics.eps)
        filters = source.expanded() * gain.repeat_interleave(ORDER)[:, None, None, None]
        outputs, inputs, side, _ = filters.shape
        plain = nn.Conv2d(inputs, outputs, side, source.step, source.border)
        plain.weight.copy_(filters)
        shift = statistics.bias - statistics.running_mean * gain
        if plain.bias is not None:
            plain.bias.copy_(shift.repeat_interleave(ORDER))
        self.conv, self.norm = plain, nn.Identity()


class _Block(nn.Module):
    """Two group convolutions and a shortcut; the first halves the image where ``halves`` is set."""

    def __init__(self, inputs: int, outputs: int, halves: bool, kernel: int, activation: str) -> None:
        super().__init__()
        self.first = _Unit(inputs, outputs, kernel + 1, 2) if halves else _Unit(inputs, outputs, kernel)
        self.second = _Unit(outputs, outputs, kernel)
        self.activate = _ACTIVATIONS[activation]
        self.halves = halves
        same = inputs == outputs and not halves
        self.shortcut: nn.Module = nn.Identity() if same else _Unit(inputs, outputs, 1)
        norm = self.second.norm
        if isinstance(norm, _GroupNorm):
            nn.init.zeros_(norm.norm.weight)

    def forward(self, images: Tensor) -> Tensor:
        inner = self.second(self.activate(self.first(images)))
        if self.halves:
            images = functional.avg_pool2d(images, 2)
        return self.activate(inner + self.shortcut(images))


def _smooth(maps: Tensor, width: int) -> Tensor:
    """Return running means over a width, the cells at both ends by half, shape (n, rows, columns)."""
    if width == 1:
        return maps
    kernel = torch.ones(width + 1, device=maps.device)
    kernel[[0, -1]] = 0.5
    kernel = torch.outer(kernel, kernel) / width**2
    wide = functional.pad(maps[:, None], [width // 2] * 4, mode="replicate")
    return functional.conv2d(wide, kernel[None, None])[:, 0]


class EquivariantNetwork(Network):
    """A residual body of p4m group convolutions.

    Parameters
    ----------
    channels
        Channels of the input image.
    widths
        Filters of the stages, each used in 8 orientations; each stage halves the side of the image.
    blocks
        Residual blocks of each stage.
    heads
        Name of an output -> kind of head, see `gzscale.models.backbone.Network.add_heads`.
    kernel
        Side of the filters, odd.
    activation
        ``relu``, ``gelu`` or ``silu``.
    pooling
        ``mean`` over orientations and pixels; or ``mean-max``: beside it, the largest over orientations.
    mean, spread, dropout, crop, size
        See `gzscale.models.backbone.Network`. The side that is looked at must be a multiple of
        2 ** (stages + 1), or the network only nearly keeps the symmetry.
    """

    def __init__(
        self,
        channels: int = 3,
        widths: Sequence[int] = (4, 8, 16, 32),
        blocks: Sequence[int] = (1, 1, 1, 1),
        heads: Mapping[str, HeadKind] | None = None,
        kernel: int = 3,
        activation: str = "relu",
        pooling: str = "mean",
        mean: float = 0.05,
        spread: float = 0.1,
        dropout: float = 0.2,
        crop: int | None = None,
        size: int | None = None,
    ) -> None:
        super().__init__(mean, spread, dropout, crop, size)
        if len(widths) != len(blocks):
            raise ValueError(f"{len(widths)} widths but {len(blocks)} numbers of blocks")
        if kernel % 2 == 0 or activation not in _ACTIVATIONS or pooling not in ("mean", "mean-max"):
            raise ValueError(
                f"kernel {kernel}, activation {activation!r} or pooling {pooling!r} is not known"
            )
        self.activate, self.pooling = _ACTIVATIONS[activation], pooling
        self.stem = _Unit(channels, widths[0], 6, 2, lifts=True)
        stages: list[nn.Module] = []
        previous = widths[0]
        for width, count in zip(widths, blocks, strict=True):
            for i in range(count):
                stages.append(_Block(previous, width, i == 0, kernel, activation))
                previous = width
        self.stages = nn.Sequential(*stages)
        self.add_heads(previous * (2 if pooling == "mean-max" else 1), heads)

    def features(self, prepared: Tensor) -> Tensor:
        """Return the feature vectors of prepared images, one a row: the same for all 8 views."""
        maps = self._maps(prepared)
        oriented = maps.mean(dim=(2, 3)).reshape(len(maps), -1, ORDER)
        pooled = oriented.mean(dim=2)
        return pooled if self.pooling == "mean" else torch.cat([pooled, oriented.amax(dim=2)], dim=1)

    def evidence(self, prepared: Tensor, head: str) -> Tensor:
        """Return maps whose means are a head's logits. See `gzscale.models.backbone.Network.evidence`.

        The network's own cells are as wide as its steps. The image is moved by parts of a cell and seen
        again, which parts each cell into up to 4 x 4; a mean over one cell's width takes away what hangs on
        where the steps fall, and a constant brings the mean of the map back to the logit. It is as sharp as
        the network's own cells, and centred to a part of one.
        """
        layer = getattr(self.heads[head], "logits", None)
        if self.pooling != "mean" or not isinstance(layer, nn.Linear) or layer.out_features != 1:
            raise ValueError(f"head {head!r} with pooling {self.pooling!r}: not linear in means of the image")
        cells = self._cells(prepared, layer)
        side, stride = prepared.shape[-1], prepared.shape[-1] // cells.shape[-1]
        # Moves of whole pixels that lie symmetrically about none.
        parts = next(count for count in (4, 2, 1) if count == 1 or stride % (2 * count) == 0)
        step, reach = stride // parts, (stride - stride // parts) // 2
        wide = functional.pad(prepared, [reach] * 4, mode="replicate")
        fine = cells.new_empty((len(cells), cells.shape[1], parts, cells.shape[2], parts))
        for down, right in product(range(parts), repeat=2):
            top, left = down * step, right * step
            moved = wide[:, :, top : top + side, left : left + side]
            fine[:, :, down, :, right] = self._cells(moved, layer)
        maps = _smooth(fine.flatten(3, 4).flatten(1, 2), parts)
        return maps + (cells.mean(dim=(1, 2)) - maps.mean(dim=(1, 2)))[:, None, None]

    def _cells(self, prepared: Tensor, layer: nn.Linear) -> Tensor:
        """Return the map of the body's own cells whose mean is a linear layer's output."""
        maps = self._maps(prepared)
        pooled = maps.reshape(len(maps), -1, ORDER, *maps.shape[2:]).mean(dim=2)
        return (pooled * layer.weight.float()[0, :, None, None]).sum(dim=1) + layer.bias.float()

    def _maps(self, prepared: Tensor) -> Tensor:
        maps: Tensor = self.stages(self.activate(self.stem(prepared)))
        return maps.float()

    def fuse(self) -> None:
        """Expand the filters and fold the normalisations into them."""
        for module in list(self.modules()):
            if isinstance(module, _Unit):
                module.fuse()
