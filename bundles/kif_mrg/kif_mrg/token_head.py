"""The decoder's last layer, from the width of a token to the vocabulary, quick for the few rows of a beam."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.utils import skip_init

if TYPE_CHECKING:
    from transformers import BlipTextLMHeadModel

FEW = range(2, 7)  # rows for which the transposed product was measured to be the faster one


class TokenHead(nn.Linear):
    """nn.Linear that multiplies a few rows as `(W x^T)^T`: MKL takes up to twice as long for `x W^T` in fp32.

    A third of beam search at the paper's size is this one product, with one row per beam.
    """

    def forward(self, x: Tensor) -> Tensor:
        rows = x.shape[:-1].numel()
        if rows not in FEW or x.device.type != "cpu" or x.dtype != torch.float32:
            return super().forward(x)
        said = torch.addmm(self.bias[:, None], self.weight, x.reshape(rows, -1).t()).t()
        return said.view(*x.shape[:-1], -1)


def use_token_head(decoder: BlipTextLMHeadModel) -> BlipTextLMHeadModel:
    """Give a decoder a TokenHead with the very parameters of its own head; returns the same decoder."""
    plain = decoder.get_output_embeddings()
    # No weights are drawn: these would shift the random numbers of everything built after the decoder.
    head = skip_init(TokenHead, plain.in_features, plain.out_features)
    head.weight, head.bias = plain.weight, plain.bias
    decoder.set_output_embeddings(head)
    return decoder
