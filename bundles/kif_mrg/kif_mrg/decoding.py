"""Saying a report: the prompt of diagnoses, teacher-forced logits, beam search, weights in half precision."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn

from kif_mrg.conditions import STATES
from kif_mrg.text import ReportTokenizer

if TYPE_CHECKING:
    from transformers import BlipTextLMHeadModel

M = TypeVar("M", bound=nn.Module)


def prompts(states: Tensor, tokenizer: ReportTokenizer) -> Tensor:
    """Prompt ids (B, 1 + C): [DEC], then one state token per condition; a negative state (unknown) is [BLA].

    Args:
        states: int64 (B, C) with 0 blank, 1 positive, 2 negative, 3 uncertain.
        tokenizer: knows the ids of [DEC] and of the state tokens.

    Raises:
        ValueError: a state above 3 or another shape.
    """
    if states.ndim != 2 or (states.numel() and int(states.max()) >= len(STATES)):
        raise ValueError(f"states must be (B, C) of 0 to {len(STATES) - 1}, got {states.tolist()}")
    ids = torch.tensor(tokenizer.state_ids, device=states.device)[states.clamp(min=0)]
    return torch.cat([ids.new_full((len(ids), 1), tokenizer.dec_id), ids], dim=1)


def report_logits(
    decoder: BlipTextLMHeadModel, prompt: Tensor, tokens: Tensor, features: Tensor | None = None
) -> Tensor:
    """Teacher-forced logits (B, T, V): position t predicts `tokens[:, t]` from prompt and tokens before it.

    Args:
        decoder: from `make_decoder`.
        prompt: ids (B, P), all of one length.
        tokens: ids (B, T) of the reports, ending in [SEP] and padded on the right. Padding needs no mask:
            under causal attention nothing before it sees it, and losses leave out its own positions.
        features: (B, N, Dv) for cross-attention; None runs the decoder as a plain language model.

    Raises:
        ValueError: prompt and tokens are longer than the decoder's positions.
    """
    _check_length(decoder, prompt.shape[1] + tokens.shape[1] - 1)
    said = decoder(
        torch.cat([prompt, tokens[:, :-1]], dim=1),
        encoder_hidden_states=_as_weights(decoder, features),
        use_cache=False,
        logits_to_keep=tokens.shape[1],
    )
    return said.logits


@torch.no_grad()
def generate_reports(
    decoder: BlipTextLMHeadModel,
    tokenizer: ReportTokenizer,
    prompt: Tensor,
    features: Tensor | None,
    num_beams: int = 3,
    max_new_tokens: int = 100,
    min_new_tokens: int = 8,
) -> list[list[int]]:
    """Beam search with cache from prompts (B, P) and features (B, N, Dv): each report's ids before [SEP].

    Both limits count the report alone, not the prompt, and no special token but [SEP] can be produced.
    Features must not be repeated per beam, transformers does that.

    Raises:
        ValueError: prompt and `max_new_tokens` are longer than the decoder's positions, or the limits cross.
    """
    _check_length(decoder, prompt.shape[1] + max_new_tokens)
    found = decoder.generate(  # type: ignore[misc]
        prompt,
        generation_config=_search(tokenizer, num_beams, max_new_tokens, min_new_tokens),
        logits_processor=_without_special(tokenizer, prompt.device),
        attention_mask=torch.ones_like(prompt),
        encoder_hidden_states=_as_weights(decoder, features),
    )
    reports = found[:, prompt.shape[1] :].tolist()
    # A report that ends before the longest of its batch is padded after its [SEP].
    return [ids[: ids.index(tokenizer.sep_id)] if tokenizer.sep_id in ids else ids for ids in reports]


def _search(tokenizer: ReportTokenizer, num_beams: int, max_new_tokens: int, min_new_tokens: int) -> Any:
    from transformers import GenerationConfig

    if not 0 <= min_new_tokens <= max_new_tokens:
        raise ValueError(
            f"0 <= min_new_tokens <= max_new_tokens required, got {min_new_tokens=} {max_new_tokens=}"
        )
    return GenerationConfig(
        num_beams=num_beams,
        max_new_tokens=max_new_tokens,
        min_new_tokens=min_new_tokens,
        do_sample=False,
        bos_token_id=tokenizer.dec_id,
        eos_token_id=tokenizer.sep_id,
        pad_token_id=tokenizer.pad_id,
    )


def _without_special(tokenizer: ReportTokenizer, device: torch.device) -> Any:
    """What `suppress_tokens` does by searching the whole vocabulary at every token."""
    from transformers import LogitsProcessorList

    special = [i for i in tokenizer.hf.all_special_ids if i != tokenizer.sep_id]
    unsayable = torch.tensor(special, device=device)
    return LogitsProcessorList([lambda _, scores: scores.index_fill(1, unsayable, -torch.inf)])


def half_weights(module: M, dtype: torch.dtype = torch.bfloat16) -> M:
    """A copy for inference whose text decoder holds its weights in `dtype`; everything else stays fp32.

    Decoding reads all weights for every token, so that half the bytes is half the time or less where the
    device multiplies in `dtype`; elsewhere it is emulated and slower (medbundles.precision.auto_dtype tells).
    """
    from transformers import BlipTextLMHeadModel

    copied = copy.deepcopy(module).eval()
    for part in copied.modules():
        if isinstance(part, BlipTextLMHeadModel):
            part.to(dtype)  # type: ignore[arg-type]
    return copied


def _as_weights(decoder: BlipTextLMHeadModel, features: Tensor | None) -> Tensor | None:
    """Features in the dtype of the decoder's weights, which half_weights may have changed."""
    return None if features is None else features.to(decoder.dtype)


def _check_length(decoder: BlipTextLMHeadModel, length: int) -> None:
    limit = decoder.config.max_position_embeddings
    if length > limit:
        raise ValueError(f"prompt and report must fit {limit} positions of the decoder, got {length}")
