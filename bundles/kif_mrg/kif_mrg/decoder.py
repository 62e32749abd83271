"""The text decoder: BLIP's BERT with cross-attention (arXiv 2201.12086), as transformers implements it."""

from __future__ import annotations

import json
import logging
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from medbundles.contract.weights import sha256
from medbundles.text import require_text_extra
from torch import nn

from kif_mrg.conditions import STATES
from kif_mrg.text import ReportTokenizer, save_pretrained
from kif_mrg.token_head import use_token_head

if TYPE_CHECKING:
    from transformers import BlipTextLMHeadModel

logger = logging.getLogger(__name__)

# The names are those of BlipTextConfig and of a BERT folder's config.json.
SMALL: dict[str, Any] = {
    "hidden_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 192,
    "max_position_embeddings": 512,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
    "initializer_range": 0.1,  # 1 / sqrt(hidden_size), so that narrow words start with unit length
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
}
NEEDED = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
READ = (".json", ".txt", ".safetensors", ".bin")  # files that a decoder and its tokenizer are loaded from
# BERT has these and the decoder does not: segments, pooler, next-sentence head, a buffer of old versions.
UNUSED = re.compile(r"token_type_embeddings|\.pooler\.|^cls\.seq_relationship\.|\.position_ids$")


def make_decoder(
    tokenizer: ReportTokenizer,
    encoder_width: int,
    decoder: Mapping[str, Any] | str | os.PathLike[str] | None = None,
) -> BlipTextLMHeadModel:
    """Build the decoder with fresh weights, or from a local folder of BERT or of `save_decoder`.

    Args:
        tokenizer: gives the vocabulary and the ids that begin, end and pad a report.
        encoder_width: Dv, width of the image features that cross-attention reads.
        decoder: numbers that replace those of `SMALL`, or a folder with config.json, weights and tokenizer.

    Raises:
        ValueError: an unknown number; a folder of another vocabulary, or whose weights lack more than
            cross-attention or hold more than BERT's unused heads; names the keys.
    """
    require_text_extra()
    if isinstance(decoder, (str, os.PathLike)):
        return use_token_head(_from_folder(tokenizer, encoder_width, Path(decoder)))
    from transformers import BlipTextLMHeadModel

    numbers = dict(decoder or {})
    if unknown := sorted(set(numbers) - set(SMALL)):
        raise ValueError(f"the decoder's numbers are {sorted(SMALL)}, got {unknown}")
    config = _config(tokenizer, encoder_width, {**SMALL, **numbers}, len(tokenizer))
    return use_token_head(BlipTextLMHeadModel(config))


def _config(tokenizer: ReportTokenizer, encoder_width: int, numbers: dict[str, Any], vocab_size: int) -> Any:
    from transformers import BlipTextConfig

    return BlipTextConfig(
        **numbers,
        vocab_size=vocab_size,
        encoder_hidden_size=encoder_width,
        is_decoder=True,
        # [DEC] is set after the vocabulary has grown by it.
        bos_token_id=tokenizer.dec_id if tokenizer.dec_id < vocab_size else None,
        eos_token_id=tokenizer.sep_id,
        sep_token_id=tokenizer.sep_id,
        pad_token_id=tokenizer.pad_id,
    )


