"""A plain residual network (He et al. 2016, arXiv:1512.03385)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from gzscale.models.backbone import HeadKind, Network

__all__ = ["ResidualNetwork"]


class _Block(nn.Module):
    """Two 3 x 3 convolutions and a shortcut."""

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


class ResidualNetwork(Network):
    """A residual body.

    Parameters
    ----------
    channels
        Channels of the input image.
    widths
        Channels of the stages; each stage halves the side of the image.
    blocks
        Residual blocks of each stage.
    heads
        Name of an output -> kind of head, see `gzscale.models.backbone.Network.add_heads`.
    mean, spread, dropout, crop, size
        See `gzscale.models.backbone.Network`.
    stride
        Step of the first convolution; the side of the image shrinks by it before the stages.
    """

    def __init__(
        self,
        channels: int = 3,
        widths: Sequence[int] = (64, 128, 256),
        blocks: Sequence[int] = (2, 2, 1),
        heads: Mapping[str, HeadKind] | None = None,
        mean: float = 0.1,
        spread: float = 0.15,
        dropout: float = 0.3,
        stride: int = 2,
        crop: int | None = None,
        size: int | None = None,
    ) -> None:
        super().__init__(mean, spread, dropout, crop, size)
        if len(widths) != len(blocks):
            raise ValueError(f"{len(widths)} widths but {len(blocks)} numbers of blocks")
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
        self.add_heads(previous, heads)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def features(self, prepared: Tensor) -> Tensor:
        """Return the feature vectors, shape (n, widths[-1]), of prepared images."""
        return self.stages(self.stem(prepared)).float().mean(dim=(2, 3))

    def fuse(self) -> None:
        """Fold every batch normalisation into the convolution before it."""
        for module in self.modules():
            if isinstance(module, _Block):
                module.conv1 = nn.utils.fuse_conv_bn_eval(module.conv1, module.norm1)
                module.conv2 = nn.utils.fuse_conv_bn_eval(module.conv2, module.norm2)
                module.norm1 = module.norm2 = nn.Identity()  # type: ignore[assignment]
            elif isinstance(module, nn.Sequential) and len(module) > 1:
                first, second = module[0], module[1]
                if isinstance(first, nn.Conv2d) and isinstance(second, nn.BatchNorm2d):
                    module[0] = nn.utils.fuse_conv_bn_eval(first, second)
                    module[1] = nn.Identity()
