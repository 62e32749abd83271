"""A tiny language model made on the spot: a random Llama taught to write like the given texts, text alone."""

from __future__ import annotations

import hashlib
import json
import logging
import random
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from medbundles.samples import cache_dir
from medbundles.text import require_text_extra
from torch.nn.utils.rnn import pad_sequence

from rect_vlm.evidence import TAG
from rect_vlm.findings import FINDINGS
from rect_vlm.made_folder import make_once
from rect_vlm.prompt import IGNORED, INSTRUCTION

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

logger = logging.getLogger(__name__)

PAD, BOS, EOS = "<pad>", "<s>", "</s>"
VOCABULARY = 1024
SHAPE: dict[str, Any] = {
    "hidden_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 256,
    "max_position_embeddings": 2048,
    "tie_word_embeddings": True,
    "initializer_range": 0.05,
}
ROWS, LENGTH = 8, 384  # of a training step
LEARNING_RATE = 3e-3
IMPRESSION = "IMPRESSION:"
VERSION = 2  # of this recipe: a model in the cache made by another version is not used


def tiny_llm(
    texts: Sequence[str] | None = None,
    folder: str | Path | None = None,
    seed: int = 0,
    steps: int = 1000,
    progress: bool = True,
) -> Path:
    """Return the folder of a tiny causal language model, made on first use in two minutes of CPU.

    Its byte-level BPE and its weights (0.4 million) know the texts and nothing else. What a real language
    model brings along, to write and to say what the prompt tells it, has to be taught to this one, or
    training on images would have to teach it: half of the texts come behind lines made of their own
    impression. The same texts, seed and steps give the same model.

    Args:
        texts: reports to learn from; default made-up sentences about the 18 findings.
        folder: where models are kept, each in a folder of its own; default below the cache folder.
        seed: of the weights and of the order of the texts.
        steps: training steps of 8 texts.
        progress: show a bar.

    Raises:
        ImportError: the extra `text` is not installed.
        ValueError: no text, or steps < 1.
    """
    texts = made_up_reports() if texts is None else [text for text in texts if text.strip()]
    if not texts or steps < 1:
        raise ValueError(f"a language model needs texts and steps >= 1, got {len(texts)} texts, {steps=}")
    store = Path(folder) if folder else cache_dir() / "rect_vlm"
    numbers = [VERSION, SHAPE, VOCABULARY, ROWS, LENGTH, LEARNING_RATE, seed, steps]
    recipe = json.dumps([numbers, list(texts)])
    target = store / f"llm_tiny-{hashlib.sha256(recipe.encode()).hexdigest()[:12]}"
    if target.is_dir():
        return target
    require_text_extra()
    logger.info("teaching a tiny language model %d texts in %s", len(texts), target)

    def write(folder: Path) -> None:
        draw = random.Random(seed)
        tokenizer = _tokenizer([*texts, *(told(text, draw) for text in texts)])
        tokenizer.save_pretrained(folder)
        _taught(tokenizer, texts, seed, steps, progress).save_pretrained(folder)

    return make_once(target, write)


def made_up_reports(count: int = 256, seed: int = 0) -> list[str]:
    """Reports in the two sections of CT-RATE that say of every finding whether it was observed."""
    draw = random.Random(seed)
    reports = []
    for _ in range(count):
        present = [finding for finding in FINDINGS if draw.random() < 0.2]
        lines = [f"{name} was {'' if name in present else 'not '}observed." for name in FINDINGS]
        draw.shuffle(lines)
        impression = ", ".join(present) or "No finding"
        reports.append(f"FINDINGS:\n{' '.join(lines)}\n\nIMPRESSION:\n{impression}.")
    return reports


def told(report: str, draw: random.Random) -> str:
    """A report behind lines with the sentences of its impression, shuffled, as a prompt shows evidence."""
    impression = report.partition(IMPRESSION)[2].strip()
    lines = [f"{TAG} {line.strip('. ')}" for line in impression.split(". ") if line.strip(". ")]
    draw.shuffle(lines)
    return "\n".join(["", *lines, INSTRUCTION, report])


def _tokenizer(texts: Sequence[str]) -> PreTrainedTokenizerFast:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[PAD, BOS, EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),  # any text can be written
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=bpe, pad_token=PAD, bos_token=BOS, eos_token=EOS)


def _taught(
    tokenizer: PreTrainedTokenizerFast, texts: Sequence[str], seed: int, steps: int, progress: bool
) -> LlamaForCausalLM:
    """Train on whole texts, every other one behind its own impression."""
    from tqdm import tqdm
    from transformers import LlamaConfig, LlamaForCausalLM

    first, last, pad = tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id
    draw = random.Random(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer), bos_token_id=first, eos_token_id=last, pad_token_id=pad, **SHAPE
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config).train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.01)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps + 1)
        for _ in tqdm(range(steps), desc="tiny language model", ncols=110, disable=not progress):
            chosen = draw.choices(texts, k=ROWS)
            shown = [told(text, draw) if row % 2 else text for row, text in enumerate(chosen)]
            rows = [torch.tensor([first, *tokenizer.encode(text), last][:LENGTH]) for text in shown]
            ids = pad_sequence(rows, batch_first=True, padding_value=pad)
            labels = pad_sequence(rows, batch_first=True, padding_value=IGNORED)
            loss = model(input_ids=ids, attention_mask=(labels != IGNORED).long(), labels=labels).loss
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
    logger.info("the tiny language model knows its texts at %.2f nats per token", loss.item())
    return model.eval()
