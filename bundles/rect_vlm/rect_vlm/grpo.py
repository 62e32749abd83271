"""Group-relative policy optimisation as pure functions (Shao et al. 2024, arXiv 2402.03300). T tokens."""

from __future__ import annotations

import torch
from torch import Tensor

EPSILON = 1e-4  # keeps the advantages of a group of nearly equal rewards finite


def group_advantages(rewards: Tensor) -> Tensor:
    """Advantages (P, G) of rewards (P, G): how far each is above its group, in deviations of the group.

    A group of equal rewards has advantages of exactly 0.

    Raises:
        ValueError: rewards that are not (P, G) with G > 1.
    """
    if rewards.ndim != 2 or rewards.shape[1] < 2:
        raise ValueError(f"rewards must be (studies, reports > 1), got {tuple(rewards.shape)}")
    centred = rewards - rewards.mean(1, keepdim=True)
    advantages = centred / (rewards.std(1, keepdim=True) + EPSILON)
    equal = rewards.amax(1, keepdim=True) == rewards.amin(
        1, keepdim=True
    )  # the mean of equal floats is not exact
    return advantages.masked_fill(equal, 0.0)


def grpo_loss(
    logp: Tensor,
    logp_old: Tensor,
    logp_ref: Tensor,
    advantages: Tensor,
    mask: Tensor,
    clip: float = 0.2,
    beta: float = 0.04,
    tokens: Tensor | float | None = None,
) -> dict[str, Tensor]:
    """Clipped surrogate with a penalty on the divergence from the reference, over the tokens of a batch.

    The divergence is the unbiased, never negative estimate exp(d) - d - 1 with d = logp_ref - logp. The sum
    is divided by the tokens of the whole batch, hence a long report counts more than a short one and length
    is not rewarded by itself.

    Args:
        logp: log-probabilities of the sampled tokens (B, T) under the policy, with their gradient.
        logp_old, logp_ref: the same under the policy that sampled and under the reference, without.
        advantages: (B,) of the reports.
        mask: (B, T), 1 up to and including the end token; what follows counts nowhere.
        clip: half-width of the ratios that still earn.
        beta: weight of the divergence.
        tokens: the normaliser where this is a part of a batch; by default the tokens of `mask`.

    Returns:
        loss with its gradient; policy, kl, clipped (share of tokens) and ratio (mean), without, as sums over
        the same normaliser.

    Raises:
        ValueError: shapes that differ.
    """
    shapes = {tuple(part.shape) for part in (logp, logp_old, logp_ref, mask)}
    if len(shapes) > 1 or advantages.shape != logp.shape[:1]:
        raise ValueError(
            "log-probabilities and mask must be (B, T) and advantages (B,), got "
            f"{sorted(shapes)} and {tuple(advantages.shape)}"
        )
    # What stands after the end may be anything, infinities too: it is cut before it meets an exponential.
    keep = mask.bool()
    logp, old, ref = (part.float().masked_fill(~keep, 0.0) for part in (logp, logp_old, logp_ref))
    count = keep.sum().clamp(min=1) if tokens is None else tokens
    ratio = (logp - old).exp()
    gain = advantages.unsqueeze(1)  # (B, 1)
    surrogate = torch.minimum(ratio * gain, ratio.clamp(1 - clip, 1 + clip) * gain)
    kl = (ref - logp).exp() - (ref - logp) - 1
    clipped = ((gain > 0) & (ratio > 1 + clip)) | ((gain < 0) & (ratio < 1 - clip))

    def mean(values: Tensor) -> Tensor:
        return (values * keep).sum() / count

    policy, divergence = -mean(surrogate), mean(kl)
    return {
        "loss": policy + beta * divergence,
        "policy": policy.detach(),
        "kl": divergence.detach(),
        "ratio": mean(ratio.detach()),
        "clipped": mean(clipped.float()),
    }
