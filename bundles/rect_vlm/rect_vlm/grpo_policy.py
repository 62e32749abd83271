"""What group-relative policy optimisation asks of a policy, and a report generator as one.

P studies, G reports of each, T tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from rect_vlm.adapters import REFERENCE, TRAINED

if TYPE_CHECKING:
    from rect_vlm.generator import ReportGenerator


@dataclass(frozen=True)
class Studies:
    """A batch of P studies to write about.

    Args:
        prompt: what the policy speaks about, in the policy's own form.
        references: their reports.
        labels: their true labels (P, 18), -1 = unknown.
    """

    prompt: Any
    references: list[str]
    labels: Tensor | None = None


@dataclass(frozen=True)
class Rollout:
    """P G sampled reports, those of one study side by side.

    Args:
        tokens: sampled tokens (P G, T).
        mask: (P G, T) bool, true up to and including the end token.
        ended: (P G,) bool, whether there is an end token.
        texts: the reports.
    """

    tokens: Tensor
    mask: Tensor
    ended: Tensor
    texts: list[str]


class Policy(Protocol):
    """A language model that writes, and tells the log-probabilities of what was written.

    Both use one distribution: that of the bare logits, without temperature, top-p or top-k, without dropout.
    """

    def trainable(self) -> dict[str, nn.Parameter]:
        """What is optimised, by name."""

    def sample(self, prompt: Any, group: int, max_tokens: int) -> Rollout:
        """`group` reports for each study of a prompt, of at most `max_tokens` tokens."""

    def log_probs(self, prompt: Any, rollout: Rollout, reference: bool = False) -> Tensor:
        """Log-probabilities (P G, T) of sampled tokens, with gradients where they are enabled.

        With `reference` those of the policy as it was before the optimisation.
        """


class GeneratorPolicy:
    """A report generator whose LoRA is optimised; projector and language model stay as they are.

    Its prompt is the pair (features of the vision encoder, evidence lines of every study). The reference is
    the generator as it is now, with its LoRA: a copy of the adapter that `close` takes away again. Until then
    the generator is in evaluation mode.

    Args:
        generator: with its LoRA from the earlier phases.
    """

    def __init__(self, generator: ReportGenerator) -> None:
        self.generator = generator
        generator.requires_grad_(False).eval()
        generator.set_reference()

    def trainable(self) -> dict[str, nn.Parameter]:
        """LoRA of the policy, without that of the reference."""
        return {
            name: weight for name, weight in self.generator.llm.named_parameters() if f".{TRAINED}." in name
        }

    def sample(self, prompt: Any, group: int, max_tokens: int) -> Rollout:
        """`group` reports for each study of a prompt, of at most `max_tokens` tokens."""
        vision, evidence = prompt
        written = self.generator.generate(
            vision,
            evidence,
            max_new_tokens=max_tokens,
            do_sample=True,
            temperature=1.0,
            top_p=1.0,
            num_return=group,
            return_tokens=True,
        )
        ended = (written.tokens == self.generator.prompt.eos).any(1)
        return Rollout(written.tokens, written.mask, ended, written.texts)

    def log_probs(self, prompt: Any, rollout: Rollout, reference: bool = False) -> Tensor:
        """Log-probabilities (P G, T) of sampled tokens, of the policy or the reference; see Policy."""
        self._recompute_without_dropout()
        adapter = REFERENCE if reference else TRAINED
        with torch.set_grad_enabled(torch.is_grad_enabled() and not reference):
            vision, evidence = prompt
            return self.generator.log_probs(vision, evidence, rollout.tokens, rollout.mask, adapter)

    def close(self) -> None:
        """Take the reference away; the generator keeps the LoRA it has learnt."""
        self.generator.llm.delete_adapter(REFERENCE)
        self.generator.eval()

    def _recompute_without_dropout(self) -> None:
        """Put everything in evaluation mode for good, but the layers that recompute their activations.

        Transformers recomputes in training mode alone. It does so in the backward pass, when the call that
        made the log-probabilities has returned: what is inside such a layer must then be without dropout.
        """
        for part in self.generator.modules():
            part.training = bool(getattr(part, "gradient_checkpointing", False))
