"""The networks of REACT-KD (arXiv 2508.02104): masked stream fusion, dual teacher, light student."""

from collections.abc import Sequence
from typing import Any

import torch
from medbundles.attention import CBAM3D
from torch import Tensor, nn

from react_kd.encoders import PooledHead, make_encoder


class StreamFusion(nn.Module):
    """Project every stream to C channels, gate each with one shared CBAM3D, average the available ones.

    Z = sum_k a_k CBAM(P_k) / sum_k a_k with P_k the 1x1x1 projection of stream k and a_k in {0, 1} its
    availability. The mean keeps the scale of Z independent of how many streams a case has.
    """

    def __init__(self, in_channels: Sequence[int], channels: int) -> None:
        super().__init__()
        self.project = nn.ModuleList(nn.Conv3d(c, channels, kernel_size=1) for c in in_channels)
        self.cbam = CBAM3D(channels)

    def gated(self, streams: list[Tensor]) -> list[Tensor]:
        """The projected and gated map (B, C, x, y, z) of every stream."""
        # TorchScript unrolls a module list, but neither zips it nor comprehends over it.
        maps: list[Tensor] = []
        for i, project in enumerate(self.project):
            maps.append(self.cbam(project(streams[i])))
        return maps

    def forward(self, streams: list[Tensor], available: Tensor) -> Tensor:
        return masked_mean(self.gated(streams), available)


def masked_mean(maps: list[Tensor], available: Tensor) -> Tensor:
    """Mean over the available maps of each case: from S maps (B, C, x, y, z) and a bool (B, S)."""
    total = torch.zeros_like(maps[0])
    for i, stream in enumerate(maps):
        # Selected, not multiplied: 0 * NaN of an unavailable stream would be NaN.
        total = total + torch.where(available[:, i].view(-1, 1, 1, 1, 1), stream, torch.zeros_like(stream))
    count = available.sum(dim=1).clamp(min=1).to(total.dtype)
    return total / count.view(-1, 1, 1, 1, 1)


class Student(nn.Module):
    """Light student: CT alone, or CT with FDG- and acetate-PET where a case has them.

    Args:
        classes: number of grades.
        channels: common width C of the fused feature map.
        encoder: `segresnet` or `swin`.
        encoder_args: arguments of that encoder (SegResEncoder or SwinEncoder) besides `in_channels`.
        pool, hidden, dropout: the classification head (PooledHead).

    Raises:
        ValueError: unknown encoder; an image with other than 1 or 3 channels; a case with no stream at all.
    """

    STREAMS = ("ct", "pet")

    def __init__(
        self,
        classes: int = 3,
        channels: int = 128,
        encoder: str = "segresnet",
        encoder_args: dict[str, Any] | None = None,
        pool: str = "avg",
        hidden: int = 0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        args = encoder_args or {}
        self.ct = make_encoder(encoder, in_channels=1, **args)
        self.pet = make_encoder(encoder, in_channels=2, **args)
        self.fusion = StreamFusion([self.ct.out_channels, self.pet.out_channels], channels)
        self.head = PooledHead(channels, classes, pool, hidden, dropout)

    def features(self, image: Tensor, available: Tensor | None = None) -> Tensor:
        """Fused map Z (B, C, x, y, z) of `image` (B, 1, X, Y, Z) = CT or (B, 3, X, Y, Z) = CT, FDG, ACT.

        `available` is a bool (B, 2) for [CT, PET]; by default all that the image holds.
        """
        if image.shape[1] not in (1, 3):
            raise ValueError(f"image must have 1 channel (CT) or 3 (CT, FDG, ACT), got shape {image.shape}")
        if available is None:
            available = torch.ones(image.shape[0], 2, dtype=torch.bool, device=image.device)
        if image.shape[1] == 1:
            only_ct = self.fusion.cbam(self.fusion.project[0](self.ct(image)))
            return masked_mean([only_ct], available[:, :1])
        mask = available.view(-1, 2, 1, 1, 1, 1)
        ct, pet = image[:, :1], image[:, 1:]
        # Cleared before the encoder as well: NaN in a dropped input would reach the weights' gradients.
        ct = torch.where(mask[:, 0], ct, torch.zeros_like(ct))
        pet = torch.where(mask[:, 1], pet, torch.zeros_like(pet))
        if self.training and not torch.jit.is_scripting():
            streams = [encode_rows(self.ct, ct, available[:, 0]), encode_rows(self.pet, pet, available[:, 1])]
        else:
            streams = [self.ct(ct), self.pet(pet)]
        return self.fusion(streams, available)

    def forward(self, image: Tensor, available: Tensor | None = None) -> Tensor:
        """Logits (B, classes)."""
        return self.head(self.features(image, available))

    def encode(self, image: Tensor, available: Tensor | None = None) -> dict[str, Tensor]:
        """What distillation compares: `features` (B, C, x, y, z) and `logits` (B, classes)."""
        if available is not None and not bool(
            (available[:, :1] if image.shape[1] == 1 else available).any(1).all()
        ):
            raise ValueError(
                f"every case needs an available stream of {self.STREAMS}, got {available.tolist()}"
            )
        features = self.features(image, available)
        return {"features": features, "logits": self.head(features)}


def encode_rows(encoder: nn.Module, x: Tensor, wanted: Tensor) -> Tensor:
    """`encoder(x)` for the wanted rows of x (B, C, X, Y, Z), zeros elsewhere: dropped streams cost nothing.

    At least two rows are encoded where there are two: a single fp32 row takes a path three times slower on
    CPUs. Normalisation is per case, so a row's features do not depend on which others are encoded.
    """
    rows = torch.nonzero(wanted).flatten()
    if len(rows) < 2:
        rows = torch.arange(min(2, len(x)), device=x.device) + rows.sum().clamp(max=max(len(x) - 2, 0))
    features = encoder(x[rows])
    if len(rows) == len(x):
        return features
    everywhere = features.new_zeros(len(x), *features.shape[1:])
    return everywhere.index_copy(0, rows, features)


def copy_attention(teacher: nn.Module, student: nn.Module) -> None:
    """Start the student's CBAM3D from the teacher's; it stays trainable. Both need the same width C.

    Raises:
        ValueError: the two widths differ.
    """
    source, target = teacher.get_submodule("fusion.cbam"), student.get_submodule("fusion.cbam")
    shapes = [[tuple(p.shape) for p in module.parameters()] for module in (source, target)]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"teacher and student must have equal channels, got CBAM3D weights {shapes[0]} and {shapes[1]}"
        )
    target.load_state_dict(source.state_dict())


