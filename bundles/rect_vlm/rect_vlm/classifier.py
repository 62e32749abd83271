"""Which of the 18 findings a scan shows: the image against one sentence per finding."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rect_vlm.projection import projection_head

POOLINGS = ("mean", "text_attention")
TEMPERATURES = (0.01, 1.0)


class MultiLabelClassifier(nn.Module):
    """Cosine of image and text in a common space, ``logit_k = cos(image, text_k) / temperature + bias_k``.

    Zero-shot classification of CT-CLIP (arXiv 2403.17834) with both projections, a soft prompt per label, a
    bias per label and the temperature trained. The image vector is standardised over the batch in training
    (arXiv 1502.03167) and by running statistics otherwise. The vectors of the sentences are a buffer: a
    checkpoint needs no text encoder.

    Args:
        embed_dim: E, width of the vision encoder.
        text_dim: Dt, width of the text encoder.
        num_labels: K.
        proj_dim: width of the common space.
        hidden: inner width of the projections.
        pooling: "mean", one vector of the image for all labels: the mean of the global feature and of the
            regions that are present; "text_attention", where every sentence also looks up the patches.

    Raises:
        ValueError: unknown pooling.
    """

    cls_text: Tensor

    def __init__(
        self,
        embed_dim: int,
        text_dim: int = 384,
        num_labels: int = 18,
        proj_dim: int = 512,
        hidden: int = 512,
        pooling: str = "mean",
    ) -> None:
        super().__init__()
        if pooling not in POOLINGS:
            raise ValueError(f"pooling must be one of {POOLINGS}, got {pooling!r}")
        self.register_buffer("cls_text", torch.zeros(num_labels, text_dim))
        self.text_proj = projection_head(text_dim, hidden, proj_dim)
        self.image_proj = projection_head(embed_dim, hidden, proj_dim)
        self.soft_prompts = nn.Parameter(0.02 * torch.randn(num_labels, proj_dim))
        self.log_temperature = nn.Parameter(torch.tensor(math.log(0.07)))
        self.bias = nn.Parameter(torch.zeros(num_labels))
        self.look_up = TextAttention(embed_dim, proj_dim) if pooling == "text_attention" else None
        # What all chests have in common is most of the vector; without this the cosine sees little else.
        self.standard = nn.BatchNorm1d(embed_dim, affine=False)

    def set_text(self, cls_text: Tensor) -> None:
        """Take the sentences' vectors (K, Dt) from a text cache.

        Raises:
            ValueError: another shape.
        """
        if cls_text.shape != self.cls_text.shape:
            wanted = tuple(self.cls_text.shape)
            raise ValueError(
                f"cls_text must have shape {wanted} (labels, text_dim), got {tuple(cls_text.shape)}"
            )
        self.cls_text.copy_(cls_text)

    def set_prevalence(self, prevalence: Tensor) -> None:
        """Start the biases at the log-odds of the labels' prevalence (K,), kept within 0.1 and 99.9 %."""
        with torch.no_grad():
            self.bias.copy_(torch.logit(prevalence.to(self.bias), eps=1e-3))

    def forward(self, vision: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return `logits`, `probabilities` and `similarities`, each (B, K), of the encoder's features.

        Raises:
            ValueError: training without text.
        """
        if self.training and not self.cls_text.any():
            raise ValueError("classifier has no text to train with: call set_text or load a checkpoint first")
        text = self.text_proj(self.cls_text) + self.soft_prompts  # (K, P)
        image = self._standardised(present_mean(vision)).unsqueeze(1)  # (B, 1, E)
        if self.look_up is not None:
            image = (image + self.look_up(text, vision["local_features"])) / 2  # (B, K, E)
        image = self.image_proj(image)
        # float32 here: a cosine of half precision is too coarse for a temperature of 0.01.
        similarities = (F.normalize(image.float(), dim=-1) * F.normalize(text.float(), dim=-1)).sum(
            -1
        )  # (B, K)
        logits = similarities / self.log_temperature.exp().clamp(*TEMPERATURES) + self.bias
        return {"logits": logits, "probabilities": logits.sigmoid(), "similarities": similarities}

    def _standardised(self, image: Tensor) -> Tensor:
        """Image vectors (B, E) with mean 0 and spread 1 over scans; one scan alone has no statistics."""
        if self.training and len(image) == 1:
            mean, var = self.standard.running_mean, self.standard.running_var
            return F.batch_norm(image, mean, var, eps=self.standard.eps)
        return self.standard(image)


class TextAttention(nn.Module):
    """Every sentence (K, P) gathers what concerns it from the patches (B, N, E): (B, K, E)."""

    def __init__(self, embed_dim: int, proj_dim: int) -> None:
        super().__init__()
        self.query = nn.Linear(proj_dim, embed_dim)
        self.norm = nn.LayerNorm(embed_dim)
        self.key = nn.Linear(embed_dim, embed_dim)

    def forward(self, text: Tensor, patches: Tensor) -> Tensor:
        query = self.query(text).expand(patches.shape[0], -1, -1)
        return F.scaled_dot_product_attention(query, self.key(self.norm(patches)), patches)


def present_mean(vision: Mapping[str, Tensor]) -> Tensor:
    """Mean of the global feature and of the mean present region (B, E); without regions the global one."""
    whole, regions = vision["global_features"], vision["region_features"]
    present = vision["region_present"].unsqueeze(2)  # (B, R, 1)
    mean = (regions * present).sum(1) / present.sum(1).clamp_min(1)
    return torch.where(present.any(1), (whole + mean) / 2, whole)
