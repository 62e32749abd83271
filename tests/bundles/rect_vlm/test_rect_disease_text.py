"""What the localizer is told: descriptions that are nearly alike are told apart."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from rect_features import text
from rect_vlm.disease_text import DiseaseText
from torch import Tensor

T, DT, DIM = 16, 48, 64


def alike(difference: float = 0.1) -> tuple[Tensor, Tensor]:
    """Five descriptions that share most of what they say: tokens (5, T, Dt) and mask (5, T)."""
    tokens, mask = text(T, DT)
    return (torch.randn(DT) + difference * tokens) * mask.unsqueeze(2), mask


def closest(vectors: Tensor) -> float:
    """The highest cosine of two of the vectors (K, d)."""
    cosines = F.cosine_similarity(vectors.unsqueeze(0), vectors.unsqueeze(1), dim=2)
    return (cosines - 2 * torch.eye(len(vectors))).max().item()


def means(tokens: Tensor, mask: Tensor) -> Tensor:
    return torch.stack([row[seen].mean(0) for row, seen in zip(tokens, mask, strict=True)])


@pytest.mark.parametrize("seed", range(5))
def test_vectors_of_texts_that_are_nearly_the_same_are_apart(seed: int) -> None:
    torch.manual_seed(seed)
    model, (tokens, mask) = DiseaseText(DT, DIM), alike()
    assert closest(means(tokens, mask)) > 0.9
    assert closest(model.project(means(tokens, mask))) > 0.9
    assert closest(model(tokens, mask).pooled) < 0.5


def test_what_all_texts_share_does_not_count() -> None:
    model, (tokens, mask) = DiseaseText(DT, DIM), alike()
    shared = tokens + torch.randn(DT)
    pooled = model(tokens, mask).pooled
    torch.testing.assert_close(model(shared, mask).pooled, pooled, rtol=1e-3, atol=1e-3)
    mean = means(tokens, mask)
    expected = model.project((mean - mean.mean(0)) / mean.std(0, correction=0))
    torch.testing.assert_close(pooled, expected, rtol=1e-3, atol=1e-3)


def test_tokens_stay_as_they_are_projected() -> None:
    model, (tokens, mask) = DiseaseText(DT, DIM), alike()
    prompts = model(tokens, mask)
    assert torch.equal(prompts.tokens, model.project(tokens))
    assert torch.equal(prompts.mask, mask)
    some = prompts.pick(torch.tensor([3, 0, 3]))
    assert [part.shape[0] for part in some] == [3, 3, 3]
    assert torch.equal(some.pooled[0], prompts.pooled[3])


def test_one_lesion_alone_is_its_mean_token() -> None:
    model, (tokens, mask) = DiseaseText(DT, DIM, several=False), alike()
    pooled = model(tokens[:1], mask[:1]).pooled
    torch.testing.assert_close(pooled, model.project(means(tokens[:1], mask[:1])))


def test_texts_that_are_the_same_stay_finite() -> None:
    model, (tokens, mask) = DiseaseText(DT, DIM), alike(difference=0.0)
    tokens.requires_grad_()
    pooled = model(tokens, mask).pooled
    pooled.square().sum().backward()
    assert pooled.isfinite().all()
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in model.parameters())