class Teacher(nn.Module):
    """Dual teacher: structure and function (CT with each of two tracers), and dose (CT at a random dose).

    Args:
        classes: number of grades.
        channels: common width C of the fused feature map.
        encoder, encoder_args: as in Student, for each of the three streams.
        pool, hidden, dropout: every head (PooledHead).

    Raises:
        ValueError: a case has no available stream.
    """

    STREAMS = ("fdg", "act", "dose")

    def __init__(
        self,
        classes: int = 3,
        channels: int = 128,
        encoder_args: dict[str, Any] | None = None,
        pool: str = "avg",
        hidden: int = 0,
        dropout: float = 0.0,
        encoder: str = "swin",
    ) -> None:
        super().__init__()
        args = encoder_args or {}
        self.fdg = make_encoder(encoder, in_channels=2, **args)
        self.act = make_encoder(encoder, in_channels=2, **args)
        self.dose = make_encoder(encoder, in_channels=1, **args)
        self.fusion = StreamFusion([self.fdg.out_channels] * 3, channels)
        self.head = PooledHead(channels, classes, pool, hidden, dropout)
        self.sf_head = PooledHead(channels, classes, pool)
        self.dose_head = PooledHead(channels, classes, pool)

    def streams(self, image: Tensor, pet: Tensor, dose: Tensor, available: Tensor) -> list[Tensor]:
        """The projected and gated map (B, C, x, y, z) of FDG, ACT and dose; arguments as in `forward`."""
        mask = available.view(-1, 3, 1, 1, 1, 1)
        fdg = torch.cat([torch.where(mask[:, 0], pet[:, :1], torch.zeros_like(pet[:, :1])), image], dim=1)
        act = torch.cat([torch.where(mask[:, 1], pet[:, 1:], torch.zeros_like(pet[:, 1:])), image], dim=1)
        if self.training:  # the dose stream has a head of its own, which learns from every case
            tracers = [
                encode_rows(self.fdg, fdg, available[:, 0]),
                encode_rows(self.act, act, available[:, 1]),
            ]
        else:
            tracers = [self.fdg(fdg), self.act(act)]
        return self.fusion.gated([*tracers, self.dose(dose)])

    def say(self, maps: list[Tensor], available: Tensor) -> dict[str, Tensor]:
        """What `forward` returns, from the maps of `streams`; at least one stream of each case available."""
        features = masked_mean(maps, available)
        return {
            "features": features,
            "logits": self.head(features),
            "sf_logits": self.sf_head(masked_mean(maps[:2], available[:, :2])),
            "dose_logits": self.dose_head(maps[2]),
        }

    def forward(self, image: Tensor, pet: Tensor, dose: Tensor, available: Tensor) -> dict[str, Tensor]:
        """Teach from CT `image` (B, 1, X, Y, Z), `pet` (B, 2, ...), CT at some `dose` (B, 1, ...).

        `available` is a bool (B, 3) for [FDG, ACT, dose]. Returns `features` (B, C, x, y, z), and logits
        (B, classes) of the fused map (`logits`), the tracers' mean (`sf_logits`), the dose (`dose_logits`).
        """
        if not bool(available.any(1).all()):
            raise ValueError(
                f"every case needs an available stream of {self.STREAMS}, got {available.tolist()}"
            )
        return self.say(self.streams(image, pet, dose, available), available)
