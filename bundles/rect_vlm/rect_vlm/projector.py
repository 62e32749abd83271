"""From the encoder's features to the visual tokens that the language model reads."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from medbundles.text import require_text_extra
from torch import Tensor, nn

from rect_vlm.lesion_tokens import LesionTokens
from rect_vlm.speaker import Speaker

FEATURES = ("global_features", "local_features", "region_features", "region_present")


class VisualProjector(nn.Module):
    """Learned queries that read all features through a Q-Former (BLIP-2, arXiv 2301.12597), then two layers.

    A region that the volume does not show is masked out of the features.

    Args:
        embed_dim: E, width of the encoder.
        llm_dim: L, width of the language model.
        num_visual_tokens: number of queries.
        layers: layers of the Q-Former, each with attention to the features.
        heads: attention heads, a divisor of E.
        dropout: of the Q-Former.
        lesion_tokens: K > 0 adds one token per lesion (see LesionTokens) after those of the queries.

    Raises:
        ImportError: the extra `text` is not installed.
        ValueError: E is no multiple of `heads`.
    """

    def __init__(
        self,
        embed_dim: int,
        llm_dim: int,
        num_visual_tokens: int = 256,
        layers: int = 3,
        heads: int = 12,
        dropout: float = 0.1,
        lesion_tokens: int = 0,
    ) -> None:
        require_text_extra()
        from transformers import Blip2QFormerConfig, Blip2QFormerModel

        super().__init__()
        if embed_dim % heads:
            raise ValueError(
                f"projector heads must divide the encoder's width, got {heads} heads for width {embed_dim}"
            )
        self.num_tokens = num_visual_tokens + lesion_tokens
        self.norm = nn.LayerNorm(embed_dim)
        self.queries = nn.Parameter(torch.randn(num_visual_tokens, embed_dim))
        self.qformer = Blip2QFormerModel(
            Blip2QFormerConfig(
                hidden_size=embed_dim,
                num_hidden_layers=layers,
                num_attention_heads=heads,
                intermediate_size=4 * embed_dim,
                hidden_dropout_prob=dropout,
                attention_probs_dropout_prob=0.0,
                # Every product keeps its size at any width; BERT's 0.02 makes narrow ones deaf to the image.
                initializer_range=embed_dim**-0.5,
                cross_attention_frequency=1,
                encoder_hidden_size=embed_dim,
            )
        )
        self.speak = Speaker(embed_dim, llm_dim)
        self.lesions = LesionTokens(embed_dim, llm_dim, lesion_tokens) if lesion_tokens else None

    def start_scale(self, std: float) -> None:
        """Give the tokens the size of the language model's own: `std` of the output of its embedding."""
        self.speak.start_scale(std)
        if self.lesions is not None:
            self.lesions.speak.start_scale(std)

    def forward(self, vision: Mapping[str, Tensor]) -> Tensor:
        """Visual tokens (B, M, L) of the encoder's output.

        Args:
            vision: global_features (B, E), local_features (B, N, E), region_features (B, R, E) and
                region_present (B, R); with `lesion_tokens` also lesion_weights (B, K, N), see there.

        Raises:
            ValueError: lesion_weights are missing where lesion tokens are asked for.
        """
        whole, local, regions, present = (vision[name] for name in FEATURES)
        features = torch.cat([whole.unsqueeze(1), local, regions], dim=1)  # (B, 1 + N + R, E)
        always = present.new_ones(len(present), features.shape[1] - present.shape[1])
        read = self.qformer(
            query_embeds=self.queries.expand(len(features), -1, -1),
            encoder_hidden_states=self.norm(features),
            encoder_attention_mask=torch.cat([always, present], dim=1).long(),
        )
        tokens = self.speak(read.last_hidden_state)
        if self.lesions is None:
            return tokens
        if "lesion_weights" not in vision:
            raise ValueError("lesion tokens need lesion_weights (B, K, N) beside the encoder's features")
        return torch.cat([tokens, self.lesions(local, vision["lesion_weights"])], dim=1)
