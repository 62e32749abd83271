"""Knowledge graph and its encoder: rows are nodes, edges are the rule's, the mask is the right way round."""

from __future__ import annotations

import copy

import pytest
import torch
from kif_mrg.graph import NODES, adjacency
from kif_mrg.tag_encoder import TagEncoder
from kif_mrg.text import ReportTokenizer
from kif_tiny_reporter import REPORTS, make_tokenizer
from torch import Tensor

N = 28
DEGREES = {
    "<root>": 28, "lung": 15, "pleural": 11, "mediastinum": 10, "airspace": 10, "heart": 9, "spine": 9,
    "bone": 9, "emphysema": 9, "pneumonia": 9, "edema": 9, "atelectasis": 9, "cicatrix": 9,
    "opacity": 9, "lesion": 9,
    "effusion": 5, "thickening": 5, "pneumothorax": 5, "hernia": 4, "calcinosis": 4, "airspace disease": 4,
    "hypoinflation": 4, "cardiomegaly": 3, "scoliosis": 3, "bone fractures": 3, "normal": 2,
    "other finding": 2, "foreign object": 2,
}  # fmt: skip


def make_encoder(
    tokenizer: ReportTokenizer, layers: int = 2, node_ids: list[list[int]] | None = None
) -> TagEncoder:
    torch.manual_seed(0)
    ids = node_ids or tokenizer.node_ids()
    return TagEncoder(ids, len(tokenizer), dim=24, heads=2, ff=32, layers=layers).eval()


def test_adjacency_is_the_published_graph() -> None:
    edges = adjacency()
    assert len(NODES) == len(set(NODES)) == N
    assert edges.shape == (N, N)
    assert int(edges.sum()) == 210
    assert torch.equal(edges, edges.T)
    assert bool(edges.diagonal().all())
    assert dict(zip(NODES, edges.sum(1).tolist(), strict=True)) == DEGREES
    assert int(edges.triu(1).sum()) == 91
    assert int(edges[0].sum()) == 28


@pytest.mark.parametrize("min_count", [1, 3, 1000])
def test_every_vocabulary_gives_one_row_per_node(min_count: int) -> None:
    tokenizer = ReportTokenizer.build([*REPORTS, "bone frac"], min_count=min_count)
    encoder = make_encoder(tokenizer)
    assert encoder().shape == (1, N, 24)
    table = encoder.embedding.weight
    for name, row in zip(NODES, encoder.nodes(), strict=True):
        pieces = [tokenizer.cls_id] if name == "<root>" else tokenizer.encode(name)
        torch.testing.assert_close(row, table[pieces].mean(0))


def test_rows_follow_their_own_pieces_only() -> None:
    tokenizer = make_tokenizer()
    ids = [list(pieces) for pieces in tokenizer.node_ids()]
    ids[12] = tokenizer.encode("bone fractures of the chest")
    turned = copy.deepcopy(ids)
    turned[12] = turned[12][::-1]
    longer = copy.deepcopy(ids)
    longer[12] += tokenizer.encode("wall or spine")
    before = make_encoder(tokenizer, node_ids=ids).nodes()
    torch.testing.assert_close(make_encoder(tokenizer, node_ids=turned).nodes(), before)
    changed = (make_encoder(tokenizer, node_ids=longer).nodes() - before).abs().amax(1) > 1e-6
    assert changed.nonzero().flatten().tolist() == [12]


def sensitivity(encoder: TagEncoder) -> Tensor:
    """Bool (N, N): whether tag i depends on the start vector of node j."""
    encoder.group_code.requires_grad_()  # added to every start vector
    tags = encoder()[0]
    weights = torch.randn(24)  # the sum over a normalised row would be constant
    return torch.stack(
        [
            torch.autograd.grad(tag @ weights, encoder.group_code, retain_graph=True)[0].ne(0).any(1)
            for tag in tags
        ]
    )


def test_one_layer_sees_the_neighbours_and_nobody_else() -> None:
    seen = sensitivity(make_encoder(make_tokenizer(), layers=1))
    assert torch.equal(seen, adjacency())
    heart, hernia, cardiomegaly = map(NODES.index, ("heart", "hernia", "cardiomegaly"))
    assert not seen[heart, hernia]
    assert seen[heart, cardiomegaly]


def test_two_layers_see_everything_through_the_root() -> None:
    assert bool(sensitivity(make_encoder(make_tokenizer(), layers=2)).all())


def test_inference_without_gradients_gives_the_same_tags() -> None:
    encoder = make_encoder(make_tokenizer())
    with torch.inference_mode():
        quick = encoder()
    torch.testing.assert_close(quick, encoder(), atol=1e-5, rtol=1e-4)


def test_start_from_copies_and_stays_apart() -> None:
    encoder, words = make_encoder(make_tokenizer()), torch.randn(len(make_tokenizer()), 24)
    encoder.start_from(words)
    torch.testing.assert_close(encoder.nodes()[0], words[make_tokenizer().cls_id])
    words.zero_()
    assert bool(encoder.nodes().abs().sum(1).gt(0).all())
    with pytest.raises(ValueError, match="word embeddings must be"):
        encoder.start_from(words[:-1])


def test_state_holds_weights_only_and_copies_after_a_forward() -> None:
    encoder = make_encoder(make_tokenizer())
    encoder().sum().backward()
    assert set(encoder.state_dict()) == {name for name, _ in encoder.named_parameters()}
    torch.testing.assert_close(copy.deepcopy(encoder)(), encoder())


def test_paper_size() -> None:
    with torch.device("meta"):
        encoder = TagEncoder([[2, 3]] * N, 30527, dim=768, heads=6, ff=1024)
    assert sum(p.numel() for p in encoder.parameters()) == pytest.approx(31.3e6, abs=5e4)


@pytest.mark.parametrize(
    ("node_ids", "options", "message"),
    [
        ([[1]] * 27, {}, "28 nodes"),
        ([[1]] * 27 + [[]], {}, "one piece or more"),
        ([[1]] * 27 + [[50]], {}, "below vocab_size=50"),
        ([[1]] * 28, {"dim": 24, "heads": 5}, "multiple of heads"),
        ([[1]] * 28, {"dim": 25, "heads": 5}, "even"),
    ],
)
def test_what_cannot_be_encoded_is_named(
    node_ids: list[list[int]], options: dict[str, int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        TagEncoder(node_ids, 50, **options)
