"""Prompts through a frozen text encoder, once: what it says is kept, the encoder is not."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

import torch
from medbundles.samples import cache_dir as user_cache
from medbundles.samples import fetch, sample_path
from medbundles.text import require_text_extra
from torch import Tensor

from rect_vlm.projection import standardised
from rect_vlm.prompts import Prompts, read_prompts
from rect_vlm.tiny_text_encoder import tiny_text_encoder

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

MINILM = "text_encoder_minilm"  # the sample with all-MiniLM-L6-v2


class TextCache(TypedDict):
    """What the heads need of the text encoder, float32 and without gradient, Dt wide."""

    cls_text: Tensor  # (18, Dt) one vector per finding
    loc_tokens: Tensor  # (5, T, Dt) tokens per lesion, zero where padded
    loc_mask: Tensor  # (5, T) bool, True for a token


def text_encoder_folder(name: str | Path = "auto", cache_dir: str | Path | None = None) -> Path:
    """Return the text encoder that `name` stands for.

    Args:
        name: a folder or hub id, returned as it is; "minilm", the sample, fetched on first use; "tiny", a
            random BERT written to disk; "auto", MiniLM if it has been fetched, else the tiny one.
        cache_dir: where the tiny one is kept; default the cache folder of medbundles.

    Raises:
        SampleError: MiniLM cannot be fetched.
    """
    if name == "auto" and (fetched := sample_path(MINILM)):
        return fetched
    if name == "auto":
        logger.info(
            "prompts are read by a random text encoder; for a real one run: medbundles samples fetch %s",
            MINILM,
        )
    if name in ("auto", "tiny"):
        return tiny_text_encoder(Path(cache_dir) if cache_dir else user_cache() / "rect_vlm")
    return fetch(MINILM) if name == "minilm" else Path(name)


def build_text_cache(encoder: str | Path, tokens: int = 64, prompts: Prompts | None = None) -> TextCache:
    """Encode the prompts of the 18 findings and of the five lesions.

    A finding is the mean of its tokens; the vectors of all findings are then standardised, feature by feature
    over the findings, and the tokens likewise over all tokens of the lesions. What a BERT says of any text
    is nearly the same vector; the differences are what a head can use.

    Args:
        encoder: folder or hub id of a BERT with its tokenizer.
        tokens: T, longer prompts are cut.
        prompts: default those of the package.

    Raises:
        ImportError: the extra `text` is not installed.
        ValueError: no such model, no tokenizer beside it, or more tokens than it reads.
    """
    require_text_extra()
    prompts = prompts or read_prompts()
    tokenizer, model = _load(encoder)
    longest = getattr(model.config, "max_position_embeddings", tokens)
    if not 2 < tokens <= longest:
        raise ValueError(f"tokens must be 3 to {longest}, the positions of {encoder}, got {tokens=}")
    words, mask = _encode(tokenizer, model, prompts.findings, tokens)
    share = mask / mask.sum(1, keepdim=True)  # (18, T)
    loc_tokens, loc_mask = _encode(tokenizer, model, prompts.lesions, tokens)
    loc_tokens[loc_mask] = standardised(loc_tokens[loc_mask])
    return {
        "cls_text": standardised((words * share.unsqueeze(2)).sum(1)),
        "loc_tokens": loc_tokens * loc_mask.unsqueeze(2),
        "loc_mask": loc_mask,
    }


def _load(encoder: str | Path) -> tuple[PreTrainedTokenizerBase, PreTrainedModel]:
    from transformers import AutoModel, AutoTokenizer

    source = Path(encoder).as_posix()  # a hub id keeps its slash on every system
    try:
        tokenizer = AutoTokenizer.from_pretrained(source)
        return tokenizer, AutoModel.from_pretrained(source, dtype=torch.float32).eval()
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"text encoder must be a folder or hub id with a BERT and its tokenizer, got {source}: {reason}"
        ) from error


@torch.no_grad()
def _encode(
    tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel, texts: tuple[str, ...], tokens: int
) -> tuple[Tensor, Tensor]:
    batch = tokenizer(
        list(texts), padding="max_length", truncation=True, max_length=tokens, return_tensors="pt"
    )
    return model(**batch).last_hidden_state, batch["attention_mask"].bool()
