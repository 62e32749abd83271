"""Where the lesions are: description, denoising transformer, text-guided U-Net."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from rect_vlm.denoiser import DenoisingTransformer
from rect_vlm.disease_text import DiseaseText, LesionCodes, LesionPrompts
from rect_vlm.unet import TextGuidedUNet, conv_norm, resized

FOREGROUND_PRIOR = -4.0  # start of the logits: lesions fill about 2 % of a chest at most


class ImageStem(nn.Module):
    """Features of the CT itself (B, 1, D, H, W), halved at every level; from coarse to fine."""

    def __init__(self, channels: Sequence[int], norm: str = "group") -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            nn.Sequential(
                conv_norm(inputs, outputs, stride=2, norm=norm), conv_norm(outputs, outputs, norm=norm)
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
        base_channels, levels, fine_kernel, norm: see `TextGuidedUNet`.
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
        fine_kernel: int = 3,
        norm: str = "group",
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
        self.text = (
            DiseaseText(text_dim, dim, num_lesions > 1) if text_guidance else LesionCodes(num_lesions, dim)
        )
        self.denoiser = DenoisingTransformer(embed_dim, dim, heads, denoise_layers, noise, mask_ratio)
        self.stem = ImageStem(stem, norm)
        self.unet = TextGuidedUNet(dim, base_channels, levels, stem[::-1], fine_kernel, norm)
        self.head = nn.Conv3d(self.unet.out_channels, 1, 1)
        self.grid_head = nn.Conv3d(base_channels, 1, 1)
        self.align = nn.Linear(dim, base_channels)
        for head, start in ((self.head, 0.0), (self.grid_head, FOREGROUND_PRIOR)):
            nn.init.constant_(head.get_parameter("bias"), start)

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
            lesions: their indices (K',), or (B, K') of each scan; None for all.

        Returns:
            `logits` (B, K', D, H, W), in training on the voxels of the decoder, which are fewer;
            `grid_logits` (B, K', *grid); `features` (B, K', C, *grid) and `prompt` (B, K', C), which the
            alignment loss compares; `lesions` (B, K'); in training `denoise`, the error of what the
            transformer restores.

        Raises:
            ValueError: an image or patches of another size, or training without text.
        """
        self._check(vision["local_features"], image)
        prompts = self.text(self.loc_tokens, self.loc_mask)
        if lesions is None:
            lesions = torch.arange(self.num_lesions, device=image.device)
        lesions = lesions.expand(image.shape[0], -1)  # (B, K')
        clean, skips = self.denoiser.compress(vision["local_features"]), self.stem(image)
        if self.training:
            out = self._outline(self.denoiser.corrupt(clean), skips, prompts, lesions)
            restored = clean.repeat_interleave(lesions.shape[1], 0)
            out["denoise"] = self.denoiser.restoration_error(out.pop("refined"), restored)
        else:
            parts = [self._outline(clean, skips, prompts, some) for some in lesions.split(1, dim=1)]
            names = ("logits", "grid_logits", "features")
            out = {name: torch.cat([part[name] for part in parts], dim=1) for name in names}
        return {**out, "prompt": self.align(prompts.pooled)[lesions], "lesions": lesions}

    def _outline(
        self, x: Tensor, skips: Sequence[Tensor], prompts: LesionPrompts, lesions: Tensor
    ) -> dict[str, Tensor]:
        """Fold the lesions (B, K') into the batch: row b K' + k is lesion k of scan b."""
        scans, count = lesions.shape
        told = prompts.pick(lesions.flatten())
        refined = self.denoiser(x.repeat_interleave(count, 0), told.tokens, told.mask)  # (B K', N, d)
        volume = refined.transpose(1, 2).reshape(scans * count, -1, *self.grid)
        # Convolutions are twice as fast on channels-last skips; `volume` is in that order already.
        finer = [
            skip.repeat_interleave(count, 0).contiguous(memory_format=torch.channels_last_3d)
            for skip in skips
        ]
        coarse, fine = self.unet(volume, told.pooled, finer)
        grid_logits = self.grid_head(coarse)
        # The finer features correct what the grid says, which the loss so reaches without a detour.
        logits = self.head(fine) + resized(grid_logits, fine.shape[2:])
        if not self.training:
            logits = resized(logits, self.img_size)
        return {
            "logits": logits.unflatten(0, (scans, count)).squeeze(2),
            "grid_logits": grid_logits.reshape(scans, count, *self.grid),
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
