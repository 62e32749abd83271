"""Where the lesions are: description, denoising transformer, text-guided U-Net."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rect_vlm.denoiser import DenoisingTransformer
from rect_vlm.disease_text import DiseaseText, LesionCodes, LesionPrompts
from rect_vlm.unet import GROUPS, TextGuidedUNet

FOREGROUND_PRIOR = -4.0  # start of the logits: lesions fill about 2 % of a chest at most


class ImageStem(nn.Module):
    """Features of the CT itself (B, 1, D, H, W), halved by every convolution; from coarse to fine."""

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            nn.Sequential(
                nn.Conv3d(inputs, outputs, 3, stride=2, padding=1, bias=False),
                nn.GroupNorm(GROUPS, outputs),
                nn.ReLU(inplace=True),
            )
            for inputs, outputs in pairwise([1, *channels])
        )

    def forward(self, image: Tensor) -> list[Tensor]:
        features = []
        for conv in self.convs:
            image = conv(image)
            features.append(image)
        return features[::-1]


class LesionLocalizer(nn.Module):
    """Outline every lesion that a text describes, with one network for all of them.

    The lesions share all weights and are told apart by their text alone: swapped texts swap the masks.
    In training they are folded into the batch; in evaluation they are done one after another, which holds
    the memory of one. The texts are buffers: a checkpoint needs no text encoder.

    Args:
        embed_dim: E, width of the vision encoder.
        grid: patches along D, H, W.
        img_size: voxels along D, H, W.
        text_dim: Dt, width of the text encoder.
        text_tokens: T, tokens of a description.
        dim: d, width of the denoising transformer and of the projected text.
        heads, denoise_layers, noise, mask_ratio: see `DenoisingTransformer`.
        base_channels, levels: see `TextGuidedUNet`.
        stem_channels: channels of the image skips at 1/2, 1/4, ... of the volume.
        image_skips: decode to half the voxels with skips from the CT; otherwise on the patch grid alone.
        text_guidance: read the texts; False learns one vector per lesion instead (an ablation: the network
            knows which lesion is meant, and no word about it; texts that are set are ignored).
        num_lesions: K.

    Raises:
        ValueError: sizes that do not fit, see `DenoisingTransformer` and `TextGuidedUNet`.
    """

    loc_tokens: Tensor
    loc_mask: Tensor

    def __init__(
        self,
        embed_dim: int,
        grid: Sequence[int],
        img_size: Sequence[int],
        text_dim: int = 384,
        text_tokens: int = 64,
        dim: int = 512,
        heads: int = 8,
        denoise_layers: int = 4,
        base_channels: int = 64,
        levels: int = 3,
        stem_channels: Sequence[int] = (16, 32),
        image_skips: bool = True,
        text_guidance: bool = True,
        noise: float = 0.1,
        mask_ratio: float = 0.15,
        num_lesions: int = 5,
    ) -> None:
        super().__init__()
        self.embed_dim, self.grid, self.img_size = embed_dim, tuple(grid), tuple(img_size)
        self.text_guidance, self.num_lesions = text_guidance, num_lesions
        stem = tuple(stem_channels) if image_skips else ()
        self.register_buffer("loc_tokens", torch.zeros(num_lesions, text_tokens, text_dim))
        self.register_buffer("loc_mask", torch.ones(num_lesions, text_tokens, dtype=torch.bool))
        self.text = DiseaseText(text_dim, dim) if text_guidance else LesionCodes(num_lesions, dim)
        self.denoiser = DenoisingTransformer(embed_dim, dim, heads, denoise_layers, noise, mask_ratio)
        self.stem = ImageStem(stem)
        self.unet = TextGuidedUNet(dim, base_channels, levels, stem[::-1])
        self.head = nn.Conv3d(self.unet.out_channels, 1, 1)
        self.grid_head = nn.Conv3d(base_channels, 1, 1)
        self.align = nn.Linear(dim, base_channels)
        for head in (self.head, self.grid_head):
            nn.init.constant_(head.get_parameter("bias"), FOREGROUND_PRIOR)

    def set_text(self, tokens: Tensor, mask: Tensor) -> None:
        """Take tokens (K, T, Dt) and mask (K, T) of the descriptions from a text cache.

        Raises:
            ValueError: another shape, or a description without a token.
        """
        for name, given in (("loc_tokens", tokens), ("loc_mask", mask)):
            buffer = self.get_buffer(name)
            if given.shape != buffer.shape:
                raise ValueError(f"{name} must have shape {tuple(buffer.shape)}, got {tuple(given.shape)}")
        if not mask.any(1).all():
            raise ValueError(f"every lesion needs a token, got {mask.sum(1).tolist()} tokens")
        self.loc_tokens.copy_(tokens)
        self.loc_mask.copy_(mask)

    def forward(
        self, vision: Mapping[str, Tensor], image: Tensor, lesions: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Outline K' lesions.

        Args:
            vision: features of the encoder, of which `local_features` (B, N, E) is read.
            image: (B, 1, D, H, W).
            lesions: their indices (K',); None for all.

        Returns:
            `logits` (B, K', D, H, W); `grid_logits` (B, K', *grid); `features` (B, K', C, *grid) and
            `prompt` (K', C), which the alignment loss compares; `lesions` (K',); in training `denoise`, the
            error of what the transformer restores.

        Raises:
            ValueError: an image or patches of another size, or training without text.
        """
        self._check(vision["local_features"], image)
        prompts = self.text(self.loc_tokens, self.loc_mask)
        if lesions is None:
            count, lesions = self.num_lesions, torch.arange(self.num_lesions, device=image.device)
        else:
            count, prompts = lesions.shape[0], prompts.pick(lesions)
        clean, skips = self.denoiser.compress(vision["local_features"]), self.stem(image)
        if self.training:
            out = self._outline(self.denoiser.corrupt(clean), skips, prompts, count)
            denoise = self.denoiser.restoration_error(out.pop("refined"), clean.repeat_interleave(count, 0))
            out["denoise"] = denoise
        else:
            parts = [self._outline(clean, skips, prompts.pick(slice(k, k + 1)), 1) for k in range(count)]
            names = ("logits", "grid_logits", "features")
            out = {name: torch.cat([part[name] for part in parts], dim=1) for name in names}
        return {**out, "prompt": self.align(prompts.pooled), "lesions": lesions}

    def _outline(
        self, x: Tensor, skips: Sequence[Tensor], prompts: LesionPrompts, count: int
    ) -> dict[str, Tensor]:
        """Fold the lesions into the batch: row b K + k is lesion k of scan b."""
        scans = x.shape[0]
        tokens, mask, pooled = (
            part.repeat(scans, *[1] * (part.ndim - 1))
            for part in (prompts.tokens, prompts.mask, prompts.pooled)
        )
        refined = self.denoiser(x.repeat_interleave(count, 0), tokens, mask)  # (B K, N, d)
        volume = refined.transpose(1, 2).reshape(scans * count, -1, *self.grid)
        coarse, fine = self.unet(volume, pooled, [skip.repeat_interleave(count, 0) for skip in skips])
        logits = F.interpolate(self.head(fine), size=self.img_size, mode="trilinear", align_corners=False)
        return {
            "logits": logits.reshape(scans, count, *self.img_size),
            "grid_logits": self.grid_head(coarse).reshape(scans, count, *self.grid),
            "features": coarse.reshape(scans, count, -1, *self.grid),
            "refined": refined,
        }

    def _check(self, patches: Tensor, image: Tensor) -> None:
        if torch.jit.is_tracing():
            return
        if tuple(image.shape[2:]) != self.img_size:
            raise ValueError(f"image must have {self.img_size} voxels, got {tuple(image.shape[2:])}")
        if patches.shape[1] != (wanted := math.prod(self.grid)):
            raise ValueError(f"grid {self.grid} needs {wanted} patches, got {patches.shape[1]}")
        if self.training and self.text_guidance and not self.loc_tokens.any():
            raise ValueError("localizer has no text to train with: call set_text or load a checkpoint first")
