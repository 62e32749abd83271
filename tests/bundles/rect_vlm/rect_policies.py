"""Small policies for group-relative optimisation: a table of word pairs, a small Llama with LoRA."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from rect_features import features
from rect_vlm.adapters import REFERENCE, TRAINED, adapter_in_use, set_reference
from rect_vlm.generator import ReportGenerator, up_to_end
from rect_vlm.grpo_policy import Rollout
from rect_vlm.tiny_llm import made_up_reports, tiny_llm
from torch import Tensor, nn

PAD, BEGIN, END = 0, 1, 2
WORDS = 24


def spoken(tokens: Tensor) -> list[str]:
    """Word n of the vocabulary is "w<n>"; what follows the end is not said."""
    masks = up_to_end(tokens, END) & (tokens != END)
    return [
        " ".join(f"w{token}" for token in row[mask].tolist()) for row, mask in zip(tokens, masks, strict=True)
    ]


def rollout_of(tokens: Tensor) -> Rollout:
    return Rollout(tokens, up_to_end(tokens, END), (tokens == END).any(1), spoken(tokens))


def word_reward(
    texts: Sequence[str],
    references: Sequence[str],
    log_probs: Tensor,
    ended: Tensor,
    labels: Tensor | None = None,
) -> dict[str, Tensor]:
    """1 for a text with its reference in it."""
    word = torch.tensor([float(ref in text.split()) for text, ref in zip(texts, references, strict=True)])
    return {"word": word, "short": 1.0 / (1 + ended.float()), "total": word}


class BigramPolicy:
    """Every word follows from the one before: logits (V, V). The prompt is the first word of every study."""

    def __init__(self) -> None:
        self.logits = nn.Parameter(torch.randn(WORDS, WORDS, generator=torch.Generator().manual_seed(1)))
        self.start = self.logits.detach().clone()
        self.replay: Tensor | None = None  # tokens that sample returns instead of new ones

    def trainable(self) -> dict[str, nn.Parameter]:
        return {"logits": self.logits}

    def sample(self, prompt: Tensor, group: int, max_tokens: int) -> Rollout:
        if self.replay is not None:
            return rollout_of(self.replay)
        words = [prompt.repeat_interleave(group)]
        for _ in range(max_tokens):
            chances = self.logits.detach()[words[-1]].softmax(-1)
            words.append(torch.multinomial(chances, 1)[:, 0])
        return rollout_of(torch.stack(words[1:], dim=1))

    def log_probs(self, prompt: Tensor, rollout: Rollout, reference: bool = False) -> Tensor:
        first = prompt.repeat_interleave(len(rollout.tokens) // len(prompt))
        before = torch.cat([first[:, None], rollout.tokens[:, :-1]], dim=1)
        table = self.start if reference else self.logits
        return table[before].log_softmax(-1).gather(2, rollout.tokens[:, :, None])[:, :, 0]


class LlamaPolicy:
    """A causal language model of transformers with LoRA; its prompt is token ids (P, L)."""

    def __init__(self, model: Any) -> None:
        self.model = model.eval()
        set_reference(model)

    def trainable(self) -> dict[str, nn.Parameter]:
        return {name: weight for name, weight in self.model.named_parameters() if f".{TRAINED}." in name}

    @torch.no_grad()
    def sample(self, prompt: Tensor, group: int, max_tokens: int) -> Rollout:
        rows = prompt.repeat_interleave(group, dim=0)
        tokens = self.model.generate(
            input_ids=rows, attention_mask=torch.ones_like(rows), max_new_tokens=max_tokens,
            do_sample=True, temperature=1.0, top_p=1.0, top_k=0, eos_token_id=END, pad_token_id=PAD,
        )  # fmt: skip
        return rollout_of(tokens[:, prompt.shape[1] :])

    def log_probs(self, prompt: Tensor, rollout: Rollout, reference: bool = False) -> Tensor:
        rows = prompt.repeat_interleave(len(rollout.tokens) // len(prompt), dim=0)
        with adapter_in_use(self.model, REFERENCE) if reference else nullcontext():
            logits = self.model(input_ids=torch.cat([rows, rollout.tokens], dim=1), use_cache=False).logits
        said = logits[:, rows.shape[1] - 1 : -1].log_softmax(-1)
        return said.gather(2, rollout.tokens[:, :, None])[:, :, 0]


def tiny_llama() -> Any:
    """A random Llama with LoRA that is not zero, as after an earlier phase; its logits are far from flat."""
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=WORDS, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=32, initializer_range=0.2, eos_token_id=END,
        pad_token_id=PAD, bos_token_id=BEGIN,
    )  # fmt: skip
    targets = ["q_proj", "v_proj", "o_proj"]
    lora = LoraConfig(r=4, lora_alpha=8, target_modules=targets, task_type="CAUSAL_LM")
    model = get_peft_model(LlamaForCausalLM(config), lora)
    fill_lora(model)
    return model


def tiny_generator(folder: Path, **options: Any) -> ReportGenerator:
    """A report generator with a language model that has seen its words once, and LoRA that is not zero."""
    torch.manual_seed(0)
    source = tiny_llm(made_up_reports(8), folder, steps=1, progress=False)
    sizes = {
        "num_visual_tokens": 4,
        "projector_layers": 1,
        "projector_heads": 2,
        "lora_r": 4,
        "lora_alpha": 8,
    }
    generator = ReportGenerator(str(source), embed_dim=8, **(sizes | options))
    fill_lora(generator.llm)
    return generator


def generator_prompt() -> tuple[dict[str, Tensor], list[list[str]]]:
    """Features and evidence of two studies."""
    return features(2, 8, (2, 2, 2)), [["[FINDING] Emphysema (classifier)"], []]


@torch.no_grad()
def fill_lora(model: nn.Module) -> None:
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.normal_(std=0.1)
