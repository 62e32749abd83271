"""Diagnosis from an image and the reports of similar ones (PromptMRG, AAAI 2024, arXiv 2308.12604)."""

import torch
from torch import Tensor, nn

from .aggregator import DynamicAggregator
from .conditions import CONDITIONS, STATES
from .query_fusion import TERMS, QueryFusion
from .visual import VisualEncoder

CONCEPTS = {"terms": len(TERMS), "joint": 1, "none": 0}  # rows of E in each mode of query fusion


class DiagnosisNet(nn.Module):
    """Logits of the four states of C conditions, for one or more views of a chest.

    `q = W_q a`, `q' = QueryFusion(q)`, `z = DynamicAggregator(M, q')`, `c = W [a; z]` with the pooled image
    a (B, Dv) and the features M (B, K, Dm) of the retrieved reports. The logits carry no class prior: that
    belongs to the training loss. `no_finding` is only ever blank or positive, so its logits of the states
    negative and uncertain are never a target and sink on their own.

    Args:
        encoder: `small` or `resnet101` (VisualEncoder).
        encoder_weights: file of a torchvision state dict to start the encoder from.
        memory_dim: Dm, the width of the report features.
        heads: attention heads of query fusion and aggregation.
        ff: their feed-forward width.
        conditions: C.
        query_fusion: `terms` (one concept per finding term), `joint` (one for all terms) or `none`.
        concepts: text features (E, Dm) for query fusion, see QueryFusion; learned when absent.
        use_memory: False diagnoses from the image alone, without query, fusion and aggregation.
        memory_size: typical reports in `prior_memory`, which are read when no retrieved ones are given. With
            one, attention has no choice, and the query no influence.

    Raises:
        ValueError: unknown query fusion; concepts that do not fit it.
    """

    prior_memory: Tensor

    def __init__(
        self,
        encoder: str = "small",
        encoder_weights: str | None = None,
        memory_dim: int = 64,
        heads: int = 4,
        ff: int = 128,
        conditions: int = len(CONDITIONS),
        query_fusion: str = "terms",
        concepts: Tensor | None = None,
        use_memory: bool = True,
        memory_size: int = 5,
    ) -> None:
        super().__init__()
        if query_fusion not in CONCEPTS:
            raise ValueError(f"query_fusion must be one of {sorted(CONCEPTS)}, got {query_fusion=}")
        expected = (CONCEPTS[query_fusion], memory_dim)
        if concepts is not None and tuple(concepts.shape) != expected:
            raise ValueError(
                f"concepts must be {expected} for {query_fusion=}, got shape {tuple(concepts.shape)}"
            )
        self.conditions = conditions
        self.visual = VisualEncoder(encoder, encoder_weights)
        width = self.visual.width
        self.query: nn.Linear | None = None
        self.query_fusion: nn.Module | None = None
        self.aggregator: DynamicAggregator | None = None
        if use_memory:
            self.query = nn.Linear(width, memory_dim)
            self.query_fusion = nn.Identity()
            if query_fusion != "none":
                rows = CONCEPTS[query_fusion] if concepts is None else concepts
                self.query_fusion = QueryFusion(memory_dim, heads, ff, rows)
            self.aggregator = DynamicAggregator(memory_dim, heads, ff)
            width += memory_dim
        # Distinct rows of unit length, as report features have, until typical reports are set.
        self.register_buffer("prior_memory", torch.eye(memory_size, memory_dim))
        self.classify = nn.Linear(width, len(STATES) * conditions)
        nn.init.normal_(self.classify.weight, std=0.001)
        nn.init.zeros_(self.classify.bias)

    def set_prior_memory(self, features: Tensor) -> None:
        """Set the typical reports: the k-means centres, of unit length, of training reports (n, Dm).

        A single row, such as a mean (1, Dm), stands for all of them.

        Raises:
            ValueError: another width, fewer rows than centres, or values that are not finite.
        """
        from sklearn.cluster import KMeans

        rows, dim = self.prior_memory.shape
        enough = features.ndim == 2 and (len(features) == 1 or len(features) >= rows)
        if not enough or features.shape[1] != dim or not bool(features.isfinite().all()):
            raise ValueError(
                f"report features must be finite, (n, {dim}) with n >= {rows} or n = 1, "
                f"got shape {tuple(features.shape)}"
            )
        if len(features) > 1:
            clusters = KMeans(rows, n_init=1, random_state=0).fit(features.float().cpu().numpy())
            features = torch.from_numpy(clusters.cluster_centers_)
        self.prior_memory.copy_(nn.functional.normalize(features, dim=1).expand(rows, dim))

    def describe(self, image: Tensor, memory: Tensor | None = None) -> dict[str, Tensor]:
        """All that is known of `image` (B, 3, H, W) or (B, V, 3, H, W) and its reports `memory` (B, K, Dm).

        Returns:
            `patches` (B, N, Dv), `pooled` (B, Dv), `class_logits` (B, 4, C) and, with a memory, `retrieved`
            z (B, Dm).

        Raises:
            ValueError: a memory of another width or batch.
        """
        patches, pooled = self.visual(image)
        found = {"patches": patches, "pooled": pooled}
        evidence = pooled
        if self.query is not None and self.query_fusion is not None and self.aggregator is not None:
            if memory is None:
                memory = self.prior_memory.expand(image.shape[0], -1, -1)
            if memory.shape[0] != image.shape[0] or memory.shape[2] != self.prior_memory.shape[1]:
                raise ValueError(
                    f"memory must be (B, K, Dm) with B={image.shape[0]} and Dm={self.prior_memory.shape[1]}, "
                    f"got {memory.shape}"
                )
            query = self.query_fusion(self.query(pooled))
            found["retrieved"] = self.aggregator(memory.to(pooled.dtype), query)
            evidence = torch.cat([pooled, found["retrieved"]], dim=1)
        found["class_logits"] = self.classify(evidence).view(-1, 4, self.conditions)
        return found

    def forward(self, image: Tensor, memory: Tensor | None = None) -> Tensor:
        """Class logits (B, 4, C), axis 1 in the order of STATES."""
        return self.describe(image, memory)["class_logits"]
