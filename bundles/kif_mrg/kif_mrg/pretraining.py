"""Pre-training of the text decoder on real reports without images, and what it learnt of their language."""

from __future__ import annotations

import copy
import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from medbundles.atomic import write_text
from medbundles.precision import best_device

from kif_mrg.corpus import CorpusSplit, TextRecord, iu_reports, split_by_study
from kif_mrg.decoder import make_decoder, save_decoder
from kif_mrg.losses import language_loss
from kif_mrg.perplexity import batches, perplexity, said_alone, shuffle_words
from kif_mrg.text import ReportTokenizer

if TYPE_CHECKING:
    from transformers import BlipTextLMHeadModel

logger = logging.getLogger(__name__)

RESULT = "perplexity.json"


@dataclass(frozen=True)
class PretrainingSettings:
    """How a decoder is pre-trained; `decoder` replaces numbers of `kif_mrg.decoder.SMALL`."""

    epochs: int = 12
    batch_size: int = 32
    learning_rate: float = 3e-3
    weight_decay: float = 0.05
    patience: int = 2  # epochs without a better validation perplexity
    max_words: int = 100
    min_count: int = 3  # rarer words are spelled in characters
    shuffles: int = 3
    seed: int = 0
    decoder: dict[str, Any] = field(default_factory=dict)


def main(output: str, reports: str | None = None, **settings: Any) -> dict[str, Any]:
    """Command: pre-train a decoder on the Indiana University reports; settings as in PretrainingSettings.

    Args:
        output: folder of the decoder, its tokenizer and perplexity.json.
        reports: folder with NLMCXR_reports.tgz; default the sample `chest_xray_reports`.
        settings: changes to PretrainingSettings by field name.

    Raises:
        ValueError: an unknown setting, or as `kif_mrg.corpus` raises.
    """
    known = [item.name for item in fields(PretrainingSettings)]
    if unknown := sorted(set(settings) - set(known)):
        raise ValueError(f"settings must be among {', '.join(known)}, got {', '.join(unknown)}")
    split = split_by_study(iu_reports(None if reports is None else Path(reports)))
    return pretrain(split, output, PretrainingSettings(**settings))


def pretrain(
    split: CorpusSplit, output: str | Path, settings: PretrainingSettings | None = None, progress: bool = True
) -> dict[str, Any]:
    """Train a decoder with a tokenizer of its own on `split.train`; save both and the result, return it.

    The weights kept are those of the epoch with the lowest perplexity on `split.val`. The result compares the
    perplexity per word of the held-out reports with that of the same reports, words shuffled.
    """
    settings = settings or PretrainingSettings()
    torch.manual_seed(settings.seed)
    train, val, test = (_cut(records, settings.max_words) for records in (split.train, split.val, split.test))
    tokenizer = ReportTokenizer.build(train, min_count=settings.min_count)
    # Cross-attention is neither run nor saved, so that the width of its features does not matter.
    decoder = make_decoder(tokenizer, 1, settings.decoder)
    torch.nn.Module.to(decoder, best_device())
    history = _fit(decoder, tokenizer, train, val, settings, progress)
    sizes = {"train": len(train), "val": len(val), "test": len(test), "repeats_dropped": split.repeats}
    result = {
        **_held_out(decoder, tokenizer, test, settings),
        "perplexity_validation": history,
        "reports": sizes,
        "vocabulary": len(tokenizer),
        "settings": asdict(settings),
    }
    save_decoder(decoder, tokenizer, output)
    write_text(Path(output) / RESULT, json.dumps(result, indent=1))
    logger.info(
        "perplexity per word of %d held-out reports: %.2f as written, %.2f with shuffled words (mean of %d); "
        "decoder saved in %s",
        len(test),
        result["perplexity_real"],
        result["perplexity_shuffled"],
        settings.shuffles,
        output,
    )
    return result


def _cut(records: Sequence[TextRecord], max_words: int) -> list[str]:
    return [" ".join(record["report"].split()[:max_words]) for record in records]


def _held_out(
    decoder: BlipTextLMHeadModel, tokenizer: ReportTokenizer, test: list[str], settings: PretrainingSettings
) -> dict[str, Any]:
    shuffled = [
        perplexity(decoder, tokenizer, shuffle_words(test, settings.seed + k))
        for k in range(settings.shuffles)
    ]
    return {
        "perplexity_real": perplexity(decoder, tokenizer, test),
        "perplexity_shuffled": float(np.mean(shuffled)),
        "perplexity_shuffled_each": shuffled,
    }


def _fit(
    decoder: BlipTextLMHeadModel,
    tokenizer: ReportTokenizer,
    train: list[str],
    val: list[str],
    settings: PretrainingSettings,
    progress: bool,
) -> list[float]:
    """Train with early stopping, keep the best weights; validation perplexity of every epoch."""
    from tqdm import tqdm

    encoded = [[*tokenizer.encode(report), tokenizer.sep_id] for report in train]
    steps = -(-len(encoded) // settings.batch_size)
    optimizer = torch.optim.AdamW(
        decoder.parameters(), settings.learning_rate, weight_decay=settings.weight_decay
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, settings.learning_rate, total_steps=steps * settings.epochs, pct_start=0.1
    )
    rng = np.random.default_rng(settings.seed)
    history: list[float] = []
    best: dict[str, Any] = {}
    with tqdm(total=steps * settings.epochs, desc="decoder", ncols=110, disable=not progress) as bar:
        for epoch in range(settings.epochs):
            decoder.train()
            for tokens in batches(encoded, tokenizer.pad_id, settings.batch_size, rng, decoder.device):
                _step(decoder, tokenizer, tokens, optimizer)
                schedule.step()
                bar.update()
            history.append(perplexity(decoder, tokenizer, val))
            bar.set_postfix_str(f"epoch {epoch + 1}, validation perplexity {history[-1]:.2f}")
            logger.info("epoch %d: validation perplexity per word %.2f", epoch + 1, history[-1])
            if history[-1] == min(history):
                best = copy.deepcopy(decoder.state_dict())
            elif epoch - int(np.argmin(history)) >= settings.patience:
                break
    decoder.load_state_dict(best)
    return history


def _step(
    decoder: BlipTextLMHeadModel,
    tokenizer: ReportTokenizer,
    tokens: torch.Tensor,
    optimizer: torch.optim.Optimizer,
) -> None:
    said = said_alone(decoder, tokenizer, tokens)
    loss = language_loss(said, tokens, tokenizer.pad_id, label_smoothing=0.0)
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(decoder.parameters(), 1.0)
    optimizer.step()
