"""The query meets the findings a radiograph can show before it reads the retrieved reports."""

import torch
from torch import Tensor, nn

from .aggregator import QueryTransformer

# The 20 findings of the chest graph of Zhang et al., AAAI 2020, arXiv 2002.08277.
TERMS = (
    "normal",
    "cardiomegaly",
    "scoliosis",
    "fractures",
    "effusion",
    "thickening",
    "pneumothorax",
    "hernia",
    "calcinosis",
    "emphysema",
    "pneumonia",
    "edema",
    "atelectasis",
    "cicatrix",
    "opacity",
    "lesion",
    "airspace disease",
    "hypoinflation",
    "medical device",
    "other",
)


class QueryFusion(nn.Module):
    """Refine a query (B, Dm) by reading E concepts, each sample for itself, in training and inference alike.

    The authors' block is not published; this one is the transformer of DynamicAggregator whose target starts
    at the query. Their concepts are CLIP text features of TERMS. Given as a tensor they stay as they are
    (a buffer); where no CLIP is at hand, a number of them is learned from N(0, 0.02).

    Args:
        dim: Dm.
        heads: attention heads.
        ff: feed-forward width.
        concepts: (E, Dm) text features, or E.
    """

    def __init__(self, dim: int, heads: int, ff: int, concepts: Tensor | int) -> None:
        super().__init__()
        self.transformer = QueryTransformer(dim, heads, ff)
        if isinstance(concepts, Tensor):
            self.register_buffer("concepts", concepts.detach().clone().float())
        else:
            self.concepts = nn.Parameter(torch.empty(concepts, dim).normal_(std=0.02))

    def forward(self, query: Tensor) -> Tensor:
        source = self.concepts.expand(query.shape[0], -1, -1)
        return self.transformer(source, query, query)
