"""How well a decoder without an image expects report text: perplexity per word, and a control for it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from kif_mrg.conditions import CONDITIONS, IGNORE
from kif_mrg.decoding import prompts, report_logits
from kif_mrg.text import ReportTokenizer

if TYPE_CHECKING:
    from transformers import BlipTextLMHeadModel


def said_alone(
    decoder: BlipTextLMHeadModel,
    tokenizer: ReportTokenizer,
    tokens: Tensor,
    conditions: int = len(CONDITIONS),
) -> Tensor:
    """Logits (B, T, V) of report tokens (B, T) without an image, after a prompt of blank states."""
    states = torch.full((len(tokens), conditions), IGNORE, device=tokens.device)
    return report_logits(decoder, prompts(states, tokenizer), tokens)


def batches(
    encoded: Sequence[Sequence[int]],
    pad_id: int,
    batch_size: int,
    rng: np.random.Generator | None = None,
    device: torch.device | str = "cpu",
) -> Iterator[Tensor]:
    """Padded token ids (B, T) of reports of similar length; shuffled by `rng`, else shortest first."""
    lengths = np.array([len(ids) for ids in encoded])
    if rng is None:
        order = np.argsort(lengths, kind="stable")
    else:
        # A little jitter on the length mixes the batches anew each epoch and still pads little.
        order = np.argsort(lengths * rng.uniform(0.85, 1.15, len(lengths)), kind="stable")
    starts = np.arange(0, len(order), batch_size)
    for start in starts if rng is None else rng.permutation(starts):
        chosen = [torch.tensor(encoded[i]) for i in order[start : start + batch_size]]
        yield torch.nn.utils.rnn.pad_sequence(chosen, batch_first=True, padding_value=pad_id).to(device)


@torch.no_grad()
def perplexity(
    decoder: BlipTextLMHeadModel, tokenizer: ReportTokenizer, reports: Sequence[str], batch_size: int = 32
) -> float:
    """exp of the mean negative log-likelihood per word, the end of a report counted as one word.

    A rare word that is spelled in several tokens counts as one word, so that tokenizers can be compared.

    Raises:
        ValueError: nothing to measure, or a report longer than the decoder's positions.
    """
    words = sum(len(report.split()) + 1 for report in reports)
    if not reports:
        raise ValueError("perplexity needs at least one report, got none")
    encoded = [[*tokenizer.encode(report), tokenizer.sep_id] for report in reports]
    was_training, total = decoder.training, 0.0
    decoder.eval()
    for tokens in batches(encoded, tokenizer.pad_id, batch_size, device=decoder.device):
        logits = said_alone(decoder, tokenizer, tokens).flatten(0, 1).float()
        total += F.cross_entropy(
            logits, tokens.flatten(), ignore_index=tokenizer.pad_id, reduction="sum"
        ).item()
    decoder.train(was_training)
    return math.exp(total / words)


def shuffle_words(reports: Sequence[str], seed: int) -> list[str]:
    """The reports with the words of each in random order: the same words, no language."""
    rng = np.random.default_rng(seed)
    return [" ".join(rng.permutation(report.split())) for report in reports]
