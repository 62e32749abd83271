"""Aggregation of retrieved reports, query fusion: agreement with torch, invariances, independence, size."""

from collections.abc import Callable

import pytest
import torch
from kif_mrg.aggregator import DynamicAggregator, QueryLayer, QueryTransformer
from kif_mrg.query_fusion import TERMS, QueryFusion
from torch import Tensor, nn


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_without_position_a_layer_is_that_of_torch() -> None:
    ours = QueryLayer(16, 4, 32, dropout=0).eval()
    torchs = nn.TransformerDecoderLayer(16, 4, 32, dropout=0, batch_first=True).eval()
    names = {
        "self_attention": "self_attn",
        "cross_attention": "multihead_attn",
        "feed_forward.0": "linear1",
        "feed_forward.3": "linear2",
        **{f"norm{i}": f"norm{i}" for i in (1, 2, 3)},
    }
    for name, theirs in names.items():
        ours.get_submodule(name).load_state_dict(torchs.get_submodule(theirs).state_dict())
    assert parameters(ours) == parameters(torchs)
    x, source = torch.randn(3, 1, 16), torch.randn(3, 5, 16)
    torch.testing.assert_close(ours(x, torch.zeros_like(x), source), torchs(x, source))


def test_position_reaches_queries_but_never_values() -> None:
    layer = QueryLayer(8, 2, 16, dropout=0).eval()
    seen: dict[str, tuple[Tensor, ...]] = {}
    for name in ("self_attention", "cross_attention"):
        layer.get_submodule(name).register_forward_pre_hook(
            lambda module, args, name=name: seen.__setitem__(name, args)  # type: ignore[misc]
        )
    x, position, source = torch.randn(2, 1, 8), torch.randn(2, 1, 8), torch.randn(2, 3, 8)
    layer(x, position, source)
    query, key, value = seen["self_attention"]
    assert torch.equal(query, x + position)
    assert torch.equal(key, x + position)
    assert torch.equal(value, x)
    assert all(torch.equal(seen["cross_attention"][i], source) for i in (1, 2))


def test_published_size_has_14_7_million_parameters_each() -> None:
    with torch.device("meta"):
        aggregator, fusion = DynamicAggregator(512, 8, 2048), QueryFusion(512, 8, 2048, len(TERMS))
    assert round(parameters(aggregator) / 1e6, 1) == 14.7
    assert round(parameters(fusion) / 1e6, 1) == 14.7
    assert parameters(fusion) - parameters(aggregator) == 20 * 512


def test_order_of_the_reports_does_not_matter_but_the_query_does() -> None:
    aggregator = DynamicAggregator(16, 4, 32).eval()
    memory, query = torch.randn(2, 6, 16), torch.randn(2, 16)
    z = aggregator(memory, query)
    torch.testing.assert_close(aggregator(memory[:, torch.randperm(6)], query), z)
    assert (aggregator(memory, -query) - z).abs().max() > 1e-3
    assert (aggregator(memory[:, :3], query) - z).abs().max() > 1e-3


def test_the_frozen_first_step_of_the_target_is_exactly_a_constant() -> None:
    aggregator = DynamicAggregator(16, 4, 32).eval()
    first = aggregator.transformer.decoder[0]
    frozen = {key for key, p in aggregator.named_parameters() if not p.requires_grad}
    start = "transformer.decoder.0."
    assert frozen == {
        f"{start}self_attention.{key}" for key, _ in first.self_attention.named_parameters()
    } | {f"{start}norm1.weight"}
    seen: list[Tensor] = []
    first.norm1.register_forward_hook(lambda module, args, output: seen.append(output))
    aggregator(torch.randn(3, 4, 16), torch.randn(3, 16))
    assert torch.equal(seen[0], first.norm1.bias.expand(3, 1, 16))


def fused(query: Tensor) -> Tensor:
    return QueryFusion(16, 4, 32, 7).eval()(query)


def aggregated(query: Tensor) -> Tensor:
    return DynamicAggregator(16, 4, 32).eval()(torch.randn(1, 5, 16).expand(len(query), -1, -1), query)


@pytest.mark.parametrize("read", [fused, aggregated])
def test_samples_do_not_see_each_other(read: Callable[[Tensor], Tensor]) -> None:
    query = torch.randn(3, 16, requires_grad=True)
    read(query)[0].sum().backward()
    torch.manual_seed(0)
    assert query.grad is not None
    assert query.grad[1:].abs().max() == 0
    together = read(query)
    torch.manual_seed(0)
    torch.testing.assert_close(together[1:2], read(query[1:2]), atol=1e-6, rtol=1e-5)


def test_given_concepts_stay_and_counted_ones_are_learned() -> None:
    given = torch.randn(20, 16)
    fixed, learned = QueryFusion(16, 4, 32, given), QueryFusion(16, 4, 32, 400)
    assert torch.equal(fixed.concepts, given)
    assert "concepts" in fixed.state_dict()
    assert "concepts" not in dict(fixed.named_parameters())
    assert learned.concepts.requires_grad
    assert learned.concepts.std().item() == pytest.approx(0.02, rel=0.1)
    query = torch.randn(2, 16)
    changed = QueryFusion(16, 4, 32, -given)
    changed.transformer.load_state_dict(fixed.transformer.state_dict())
    assert (fixed.eval()(query) - changed.eval()(query)).abs().max() > 1e-3


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(ValueError, match="multiple of heads"):
        QueryTransformer(10, 4, 16)
