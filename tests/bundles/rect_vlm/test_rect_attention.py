"""Slice-aware attention against its dense form, in memory too; region-aware attention in closed form."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from rect_vlm.attention import RegionAwareAttention, SliceAwareAttention
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


def _slices(slices: int, per_slice: int) -> Tensor:
    return torch.arange(slices).repeat_interleave(per_slice)


def _gradients(attention: SliceAwareAttention, form: Callable[..., Tensor], x: Tensor, index: Tensor) -> list:
    output = form(x, index)
    weight = torch.linspace(-1, 1, output.numel(), dtype=x.dtype).view_as(output)
    return [output, *torch.autograd.grad((output.sin() * weight).sum(), [x, *attention.parameters()])]


@pytest.mark.parametrize("slices", [4, 24])
@pytest.mark.parametrize("dim", [8, 30])  # heads of 4 and of 15: the kernel's width is padded
def test_folded_attention_equals_the_dense_form_with_all_gradients(slices: int, dim: int) -> None:
    attention = SliceAwareAttention(dim, 2, slices).double()
    torch.nn.init.normal_(attention.distance_bias)
    x = torch.randn(2, 3 * slices, dim, dtype=torch.float64, requires_grad=True)
    index = _slices(slices, 3)[torch.randperm(3 * slices)]
    folded = _gradients(attention, attention.forward, x, index)
    dense = _gradients(attention, attention.dense, x, index)
    for a, b in zip(folded, dense, strict=True):
        torch.testing.assert_close(a, b, atol=1e-11, rtol=0)
    assert all(gradient.abs().max() > 0 for gradient in folded)


def test_without_scores_the_bias_alone_decides_and_near_slices_come_first() -> None:
    attention = SliceAwareAttention(3, 1, 3, weight=2.0)
    with torch.no_grad():
        attention.qkv.weight.zero_()
        attention.qkv.bias.zero_()
        attention.qkv.weight[6:] = torch.eye(3)  # values are the input
        attention.out.weight.copy_(torch.eye(3))
        attention.out.bias.zero_()
    weights = attention(torch.eye(3)[None], torch.arange(3))[0]  # (query, key)
    near, next_, far = 1.0, math.exp(-1), math.exp(-2)  # 2 * b, b = 0, -1/2, -1
    expected = torch.tensor([[near, next_, far], [next_, near, next_], [far, next_, near]])
    torch.testing.assert_close(weights, expected / expected.sum(1, keepdim=True))


def test_without_bias_slices_do_not_matter() -> None:
    attention = SliceAwareAttention(8, 2, 4, bias=False)
    x = torch.randn(2, 12, 8)
    torch.testing.assert_close(attention(x, _slices(4, 3)), attention(x, torch.zeros(12, dtype=torch.long)))
    torch.testing.assert_close(attention(x, _slices(4, 3)), attention.dense(x, _slices(4, 3)))


def test_half_precision_stays_near_the_exact_result() -> None:
    attention, x, index = SliceAwareAttention(32, 4, 8), torch.randn(2, 64, 32), _slices(8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        half = attention(x, index)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), attention(x, index), atol=0.02, rtol=0)


class _Largest(TorchDispatchMode):
    """Elements of the largest tensor any operator returned."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        outputs = result if isinstance(result, (tuple, list)) else [result]
        sizes = [output.numel() for output in outputs if isinstance(output, Tensor)]
        self.elements = max([self.elements, *sizes])
        return result


def _largest(form: str, patches: int) -> int:
    attention = SliceAwareAttention(16, 2, 8)
    with _Largest() as seen:
        getattr(attention, form)(torch.randn(1, patches, 16), _slices(8, patches // 8)).sum().backward()
    return seen.elements


def test_no_tensor_grows_faster_than_the_number_of_patches() -> None:
    assert _largest("forward", 2048) == 2 * _largest("forward", 1024)
    assert _largest("forward", 8192) < 8192**2 / 100
    assert _largest("dense", 1024) == 2 * 1024**2  # the measure sees what it is to see


def _plain_region_attention() -> RegionAwareAttention:
    """Scores are the sum of a token over sqrt(3), values the token, with an identity behind."""
    attention = RegionAwareAttention(3, 1)
    with torch.no_grad():
        for layer in (attention.query, attention.key_value, attention.out):
            layer.weight.zero_()
            layer.bias.zero_()
        attention.query.bias.fill_(1)
        attention.key_value.weight.copy_(torch.eye(3).repeat(2, 1))
        attention.out.weight.copy_(torch.eye(3))
    return attention


def test_a_low_score_on_the_own_region_leaves_it_the_largest_weight() -> None:
    tokens = torch.diag(torch.tensor([-3 * math.sqrt(3), 0, 0]))[None]  # scores -3, 0, 0
    shares = torch.tensor([[[0.98, 0.01, 0.01]]])
    mixed = _plain_region_attention()(torch.randn(1, 1, 3), tokens, shares)[0, 0]
    own = (mixed[0] / tokens[0, 0, 0]).item()
    assert own == pytest.approx(0.707, abs=0.001)  # shares as a factor of the scores would leave 0.026


def test_equal_scores_give_back_the_shares() -> None:
    tokens, shares = torch.eye(3)[None], torch.tensor([[[0.7, 0.3, 0.0], [0.0, 0.0, 1.0]]])
    mixed = _plain_region_attention()(torch.randn(1, 2, 3), tokens, shares)
    torch.testing.assert_close(mixed, shares, atol=2e-4, rtol=0)


def test_region_attention_equals_its_definition_and_trains_all_of_itself() -> None:
    attention = RegionAwareAttention(8, 2).double()
    x, tokens = torch.randn(2, 5, 8).double(), torch.randn(2, 4, 8).double()
    shares = torch.rand(2, 5, 4).double().softmax(-1)
    query = attention.query(x).view(2, 5, 2, 4)
    key, value = attention.key_value(tokens).view(2, 4, 2, 2, 4).unbind(2)
    scores = torch.einsum("bnhd,brhd->bhnr", query, key) / 2 + (shares + 1e-4).log()[:, None]
    expected = attention.out(torch.einsum("bhnr,brhd->bnhd", scores.softmax(-1), value).flatten(2))
    result = attention(x, tokens, shares)
    torch.testing.assert_close(result, expected)
    result.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in attention.parameters())


def test_dropout_acts_in_training_alone() -> None:
    for attention, rest in (
        (SliceAwareAttention(8, 2, 4, dropout=0.5), (_slices(4, 3),)),
        (RegionAwareAttention(8, 2, dropout=0.5), (torch.randn(2, 4, 8), torch.rand(2, 12, 4))),
    ):
        x = torch.randn(2, 12, 8)
        assert not torch.equal(attention(x, *rest), attention(x, *rest))
        attention.eval()
        assert torch.equal(attention(x, *rest), attention(x, *rest))


@pytest.mark.parametrize(
    "build", [lambda: SliceAwareAttention(10, 4, 2), lambda: RegionAwareAttention(10, 4)]
)
def test_heads_must_divide_the_width(build: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match="dim must be a multiple of heads, got dim=10 heads=4"):
        build()
