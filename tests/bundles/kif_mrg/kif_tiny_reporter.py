"""A reporter of a few thousand weights, and reports to speak about."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from kif_mrg.diagnosis import DiagnosisNet
from kif_mrg.networks import KifReporter
from kif_mrg.text import ReportTokenizer
from torch import Tensor

REPORTS = (
    "the heart is normal in size . the lungs are clear .",
    "the heart is enlarged . small left pleural effusion . no pneumothorax .",
    "well-expanded lungs . no focal consolidation .",
    "right basal opacity may represent pneumonia or atelectasis . pacemaker in place .",
)
CONDITIONS, MEMORY = 18, 8
SMALL = {"hidden_size": 24, "num_attention_heads": 2, "intermediate_size": 32, "max_position_embeddings": 96}


def make_tokenizer() -> ReportTokenizer:
    return ReportTokenizer.build(REPORTS)


def make_reporter(loose: bool = False, **options: Any) -> KifReporter:
    """In eval mode; `loose` makes images and prompts matter to it untrained."""
    diagnosis = DiagnosisNet(memory_dim=MEMORY, heads=2, ff=16)
    torch.nn.init.normal_(diagnosis.classify.weight, std=1.0)
    arguments = {"dim": 24, "tag_heads": 2, "fusion_heads": 2, "ff": 32, "decoder": SMALL} | options
    reporter = KifReporter(diagnosis, make_tokenizer(), **arguments).eval()
    if loose:
        loosen(reporter.decoder)
    return reporter


def loosen(decoder: torch.nn.Module) -> None:
    """Larger words and attention: what is read changes what is said, and reports end at several lengths."""
    for name, value in decoder.named_parameters():
        if name.endswith("weight") and ("attention" in name or "word_embeddings" in name) and value.ndim > 1:
            value.data.mul_(4)


def make_batch(size: int, views: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Images, memory, states."""
    shape = (size, 3, 64, 64) if views is None else (size, views, 3, 64, 64)
    return torch.randn(shape), torch.randn(size, 3, MEMORY), torch.randint(-1, 4, (size, CONDITIONS))


def padded(tokenizer: ReportTokenizer, reports: tuple[str, ...] = REPORTS, extra: int = 0) -> Tensor:
    """Token ids (B, T) ending in [SEP], padded by `extra` more than needed."""
    rows = [[*tokenizer.encode(report), tokenizer.sep_id] for report in reports]
    length = max(map(len, rows)) + extra
    return torch.tensor([row + [tokenizer.pad_id] * (length - len(row)) for row in rows])


def bert_folder(folder: Path, tokenizer: ReportTokenizer | None = None, head: bool = True) -> Path:
    """A folder as BERT comes in: config.json, weights, and the vocabulary alone as its tokenizer."""
    from transformers import BertConfig, BertForPreTraining, BertModel

    words = [
        word for word, i in sorted((tokenizer or make_tokenizer()).hf.get_vocab().items(), key=lambda x: x[1])
    ]
    words = words[:-5]  # BERT knows neither [DEC] nor the states
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
    )
    (BertForPreTraining if head else BertModel)(config).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    return folder
