"""Projector, language model and LoRA of the report generator: how they are joined, trained and saved."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from rect_vlm.adapters import TRAINED, adapter_state, load_adapter, save_adapter, set_reference
from rect_vlm.findings import FINDINGS, LESIONS
from rect_vlm.llm import TARGETS, add_lora, load_llm
from rect_vlm.projector import VisualProjector
from rect_vlm.prompt import IGNORED, INSTRUCTION, Prompt, Rows

EVIDENCE = ("text", "embedding", "none")
Lines = Sequence[Sequence[str]]


class GeneratorParts(nn.Module):
    """Projector, language model and LoRA of a ReportGenerator, which is the class to use.

    Of the language model nothing but its LoRA is ever trained or saved.

    Args:
        llm: folder, hub id, "smollm2" or "tiny", see `load_llm`.
        embed_dim: E, width of the encoder.
        num_visual_tokens: M, tokens that the language model sees of the image.
        projector_layers: layers of the projector.
        projector_heads: its attention heads, a divisor of E.
        lora_r: rank of LoRA.
        lora_alpha: scale of LoRA times the rank.
        lora_targets: names of linear layers, or "all-linear".
        lora_dropout: before the update.
        evidence: "text" puts the lines of `evidence.describe` into the prompt; "embedding" gives one more
            visual token per lesion and needs lesion_weights beside the features, see `lesion_tokens`; "none".
        load_in_4bit: NF4 weights through bitsandbytes.
        instruction: last words of the prompt.
        max_evidence: most tokens of evidence lines.
        max_target: most tokens of a report in training.
        dtype: of the language model's weights, see `load_llm`.
        device: of the language model; the projector is made beside it.
        checkpointing: recompute the language model's activations in the backward pass.

    Raises:
        ImportError: the extra `text` is not installed, or bitsandbytes where 4-bit is asked for.
        ValueError: an unknown `evidence`, a folder that is no language model with its tokenizer, a LoRA
            target that it does not have.
    """

    def __init__(
        self,
        llm: str,
        embed_dim: int,
        num_visual_tokens: int = 256,
        projector_layers: int = 3,
        projector_heads: int = 12,
        lora_r: int = 64,
        lora_alpha: int = 128,
        lora_targets: Sequence[str] | str = TARGETS,
        lora_dropout: float = 0.05,
        evidence: str = "text",
        load_in_4bit: bool = False,
        instruction: str = INSTRUCTION,
        max_evidence: int = 256,
        max_target: int = 512,
        dtype: torch.dtype | str | None = None,
        device: torch.device | str | None = None,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        if evidence not in EVIDENCE:
            raise ValueError(f"evidence must be one of {EVIDENCE}, got {evidence!r}")
        model, self.tokenizer = load_llm(llm, load_in_4bit, dtype, device, checkpointing)
        self.llm = add_lora(model, lora_r, lora_alpha, lora_targets, lora_dropout)
        self.evidence = evidence
        words = self.llm.get_input_embeddings().weight
        self.projector = VisualProjector(
            embed_dim,
            words.shape[1],
            num_visual_tokens,
            projector_layers,
            projector_heads,
            lesion_tokens=len(LESIONS) if evidence == "embedding" else 0,
        ).to(words.device)
        self.prompt = Prompt(self.tokenizer, self.projector.num_tokens, instruction, max_evidence, max_target)
        self.projector.start_scale(self._word_scale(instruction))

    def set_reference(self) -> None:
        """Keep the LoRA weights as they are now as the frozen adapter "reference"."""
        set_reference(self.llm)

    def parameters_by_part(self) -> dict[str, list[nn.Parameter]]:
        """What training may change, as `projector` and `lora`; a reference is not among them."""
        lora = [weight for name, weight in self.llm.named_parameters() if f".{TRAINED}." in name]
        return {"projector": list(self.projector.parameters()), "lora": lora}

    def adapter_state(self) -> dict[str, Tensor]:
        """The trained LoRA weights by peft's names."""
        return adapter_state(self.llm)

    def save_adapter(self, folder: str | Path) -> Path:
        """Write the LoRA weights as peft does."""
        return save_adapter(self.llm, folder)

    def load_adapter(self, folder: str | Path) -> None:
        """Load LoRA weights that peft wrote; ValueError when they are of another model or rank."""
        load_adapter(self.llm, folder)

    def trainable_state(self) -> dict[str, Tensor]:
        """All that training can change, live: `projector.*` and `lora.*`; nothing of the language model."""
        state = {f"projector.{key}": value for key, value in self.projector.state_dict().items()}
        return state | {f"lora.{key}": value for key, value in self.adapter_state().items()}

    def _lines(self, evidence: Lines) -> Lines:
        return evidence if self.evidence == "text" else [() for _ in evidence]

    def _inputs(self, rows: Rows, visual: Tensor) -> dict[str, Tensor]:
        embedding = self.llm.get_input_embeddings()
        device = embedding.weight.device
        words = embedding(rows.ids.to(device))  # (B, T, L)
        places = rows.visual.to(device).unsqueeze(2)
        return {
            "inputs_embeds": words.masked_scatter(places, visual.to(words)),
            "attention_mask": rows.mask.to(device),
            "position_ids": rows.positions.to(device),
        }

    def _predicted(self, rows: Rows, visual: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (B, S, V) in float32 and labels (B, S) of the places where a report is."""
        length = rows.ids.shape[1]
        self._check_length(length)
        first = int((rows.labels != IGNORED).any(0).nonzero()[0])
        # Every place but the last predicts the next token; the vocabulary is the widest layer of all.
        kept = length - first + 1
        out = self.llm(**self._inputs(rows, visual), logits_to_keep=kept, use_cache=False)
        logits = out.logits[:, -kept:-1].float()
        return logits, rows.labels[:, first:].to(logits.device)

    def _check_length(self, length: int) -> None:
        limit = getattr(self.llm.config.get_text_config(), "max_position_embeddings", None)
        if limit is not None and length > limit:
            raise ValueError(f"prompt and report must fit the {limit} tokens of the model, got {length}")

    @torch.no_grad()
    def _word_scale(self, instruction: str) -> float:
        """Standard deviation of what the embedding gives for words like those it stands beside."""
        ids = self.prompt.encode(f"{instruction} {', '.join(FINDINGS)}")
        embedding = self.llm.get_input_embeddings()
        return float(embedding(torch.tensor(ids, device=embedding.weight.device)).float().std())
