"""The decoder's last layer: what nn.Linear gives, with the parameters and names of the plain one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from kif_mrg.decoder import make_decoder
from kif_mrg.token_head import FEW, TokenHead
from kif_tiny_reporter import SMALL, make_tokenizer
from transformers import BlipTextLMHeadModel


@pytest.mark.parametrize("shape", [(1,), (3, 1), (1, 3), (2, 3), (FEW[-1],), (FEW[-1] + 1,), (4, 5), (2, 0)])
def test_output_and_gradients_are_those_of_a_linear_layer(shape: tuple[int, ...]) -> None:
    head = TokenHead(7, 11)
    x = torch.randn(*shape, 7, requires_grad=True)
    plain = F.linear(x, head.weight, head.bias)
    said = head(x)
    torch.testing.assert_close(said, plain)
    ours, theirs = (
        torch.autograd.grad(out.square().sum(), [x, head.weight, head.bias]) for out in (said, plain)
    )
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_types_pass_through(dtype: torch.dtype) -> None:
    head, x = TokenHead(7, 11).to(dtype), torch.randn(3, 7, dtype=dtype)
    assert torch.equal(head(x), F.linear(x, head.weight, head.bias))


def test_a_decoder_keeps_its_weights_their_names_and_the_random_numbers() -> None:
    tokenizer = make_tokenizer()
    torch.manual_seed(5)
    decoder: Any = make_decoder(tokenizer, 10, SMALL)
    after = torch.rand(3)
    torch.manual_seed(5)
    plain = BlipTextLMHeadModel(decoder.config)
    assert torch.equal(after, torch.rand(3))
    assert isinstance(decoder.get_output_embeddings(), TokenHead)
    expected = plain.state_dict()
    assert decoder.state_dict().keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in decoder.state_dict().items())
    assert decoder.get_output_embeddings().weight is decoder.get_input_embeddings().weight
    assert decoder.get_output_embeddings().bias is decoder.cls.predictions.bias