def _from_folder(tokenizer: ReportTokenizer, encoder_width: int, folder: Path) -> BlipTextLMHeadModel:
    from transformers import BlipTextLMHeadModel

    if not (folder / "config.json").is_file():
        raise ValueError(f"a decoder's folder must hold config.json, got {folder} without")
    found = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if absent := [name for name in NEEDED if name not in found]:
        raise ValueError(
            f"{folder}/config.json must be BERT's, with {', '.join(NEEDED)}; got none of {absent}"
        )
    if ReportTokenizer.load(folder).hf.get_vocab() != tokenizer.hf.get_vocab():
        raise ValueError(
            f"decoder and tokenizer must share one vocabulary, got the weights of {folder} with another one; "
            "give that folder as the tokenizer's source too"
        )
    added = 1 + len(STATES)
    if found["vocab_size"] < len(tokenizer) - added:
        raise ValueError(
            f"{folder}/config.json must have a vocab_size of {len(tokenizer) - added} or more for the "
            f"tokenizer beside it, got {found['vocab_size']}"
        )
    numbers = {name: found[name] for name in SMALL if name in found}
    loaded: Any = BlipTextLMHeadModel.from_pretrained(
        folder,
        config=_config(tokenizer, encoder_width, numbers, found["vocab_size"]),
        dtype=torch.float32,
        local_files_only=True,
        output_loading_info=True,
    )
    decoder, report = loaded
    _check_loaded(decoder, report["missing_keys"], report["unexpected_keys"], folder)
    if decoder.config.vocab_size != len(tokenizer):
        decoder.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    decoder.config.bos_token_id = decoder.generation_config.bos_token_id = tokenizer.dec_id
    return decoder


def _check_loaded(decoder: nn.Module, missing: set[str], unexpected: set[str], folder: Path) -> None:
    """Allow that all of cross-attention is missing, or nothing; BERT's unused heads may be left over."""
    crossing = {name for name, _ in decoder.named_parameters() if ".crossattention." in name}
    wanted = set(missing) if set(missing) not in (set(), crossing) else set()
    surplus = {name for name in unexpected if not UNUSED.search(name)}
    if wanted or surplus:
        raise ValueError(
            f"weights of {folder} must be BERT's with its language-model head, only cross-attention may be "
            f"missing as a whole; got missing {_folded(wanted)}, unexpected {_folded(surplus)}"
        )
    logger.info(
        "decoder from %s: fresh are %s; left out are %s", folder, _folded(missing), _folded(unexpected)
    )


def _folded(names: Iterable[str]) -> str:
    """Names with the layer's number replaced by `*` and counted: `layer.*.output.bias (x12)`."""
    counts = Counter(re.sub(r"(?<=layer\.)\d+", "*", name) for name in names)
    return ", ".join(f"{name} (x{n})" if n > 1 else name for name, n in sorted(counts.items())) or "none"


def decoder_digest(decoder: Mapping[str, Any] | str | os.PathLike[str] | None) -> Any:
    """What a decoder of `make_decoder` begins from: its numbers as they are, a folder as its files' SHA-256.

    So a run can tell that a folder of the same name holds another decoder, or one of another name the same.
    """
    if not isinstance(decoder, (str, os.PathLike)) or not Path(decoder).is_dir():
        return decoder
    files = sorted(path for path in Path(decoder).iterdir() if path.suffix in READ and path.is_file())
    return [[path.name, sha256(path)] for path in files]


def save_decoder(
    decoder: BlipTextLMHeadModel, tokenizer: ReportTokenizer, folder: str | os.PathLike[str]
) -> Path:
    """Save a decoder trained on text alone: model.safetensors, config.json and the tokenizer's two files.

    Cross-attention never ran without an image: its weights are left out, and drawn afresh on loading.
    """
    trained = {name: value for name, value in decoder.state_dict().items() if ".crossattention." not in name}
    save_pretrained(decoder, folder, state_dict=trained)
    return tokenizer.save(folder)


def load_decoder(
    folder: str | os.PathLike[str], encoder_width: int
) -> tuple[BlipTextLMHeadModel, ReportTokenizer]:
    """Load what `save_decoder` wrote, or a BERT folder: decoder and tokenizer.

    Cross-attention to image features of `encoder_width` is fresh; the log names every fresh weight.

    Raises:
        ValueError: as in `make_decoder` and `ReportTokenizer.load`.
    """
    tokenizer = ReportTokenizer.load(folder)
    return make_decoder(tokenizer, encoder_width, folder), tokenizer
