"""Feature encoders of the teachers and students: one tensor in, one feature map out."""

from collections.abc import Sequence
from typing import Any

import torch
from monai.networks.nets import SegResNet
from monai.networks.nets.swin_unetr import SwinTransformer
from torch import Tensor, nn


class SwinEncoder(nn.Module):
    """The encoder of SwinUNETR up to one level, without the decoder and without the stages above that level.

    A level l turns (B, C, X, Y, Z) into (B, feature_size * 2^l, X / 2^(l+1), Y / 2^(l+1), Z / 2^(l+1)) for
    patch size 2.

    Raises:
        ValueError: `level` is outside 1-4.
    """

    def __init__(
        self,
        in_channels: int,
        feature_size: int = 48,
        level: int = 3,
        window_size: Sequence[int] = (7, 7, 7),
        depths: Sequence[int] = (2, 2, 2, 2),
        num_heads: Sequence[int] = (3, 6, 12, 24),
        use_checkpoint: bool = False,
    ) -> None:
        super().__init__()
        if level not in (1, 2, 3, 4):
            raise ValueError(f"level must be 1, 2, 3 or 4, got {level=}")
        swin = SwinTransformer(
            in_chans=in_channels,
            embed_dim=feature_size,
            window_size=tuple(window_size),
            patch_size=(2, 2, 2),
            depths=tuple(depths),
            num_heads=tuple(num_heads),
            use_checkpoint=use_checkpoint,
            spatial_dims=3,
        )
        # Stages above the level would be dead weight, and "unused parameters" to distributed training.
        self.patch_embed = swin.patch_embed
        self.stages = nn.ModuleList([swin.layers1, swin.layers2, swin.layers3, swin.layers4][:level])
        self.out_channels = feature_size * 2**level

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch_embed(x)
        for stage in self.stages:
            x = stage[0](x.contiguous())  # type: ignore[index]
        # The affine-free normalisation of SwinTransformer.proj_out, over channels.
        return nn.functional.layer_norm(x.movedim(1, -1), (self.out_channels,)).movedim(-1, 1)


class SegResEncoder(nn.Module):
    """Encoder of SegResNet: (B, C, X, Y, Z) to (B, F * 2^(n-1), X / 2^(n-1), ...), F filters, n levels."""

    def __init__(
        self,
        in_channels: int,
        init_filters: int = 8,
        blocks_down: Sequence[int] = (1, 2, 2, 4),
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        net = SegResNet(
            spatial_dims=3,
            in_channels=in_channels,
            init_filters=init_filters,
            blocks_down=tuple(blocks_down),
            blocks_up=(1,) * (len(blocks_down) - 1),
            norm="instance",
        )
        self.stem = nn.Sequential(net.convInit, nn.Dropout3d(dropout))
        self.levels = nn.Sequential(*net.down_layers)
        self.out_channels = init_filters * 2 ** (len(blocks_down) - 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.levels(self.stem(x))


ENCODERS: dict[str, type[SegResEncoder] | type[SwinEncoder]] = {
    "segresnet": SegResEncoder,
    "swin": SwinEncoder,
}


def make_encoder(name: str, **arguments: Any) -> SegResEncoder | SwinEncoder:
    """The encoder `segresnet` or `swin` with its `out_channels`.

    Raises:
        ValueError: unknown name.
    """
    if name not in ENCODERS:
        raise ValueError(f"encoder must be one of {sorted(ENCODERS)}, got encoder={name!r}")
    return ENCODERS[name](**arguments)


class PooledHead(nn.Module):
    """Pool a feature map (B, C, x, y, z), normalise, classify: logits (B, classes).

    The LayerNorm is not in the sources: two CBAM gates scale the features by about a quarter at the start,
        and
    without it training stays stuck at the uniform prediction.

    Args:
        channels: width C of the feature map.
        classes: number of logits.
        pool: `avg` (global average) or `avgmax` (average and maximum, concatenated).
        hidden: width of an optional hidden layer, 0 for none.
        dropout: dropout before the last layer.

    Raises:
        ValueError: unknown `pool`.
    """

    def __init__(
        self, channels: int, classes: int, pool: str = "avg", hidden: int = 0, dropout: float = 0.0
    ) -> None:
        super().__init__()
        if pool not in ("avg", "avgmax"):
            raise ValueError(f"pool must be 'avg' or 'avgmax', got {pool=}")
        self.use_max = pool == "avgmax"
        width = channels * (2 if self.use_max else 1)
        layers: list[nn.Module] = [nn.LayerNorm(width)]
        if hidden:
            layers += [nn.Linear(width, hidden), nn.ReLU()]
        layers += [nn.Dropout(dropout), nn.Linear(hidden or width, classes)]
        self.classify = nn.Sequential(*layers)

    def forward(self, features: Tensor) -> Tensor:
        pooled = features.mean(dim=(2, 3, 4))
        if self.use_max:
            pooled = torch.cat([pooled, features.amax(dim=(2, 3, 4))], dim=1)
        return self.classify(pooled)
