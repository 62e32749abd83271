"""kif_mrg: beam search against a BERT decoder of transformers; a training step with and without a teacher."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from kif_mrg import phantom
from kif_mrg.decoder import make_decoder
from kif_mrg.decoding import generate_reports, half_weights
from kif_mrg.text import ReportTokenizer
from kif_mrg.workflow import reporter_trainer
from medbundles.precision import native_bf16_cpu
from monai.bundle import ConfigParser
from torch import Tensor

from benchmarks.timing import Row, interleaved, print_rows

if TYPE_CHECKING:
    from transformers import BertLMHeadModel

CONFIG = Path(__file__).resolve().parents[1] / "bundles/kif_mrg/configs/train.json"
WIDTH, VOCABULARY, PATCHES, PROMPT, BEAMS = 768, 30_527, 49, 19, 3
NUMBERS: dict[str, Any] = {
    "hidden_size": WIDTH, "num_hidden_layers": 3, "num_attention_heads": 12, "intermediate_size": 3072,
}  # fmt: skip
TOKENS, TOKENS_UNCACHED = 40, 20  # without a cache the time per token grows with their number
NOISE = 0.05  # ratios of repeated runs on a busy machine differ by so much: "as fast" means no slower by more
BATCH = 16


def rows() -> list[Row]:
    """CPU time per token and per step; the gate of bf16 weights holds where the CPU multiplies bf16."""
    return [*_decoding(), _distillation()]


def _decoding() -> list[Row]:
    torch.manual_seed(0)
    tokenizer = _tokenizer()
    decoder = make_decoder(tokenizer, WIDTH, NUMBERS).eval()
    peer = _bert(tokenizer).eval()
    prompt, features = torch.full((1, PROMPT), tokenizer.dec_id), torch.randn(1, PATCHES, WIDTH)

    def ours(module: Any) -> Callable[[], object]:
        return lambda: generate_reports(module, tokenizer, prompt, features, BEAMS, TOKENS, TOKENS)

    candidates = {
        "ours": ours(decoder),
        "half": ours(half_weights(decoder)),
        "peer": lambda: _bert_search(peer, prompt, features, TOKENS, cached=True),
    }
    best = {name: total / TOKENS for name, total in interleaved(candidates, rounds=3).items()}
    uncached = interleaved(
        {"peer": lambda: _bert_search(peer, prompt, features, TOKENS_UNCACHED, cached=False)}, rounds=1
    )
    bf16 = native_bf16_cpu()
    title, reference = f"decoding, {BEAMS} beams, per token", "BERT decoder, cache"
    half = "bf16 weights" if bf16 else "bf16 weights (this CPU has no bf16 arithmetic: no gate)"
    fp32 = Row.speedup(f"{title}, fp32", best["ours"], reference, best["peer"], 1 - NOISE)
    return [
        replace(fp32, gate=f">= 1 - {NOISE:g} (noise)"),
        Row.speedup("the same", best["ours"], "BERT decoder, no cache", uncached["peer"] / TOKENS_UNCACHED),
        Row.speedup(f"{title}, {half}", best["half"], reference, best["peer"], 3.0 if bf16 else None),
    ]


def _tokenizer() -> ReportTokenizer:
    """A tokenizer of VOCABULARY tokens, most of them made up."""
    fixed = len(ReportTokenizer.build(["0"]))
    return ReportTokenizer.build([" ".join(f"word{i}" for i in range(VOCABULARY - fixed))])


def _bert(tokenizer: ReportTokenizer) -> BertLMHeadModel:
    from transformers import BertConfig, BertLMHeadModel

    config = BertConfig(
        vocab_size=len(tokenizer), is_decoder=True, add_cross_attention=True, bos_token_id=tokenizer.dec_id,
        eos_token_id=tokenizer.sep_id, pad_token_id=tokenizer.pad_id, **NUMBERS,
    )  # fmt: skip
    return BertLMHeadModel(config)


@torch.no_grad()
def _bert_search(bert: Any, prompt: Tensor, features: Tensor, tokens: int, cached: bool) -> Tensor:
    """The peer's beam search, of exactly `tokens` tokens like ours."""
    from transformers import DynamicCache, EncoderDecoderCache, GenerationConfig

    search = GenerationConfig(
        num_beams=BEAMS, max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False, use_cache=cached,
        eos_token_id=bert.config.eos_token_id, pad_token_id=bert.config.pad_token_id,
    )  # fmt: skip
    # Given none, `generate` makes a cache that BERT's cross-attention cannot use.
    cache = {"past_key_values": EncoderDecoderCache(DynamicCache(), DynamicCache())} if cached else {}
    seen = {"attention_mask": torch.ones_like(prompt), "encoder_hidden_states": features}
    return bert.generate(prompt, generation_config=search, **seen, **cache)


def _distillation() -> Row:
    """A step of train.json with the teacher of a later round, which has the student's size."""
    with tempfile.TemporaryDirectory() as folder:
        step = _step(Path(folder))
    best = interleaved({"ours": lambda: step(True), "plain": lambda: step(False)}, rounds=15)
    title = f"kif_mrg step with a teacher of the same size, batch {BATCH}"
    return Row.cost(title, best["ours"], "step without teacher", best["plain"], at_most=1.45)


def _step(folder: Path) -> Callable[[bool], None]:
    """`step(with_teacher)`: one step of the trainer of train.json on one batch of the simulated cohort."""
    cohort = phantom.simulated_cohort(sizes={"train": BATCH, "val": 1, "test": 0}, folder=folder / "cohort")
    phantom.ensure(cohort, progress=False)
    config = ConfigParser(ConfigParser.load_config_file(CONFIG))
    config.update({"dataset_dir": cohort, "ckpt_dir": str(folder / "models"), "batch_size": BATCH})
    config.get_parsed_content("memory").ensure()
    names = ("precision", "reporter", "loss", "prior", "optimizer")
    parts = {name: config.get_parsed_content(name) for name in names}
    batch = next(iter(config.get_parsed_content("train#dataloader")))
    trainer = reporter_trainer(
        parts["precision"], 1, [batch], parts["reporter"], parts["loss"], parts["prior"], parts["optimizer"]
    )
    teacher = copy.deepcopy(parts["reporter"])

    def step(with_teacher: bool) -> None:
        trainer.teachers = [teacher] if with_teacher else []
        trainer.state.epoch = trainer.state.iteration = 0
        trainer.run()  # type: ignore[call-arg]

    return step


if __name__ == "__main__":
    print_rows(rows())
