"""The concepts that query fusion reads, from the text encoder of the CLIP that also makes the memory."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from kif_mrg.memory_backends import make_backend
from kif_mrg.query_fusion import TERMS


def finding_concepts(
    backend: str, source: str | None, dim: int, query_fusion: str = "terms"
) -> Tensor | None:
    """Concepts (E, dim) of `DiagnosisNet`: text features of the finding terms, of length 1 like the memory's.

    None, for concepts that are learned, where the memory's backend has no text encoder or `query_fusion`
    reads no concept.

    Args:
        backend, source, dim: of the report memory, see make_memory; only "clip" gives features.
        query_fusion: "terms" for a row per term, "joint" for one row of all terms in one text, "none".

    Raises:
        ValueError: a CLIP without folder or of another width; unknown backend.
        FileNotFoundError: no CLIP in the folder.
    """
    if backend != "clip" or query_fusion == "none":
        return None
    texts = [", ".join(TERMS)] if query_fusion == "joint" else TERMS
    return F.normalize(make_backend(backend, source).texts(texts, dim), dim=1)
