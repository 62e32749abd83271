"""The report generator: a language model that reads visual tokens and evidence, and writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, overload

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rect_vlm.adapters import (
    TRAINED,
    adapter_in_use,
    adapter_state,
    load_adapter,
    save_adapter,
    set_reference,
)
from rect_vlm.eval_mode import dropout_off
from rect_vlm.findings import FINDINGS, LESIONS
from rect_vlm.llm import TARGETS, add_lora, load_llm
from rect_vlm.projector import VisualProjector
from rect_vlm.prompt import IGNORED, INSTRUCTION, Prompt, Rows

EVIDENCE = ("text", "embedding", "none")
Lines = Sequence[Sequence[str]]


class Written(NamedTuple):
    """Reports of one call, the samples of one study in a row.

    Attributes:
        texts: (B * num_return) reports without special tokens.
        tokens: (B * num_return, T) their ids.
        mask: (B * num_return, T) bool, True up to and with the end token, False behind it.
    """

    texts: list[str]
    tokens: Tensor
    mask: Tensor


class ReportGenerator(nn.Module):
    """Projector, language model and LoRA; of the language model nothing else is ever trained or saved.

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

    def loss(
        self, vision: Mapping[str, Tensor], evidence: Lines, reports: Sequence[str]
    ) -> dict[str, Tensor]:
        """Mean cross-entropy of the tokens of all reports, as `gen`; a study without a report has no part.

        Args:
            vision: output of the encoder for B studies.
            evidence: lines of each study.
            reports: text of each study, "" where there is none.

        Raises:
            ValueError: prompt and report are longer than the language model reads.
        """
        written = [i for i, report in enumerate(reports) if report.strip()]
        if not written:
            # A term of every weight, so that no process of a parallel run waits for a gradient.
            weights = [weight for weight in self.parameters() if weight.requires_grad]
            return {"gen": sum((weight.sum() * 0.0 for weight in weights), torch.zeros(()))}
        chosen = {name: value[written] for name, value in vision.items()}
        rows = self.prompt.training_rows(
            self._lines([evidence[i] for i in written]), [reports[i] for i in written]
        )
        logits, labels = self._predicted(rows, self.projector(chosen))
        return {"gen": F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED)}

    def log_probs(
        self,
        vision: Mapping[str, Tensor],
        evidence: Lines,
        tokens: Tensor,
        mask: Tensor,
        adapter: str = TRAINED,
    ) -> Tensor:
        """Log-probability of every given token at temperature 1, dropout off (see `dropout_off`).

        Args:
            vision: output of the encoder for B studies.
            evidence: lines of each of the B studies.
            tokens: (B * G, T) ids, the G samples of a study in a row, as `generate` returns them.
            mask: (B * G, T), True up to and with the end token.
            adapter: "default", the one that is trained, or "reference", frozen, see `set_reference`.

        Returns:
            (B * G, T), zero where the mask is False.

        Raises:
            ValueError: tokens that are no multiple of the studies, an adapter that there is not, prompt and
                tokens longer than the language model reads.
        """
        group, rest = divmod(len(tokens), len(evidence))
        if rest:
            raise ValueError(f"tokens must be a multiple of the {len(evidence)} studies, got {len(tokens)}")
        lines = [each for each in self._lines(evidence) for _ in range(group)]
        rows = self.prompt.scored_rows(lines, tokens, mask)
        with dropout_off(self, checkpointing=True), adapter_in_use(self.llm, adapter):
            logits, labels = self._predicted(rows, self.projector(vision).repeat_interleave(group, 0))
        said = -F.cross_entropy(logits.transpose(1, 2), labels, ignore_index=IGNORED, reduction="none")
        scored = torch.zeros(tokens.shape, dtype=said.dtype, device=said.device)
        # Both go row by row, and a row has as many labels as its mask has tokens.
        return scored.masked_scatter(mask.bool().to(said.device), said[labels != IGNORED])

    @overload
    def generate(
        self, vision: Mapping[str, Tensor], evidence: Lines, max_new_tokens: int = ..., do_sample: bool = ...,
        temperature: float = ..., top_p: float = ..., num_return: int = ...,
        return_tokens: Literal[False] = ...,
    ) -> list[str]: ...  # fmt: skip

    @overload
    def generate(
        self, vision: Mapping[str, Tensor], evidence: Lines, max_new_tokens: int = ..., do_sample: bool = ...,
        temperature: float = ..., top_p: float = ..., num_return: int = ...,
        *, return_tokens: Literal[True],
    ) -> Written: ...  # fmt: skip

    @torch.no_grad()
    def generate(
        self,
        vision: Mapping[str, Tensor],
        evidence: Lines,
        max_new_tokens: int = 512,
        do_sample: bool = True,
        temperature: float = 0.7,
        top_p: float = 0.9,
        num_return: int = 1,
        return_tokens: bool = False,
    ) -> list[str] | Written:
        """Write reports, dropout off.

        Args:
            vision: output of the encoder for B studies.
            evidence: lines of each study.
            max_new_tokens: longest report.
            do_sample: draw tokens; False takes the likeliest each time.
            temperature: of the draw.
            top_p: share of the probability that is drawn from; 1 is all of it, as GRPO needs.
            num_return: reports per study, in a row.
            return_tokens: return `Written` with ids and mask instead of the texts alone.

        Raises:
            ValueError: more than one report without sampling, a temperature that is not positive, or prompt
                and report longer than the language model reads.
        """
        from transformers import GenerationConfig

        if (num_return > 1 and not do_sample) or (do_sample and temperature <= 0):
            raise ValueError(f"sample, with temperature > 0, got {do_sample=} {num_return=} {temperature=}")
        drawn = {"temperature": temperature, "top_p": top_p, "top_k": 0} if do_sample else {}
        search = GenerationConfig(
            max_new_tokens=max_new_tokens,
            do_sample=do_sample,
            num_return_sequences=num_return,
            eos_token_id=self.prompt.eos,
            pad_token_id=self.prompt.pad,
            **drawn,
        )
        with dropout_off(self):
            inputs = self._inputs(self.prompt.generation_rows(self._lines(evidence)), self.projector(vision))
            self._check_length(inputs["attention_mask"].shape[1] + max_new_tokens)
            tokens = self.llm.generate(**inputs, generation_config=search)
        texts = [text.strip() for text in self.tokenizer.batch_decode(tokens, skip_special_tokens=True)]
        return Written(texts, tokens, up_to_end(tokens, self.prompt.eos)) if return_tokens else texts

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


def up_to_end(tokens: Tensor, end: int) -> Tensor:
    """Mask (B, T) that is True up to and with the first `end` of every row of tokens (B, T)."""
    ended = tokens == end
    return ended.cumsum(1) - ended.long() == 0
