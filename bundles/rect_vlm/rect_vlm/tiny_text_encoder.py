"""A random BERT on disk, for machines without a text encoder: it tells texts apart and knows no meaning."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import torch
from medbundles.text import require_text_extra

from rect_vlm.made_folder import make_once
from rect_vlm.prompts import Prompts, read_prompts

WIDTH = 384  # that of MiniLM, so that either fits the same heads
LAYERS, HEADS, MAX_TOKENS = 2, 6, 128
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def tiny_text_encoder(store: Path, prompts: Prompts | None = None, seed: int = 0) -> Path:
    """Return the folder of a random BERT in `store`, written on first use: 384 wide, two layers, WordPiece.

    Its vocabulary is the words of the prompts and single characters. The same prompts and seed give the same
    weights.

    Raises:
        ImportError: the extra `text` is not installed.
        OSError: the folder cannot be written.
    """
    prompts = prompts or read_prompts()
    vocabulary = _vocabulary(prompts.findings + prompts.lesions)
    made_from = json.dumps([vocabulary, WIDTH, LAYERS, HEADS, MAX_TOKENS, seed])
    target = store / f"text_encoder_tiny-{hashlib.sha256(made_from.encode()).hexdigest()[:12]}"
    if target.is_dir():
        return target
    require_text_extra()
    return make_once(target, lambda folder: _write(folder, vocabulary, seed))


def _vocabulary(texts: tuple[str, ...]) -> list[str]:
    words = {word for text in texts for word in re.findall(r"\w+|[^\w\s]", text.lower())}
    letters = sorted(
        {letter for word in words for letter in word} | set("abcdefghijklmnopqrstuvwxyz0123456789")
    )
    pieces = letters + [f"##{letter}" for letter in letters if letter.isalnum()]
    return [*SPECIAL, *pieces, *sorted(words - set(letters))]


def _write(folder: Path, vocabulary: list[str], seed: int) -> None:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    ids = {piece: number for number, piece in enumerate(vocabulary)}
    tokenizer = Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", ids["[SEP]"]), ("[CLS]", ids["[CLS]"]))
    names = dict(
        zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), SPECIAL, strict=True)
    )
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=MAX_TOKENS, **names).save_pretrained(
        folder
    )
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        intermediate_size=2 * WIDTH,
        max_position_embeddings=MAX_TOKENS,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        BertModel(config).save_pretrained(folder)
