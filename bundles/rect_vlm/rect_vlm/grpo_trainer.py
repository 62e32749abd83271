"""Group-relative policy optimisation of a report generator (Shao et al. 2024, arXiv 2402.03300)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import ignite.distributed as idist
import torch
from torch import Tensor

from rect_vlm.grpo import group_advantages, grpo_loss
from rect_vlm.grpo_policy import Policy, Rollout, Studies
from rect_vlm.rewards import Reward, reward_log

logger = logging.getLogger(__name__)

Log = dict[str, float]


@dataclass(frozen=True)
class _Group:
    """Sampled reports of a batch with all that is known of them before the policy moves."""

    studies: Studies
    rollout: Rollout
    reference: Tensor  # log-probabilities (P G, T) under the reference
    old: Tensor | None  # under the policy that sampled; None where that is the policy of the only update
    advantages: Tensor  # (P G,)
    rewards: dict[str, Tensor]  # (P G,) each


class GrpoTrainer:
    """Samples a group of reports per study, rewards them, and moves the policy towards the better ones.

    Args:
        policy: what is optimised.
        reward: of a report against its reference.
        lr: learning rate of AdamW.
        group: reports per study.
        max_tokens: longest report.
        clip: half-width of the ratios that still earn.
        beta: weight of the divergence from the reference.
        inner_steps: updates per set of samples.
        max_norm: largest norm of the gradient.
        weight_decay: of AdamW.

    Raises:
        ValueError: a group below 2, fewer than one inner step, a policy without trainable parameters.
    """

    def __init__(
        self,
        policy: Policy,
        reward: Reward,
        lr: float = 5e-6,
        group: int = 4,
        max_tokens: int = 512,
        clip: float = 0.2,
        beta: float = 0.04,
        inner_steps: int = 1,
        max_norm: float = 1.0,
        weight_decay: float = 0.01,
    ) -> None:
        if group < 2 or inner_steps < 1:
            raise ValueError(f"group must be >= 2 and inner_steps >= 1, got {group=}, {inner_steps=}")
        self.policy, self.reward = policy, reward
        self.group, self.max_tokens, self.clip, self.beta = group, max_tokens, clip, beta
        self.inner_steps, self.max_norm = inner_steps, max_norm
        self.parameters = policy.trainable()
        if not self.parameters:
            raise ValueError("the policy has nothing to train: it needs LoRA or another trainable part")
        for parameter in self.parameters.values():
            parameter.requires_grad_(True)
        self.optimizer = torch.optim.AdamW(self.parameters.values(), lr=lr, weight_decay=weight_decay)
        self.steps = 0

    def train(
        self,
        batches: Iterable[Studies],
        steps: int,
        accumulate: int = 1,
        on_step: Callable[[int, Log], None] | None = None,
    ) -> list[Log]:
        """Take `steps` steps of `accumulate` batches each; batches are gone through again when they end.

        Args:
            batches: studies; must be able to start anew, as a data loader does.
            steps: number of updates of the samples.
            accumulate: batches per step.
            on_step: told the number of the step and its log.

        Raises:
            ValueError: no batches.
        """
        from tqdm import trange

        source, logs = _endless(batches), []
        bar = trange(steps, desc="GRPO", unit="step", disable=None if idist.get_rank() == 0 else True)
        for _ in bar:
            logs.append(self.step(list(islice(source, accumulate))))
            bar.set_postfix(reward=f"{logs[-1]['reward']:.3f}", kl=f"{logs[-1]['kl']:.4f}")
            if on_step is not None:
                on_step(self.steps, logs[-1])
        return logs

    def step(self, batches: Sequence[Studies]) -> Log:
        """One set of samples and its updates; every component of the reward and what the update did.

        Over several processes tokens and gradients are summed: the normaliser is that of all their reports.
        """
        groups = [self._collect(studies) for studies in batches]
        tokens = torch.stack([group.rollout.mask.sum() for group in groups]).sum().float()
        total = _summed(tokens).clamp(min=1)
        for _ in range(self.inner_steps):
            update = self._update(groups, total)
        self.steps += 1
        return {**reward_log([group.rewards for group in groups], self.group), **update, **_lengths(groups)}

    def evaluate(self, batches: Iterable[Studies]) -> Log:
        """Mean rewards of sampled reports, without an update; those of this process alone.

        Raises:
            ValueError: no batches.
        """
        groups = [self._collect(studies) for studies in batches]
        if not groups:
            raise ValueError("rewards need at least one batch of studies, got none")
        return {**reward_log([group.rewards for group in groups], self.group), **_lengths(groups)}

    def state_dict(self) -> dict[str, Any]:
        """Steps, optimizer and trained weights. The reference is not in it: it is the start of the phase."""
        weights = {name: parameter.detach().clone() for name, parameter in self.parameters.items()}
        return {"steps": self.steps, "optimizer": self.optimizer.state_dict(), "weights": weights}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state; the policy must have been made from the weights the phase began with.

        Raises:
            ValueError: weights of another policy.
        """
        if set(state["weights"]) != set(self.parameters):
            other = sorted(set(state["weights"]) ^ set(self.parameters))
            raise ValueError(f"the state must hold the weights of this policy, these differ: {other[:5]}")
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(state["weights"][name])
        self.optimizer.load_state_dict(state["optimizer"])
        self.steps = state["steps"]

    def _collect(self, studies: Studies) -> _Group:
        rollout = self.policy.sample(studies.prompt, self.group, self.max_tokens)
        with torch.no_grad():
            reference = self.policy.log_probs(studies.prompt, rollout, reference=True)
            old = self.policy.log_probs(studies.prompt, rollout) if self.inner_steps > 1 else None
        mask = rollout.mask
        mean = reference.masked_fill(~mask, 0.0).sum(1) / mask.sum(1).clamp(min=1)
        labels = None if studies.labels is None else studies.labels.repeat_interleave(self.group, dim=0)
        references = [each for each in studies.references for _ in range(self.group)]
        rewards = self.reward(rollout.texts, references, mean, rollout.ended, labels)
        advantages = group_advantages(rewards["total"].view(-1, self.group)).view(-1)
        return _Group(studies, rollout, reference, old, advantages.to(reference.device), rewards)

    def _update(self, groups: Sequence[_Group], tokens: Tensor) -> Log:
        self.optimizer.zero_grad(set_to_none=True)
        sums: dict[str, Tensor] = {}
        for group in groups:
            logp = self.policy.log_probs(group.studies.prompt, group.rollout)
            old = logp.detach() if group.old is None else group.old
            terms = grpo_loss(
                logp, old, group.reference, group.advantages, group.rollout.mask,
                clip=self.clip, beta=self.beta, tokens=tokens,
            )  # fmt: skip
            terms["loss"].backward()
            for name, value in terms.items():
                sums[name] = sums.get(name, torch.zeros_like(value)) + value.detach()
        for parameter in self.parameters.values():
            grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            parameter.grad = _summed(grad)
        norm = torch.nn.utils.clip_grad_norm_(self.parameters.values(), self.max_norm)
        if norm.isfinite():
            self.optimizer.step()
        else:
            logger.warning("step %d: the gradient is %s, the policy stays as it is", self.steps, norm.item())
        return {**{name: _summed(value).item() for name, value in sums.items()}, "grad_norm": norm.item()}


def _lengths(groups: Sequence[_Group]) -> Log:
    masks = torch.cat([group.rollout.mask.sum(1) for group in groups]).float()
    return {
        "tokens": masks.mean().item(),
        "ended": torch.cat([group.rollout.ended for group in groups]).float().mean().item(),
    }


def _summed(values: Tensor) -> Tensor:
    summed = idist.all_reduce(values) if idist.get_world_size() > 1 else values
    assert isinstance(summed, Tensor)
    return summed


def _endless(batches: Iterable[Studies]) -> Iterator[Studies]:
    while True:
        empty = True
        for studies in batches:
            empty = False
            yield studies
        if empty:
            raise ValueError("training needs at least one batch of studies, got none")
