"""The report generator: a language model that reads visual tokens and evidence, and writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple, overload

import torch
from torch import Tensor
from torch.nn import functional as F

from rect_vlm.adapters import TRAINED, adapter_in_use
from rect_vlm.eval_mode import dropout_off
from rect_vlm.generator_parts import GeneratorParts, Lines
from rect_vlm.prompt import IGNORED


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


class ReportGenerator(GeneratorParts):
    """Learns to write reports, tells the log-probabilities of tokens, and writes.

    Its arguments and the errors of making it are those of `GeneratorParts`.
    """

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


def up_to_end(tokens: Tensor, end: int) -> Tensor:
    """Mask (B, T) that is True up to and with the first `end` of every row of tokens (B, T)."""
    ended = tokens == end
    return ended.cumsum(1) - ended.long() == 0
