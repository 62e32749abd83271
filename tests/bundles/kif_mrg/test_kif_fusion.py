"""Patches look up the graph: per sample, in any order of the tags, by the plain formula."""

from __future__ import annotations

import copy

import pytest
import torch
from kif_mrg.fusion import KnowledgeFusion
from torch import Tensor

DV, D, NODES = 12, 16, 28


@pytest.fixture
def fusion() -> KnowledgeFusion:
    made = KnowledgeFusion(DV, D, heads=4, ff=20).eval()
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.4)  # biases and norms too, so that none can hide
    return made


@pytest.fixture
def tags() -> Tensor:
    return torch.randn(1, NODES, D)


@pytest.mark.parametrize("size", [1, 3, 16])
@pytest.mark.parametrize("patches", [1, 49, 98])
def test_a_batch_is_its_samples_one_by_one(
    fusion: KnowledgeFusion, tags: Tensor, size: int, patches: int
) -> None:
    x = torch.randn(size, patches, DV)
    together = fusion(x, tags)
    assert together.shape == x.shape
    torch.testing.assert_close(
        together, torch.cat([fusion(row[None], tags) for row in x]), atol=1e-5, rtol=1e-5
    )


def test_gradients_do_not_cross_samples(fusion: KnowledgeFusion, tags: Tensor) -> None:
    x = torch.randn(3, 9, DV, requires_grad=True)
    fusion(x, tags)[0].sum().backward()
    assert x.grad is not None
    assert bool(x.grad[0].ne(0).any())
    assert not x.grad[1:].any()


def test_patches_do_not_see_one_another(fusion: KnowledgeFusion, tags: Tensor) -> None:
    x = torch.randn(2, 9, DV)
    order = torch.randperm(9)
    torch.testing.assert_close(fusion(x[:, order], tags), fusion(x, tags)[:, order], atol=1e-5, rtol=1e-5)


def test_the_tags_are_a_set(fusion: KnowledgeFusion, tags: Tensor) -> None:
    x, order = torch.randn(2, 9, DV), torch.randperm(NODES)
    torch.testing.assert_close(fusion(x, tags[:, order]), fusion(x, tags), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(fusion.attention(x, tags[:, order]), fusion.attention(x, tags)[..., order])
    assert not torch.allclose(fusion(x, torch.randn_like(tags)), fusion(x, tags))


def by_hand(fusion: KnowledgeFusion, patches: Tensor, tags: Tensor) -> tuple[Tensor, list[Tensor]]:
    """The formula for one sample (N, Dv), head by head."""
    state = fusion.state_dict()

    def linear(name: str, x: Tensor) -> Tensor:
        return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]

    def norm(name: str, x: Tensor) -> Tensor:
        x = (x - x.mean(-1, keepdim=True)) / (x.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt()
        return x * state[f"{name}.weight"] + state[f"{name}.bias"]

    x, maps = linear("project", patches), []
    for layer in ("layers.0", "layers.1"):
        weight, bias = (state[f"{layer}.attention.in_proj_{kind}"].chunk(3) for kind in ("weight", "bias"))
        query = norm(f"{layer}.attention_norm", x) @ weight[0].T + bias[0]
        key, value = tags @ weight[1].T + bias[1], tags @ weight[2].T + bias[2]
        found, weights = [], []
        for q, k, v in zip(query.split(4, 1), key.split(4, 1), value.split(4, 1), strict=True):
            weights.append((q @ k.T / 2).softmax(-1))  # 2 is the root of the head's width
            found.append(weights[-1] @ v)
        x = x + linear(f"{layer}.attention.out_proj", torch.cat(found, 1))
        x = x + linear(f"{layer}.ff.3", linear(f"{layer}.ff.0", norm(f"{layer}.ff_norm", x)).relu())
        maps.append(torch.stack(weights).mean(0))
    return linear("back.3", linear("back.1", norm("back.0", x)).relu()), maps


def test_output_and_attention_are_those_of_the_formula(fusion: KnowledgeFusion, tags: Tensor) -> None:
    x = torch.randn(1, 5, DV)
    expected, maps = by_hand(fusion, x[0], tags[0])
    torch.testing.assert_close(fusion(x, tags)[0], expected, atol=1e-4, rtol=1e-4)
    attention = fusion.attention(x, tags)
    assert attention.shape == (1, 2, 5, NODES)
    torch.testing.assert_close(attention[0], torch.stack(maps), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(attention.sum(-1), torch.ones(1, 2, 5))


def test_copies_after_a_backward(fusion: KnowledgeFusion, tags: Tensor) -> None:
    x = torch.randn(2, 9, DV)
    fusion(x, tags).sum().backward()
    assert torch.equal(copy.deepcopy(fusion)(x, tags), fusion(x, tags))
    assert all(parameter.grad is not None for parameter in fusion.parameters())


def test_paper_size() -> None:
    with torch.device("meta"):
        paper = KnowledgeFusion(2048, dim=768, heads=16, ff=1024)
    assert sum(p.numel() for p in paper.layers.parameters()) == pytest.approx(7.9e6, abs=5e4)


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(ValueError, match="multiple of heads, got dim=16 heads=3"):
        KnowledgeFusion(DV, D, heads=3)
