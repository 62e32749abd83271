"""What the language model reads, as token ids: template, image, evidence, instruction, and the report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

INSTRUCTION = "Generate a clinical radiology report based on the CT scan findings:"
SENTINEL = "CONTENT-OF-THE-USER"  # split out again of the rendered template
IGNORED = -100  # a label that no loss counts


@dataclass(frozen=True)
class Rows:
    """A batch of token sequences with room for the visual tokens.

    Attributes:
        ids: (B, T) token ids; those at visual places mean nothing.
        visual: (B, T) bool, True where a visual token goes, M in each row.
        mask: (B, T) long, 0 for padding.
        positions: (B, T) long, counted from the first token that is no padding.
        labels: (B, T) long, the id itself in the report and -100 elsewhere.
    """

    ids: Tensor
    visual: Tensor
    mask: Tensor
    positions: Tensor
    labels: Tensor


class Prompt:
    """Puts rows together as `[template, image, evidence, instruction, template, report, end]`.

    The template of a chat model is rendered once and split around the content; a plain model gets its first
    token and, after the instruction, a line break. Evidence that does not fit loses whole lines from its end;
    the instruction stays.

    Args:
        tokenizer: of the language model.
        num_visual: M, visual tokens per row.
        instruction: what is asked for.
        max_evidence: most tokens of evidence.
        max_target: most tokens of a report with its end; a longer one is cut and then has no end, so that no
            model learns to stop there.

    Raises:
        ValueError: max_target < 2 or max_evidence < 0; a chat template that does not show the content once.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        num_visual: int,
        instruction: str = INSTRUCTION,
        max_evidence: int = 256,
        max_target: int = 512,
    ) -> None:
        if max_target < 2 or max_evidence < 0:
            raise ValueError(
                f"max_target >= 2 and max_evidence >= 0 required, got {max_target=} {max_evidence=}"
            )
        self._tokenizer = tokenizer
        self.num_visual, self.max_evidence, self.max_target = num_visual, max_evidence, max_target
        self.eos, self.pad = int(tokenizer.eos_token_id), int(tokenizer.pad_token_id)
        before, after = _template(tokenizer)
        self.before = self.encode(before)
        self.after = self.encode(f"\n{instruction}{after}")

    def encode(self, text: str) -> list[int]:
        """Ids of a text; special tokens only where the text spells them."""
        return list(self._tokenizer.encode(text, add_special_tokens=False)) if text else []

    def training_rows(self, evidence: Sequence[Sequence[str]], reports: Sequence[str]) -> Rows:
        """Rows with their reports as labels, padded on the right."""
        targets = [[*self.encode(report.strip()), self.eos][: self.max_target] for report in reports]
        return self._rows(evidence, targets, pad_left=False)

    def generation_rows(self, evidence: Sequence[Sequence[str]]) -> Rows:
        """Rows that end where a report begins, padded on the left."""
        return self._rows(evidence, [[] for _ in evidence], pad_left=True)

    def scored_rows(self, evidence: Sequence[Sequence[str]], tokens: Tensor, mask: Tensor) -> Rows:
        """Rows with given tokens (B, T) as reports, each up to the end of its mask, padded on the right."""
        lengths = mask.long().sum(1).tolist()
        targets = [row[:length] for row, length in zip(tokens.tolist(), lengths, strict=True)]
        return self._rows(evidence, targets, pad_left=False)

    def _evidence(self, lines: Sequence[str]) -> list[int]:
        ids: list[int] = []
        for line in lines:
            more = self.encode(f"\n{line}")
            if len(ids) + len(more) > self.max_evidence:
                break
            ids += more
        return ids

    def _rows(self, evidence: Sequence[Sequence[str]], targets: Sequence[list[int]], pad_left: bool) -> Rows:
        image = [self.pad] * self.num_visual
        heads = [[*self.before, *image, *self._evidence(lines), *self.after] for lines in evidence]
        pairs = list(zip(heads, targets, strict=True))
        width = max(len(head) + len(target) for head, target in pairs)
        start = len(self.before)

        def stack(fill: int, row_of: Callable[[list[int], list[int]], list[int]]) -> Tensor:
            rows = []
            for head, target in pairs:
                row = row_of(head, target)
                padding = [fill] * (width - len(row))
                rows.append(padding + row if pad_left else row + padding)
            return torch.tensor(rows, dtype=torch.long)

        mask = stack(0, lambda head, target: [1] * (len(head) + len(target)))
        return Rows(
            ids=stack(self.pad, lambda head, target: head + target),
            visual=stack(
                0,
                lambda head, target: [
                    int(start <= i < start + self.num_visual) for i in range(len(head) + len(target))
                ],
            ).bool(),
            mask=mask,
            positions=(mask.cumsum(1) - 1).clamp_min(0),
            labels=stack(IGNORED, lambda head, target: [IGNORED] * len(head) + target),
        )


def _template(tokenizer: PreTrainedTokenizerBase) -> tuple[str, str]:
    """What stands before the user's content and after it, up to where the answer begins."""
    if not getattr(tokenizer, "chat_template", None):
        return tokenizer.bos_token or "", "\n"
    asked = [{"role": "user", "content": SENTINEL}]
    rendered = str(tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True))
    parts = rendered.split(SENTINEL)
    if len(parts) != 2:
        raise ValueError(
            f"the chat template must show the user's content once, got it {len(parts) - 1} times "
            f"in the template of {tokenizer.name_or_path}"
        )
    return parts[0], parts[1]
