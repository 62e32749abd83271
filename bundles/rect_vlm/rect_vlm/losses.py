"""Losses of the classifier and of the localizer; what is not known takes no part.

Lesions are folded into the batch, so each (scan, lesion) is a volume of one channel with its own sigmoid.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from medbundles.distillation import full_precision
from monai.losses import DiceLoss, FocalLoss
from torch import Tensor

from rect_vlm.findings import FINDING_OF_LESION, FINDINGS, LESIONS

CLASSIFICATION_LOSSES = ("bce", "focal")
LOCALIZATION_WEIGHTS = {"dice": 1.0, "bce": 1.0, "align": 0.1, "cons": 0.05, "denoise": 0.1, "mil": 0.2}
MAX_POSITIVE_WEIGHT = 20.0
TOP_SHARE = 0.001  # of the voxels: what speaks for a scan that has only labels
# The label of ground glass, "Lung opacity", is true for more than ground glass.
MIL_TRUST = {"ground_glass_opacity": 0.5}


@full_precision
def classification_loss(
    logits: Tensor, labels: Tensor, pos_weight: Tensor | None = None, kind: str = "bce"
) -> Tensor:
    """Mean over known labels of binary cross-entropy or focal loss (arXiv 1708.02002, alpha .25, gamma 2).

    Args:
        logits: (B, K).
        labels: (B, K), 0 or 1, -1 where unknown.
        pos_weight: (K,) weights of the positives; "bce" alone takes them, the focal loss has its own.
        kind: "bce" or "focal".

    Raises:
        ValueError: unknown kind.
    """
    if kind not in CLASSIFICATION_LOSSES:
        raise ValueError(f"kind must be one of {CLASSIFICATION_LOSSES}, got {kind!r}")
    known = labels >= 0
    target = labels.clamp_min(0)
    if kind == "bce":
        each = F.binary_cross_entropy_with_logits(logits, target, pos_weight=pos_weight, reduction="none")
    else:
        each = FocalLoss(gamma=2.0, alpha=0.25, reduction="none")(logits, target)
    return _mean(each, known)


def positive_weights(labels: Tensor) -> Tensor:
    """Negatives per positive of every column of labels (n, K), within 1 to 20; -1 is unknown."""
    positives, negatives = (labels == 1).sum(0), (labels == 0).sum(0)
    # A label without a positive takes the upper bound, one that is nowhere known the lower.
    return (negatives / positives.clamp_min(1e-6)).clamp(1, MAX_POSITIVE_WEIGHT)


def lesion_labels(labels: Tensor) -> Tensor:
    """The columns of labels (B, 18) that say whether a scan has each of the five lesions, (B, 5)."""
    return labels[:, [FINDINGS.index(FINDING_OF_LESION[lesion]) for lesion in LESIONS]]


def pick_lesions(masks: Tensor, known: Tensor, count: int, present: float = 0.7) -> Tensor:
    """Choose lesions for a training step at random, of each scan its own.

    Most scans have few of the lesions: without a preference hardly a mask would have anything inside.

    Args:
        masks: (B, K, D, H, W).
        known: (B, K) whether the mask says anything.
        count: K', at most K are returned.
        present: share of the scans whose choice begins with the lesions that they have.

    Returns:
        their indices (B, K'), ascending.

    Raises:
        ValueError: count below 1, or a share outside 0 to 1.
    """
    if count < 1 or not 0 <= present <= 1:
        raise ValueError(f"count must be at least 1 and present within 0 to 1, got {count=} {present=}")
    seen = masks.flatten(2).any(2) & known
    prefers = torch.rand(len(seen), 1, device=masks.device) < present
    rank = (seen & prefers).float() + torch.rand(seen.shape, device=masks.device)
    return rank.topk(min(count, seen.shape[1]), dim=1).indices.sort(dim=1).values


def of_lesions(values: Tensor, lesions: Tensor) -> Tensor:
    """The rows (B, K', ...) of values (B, K, ...) that belong to the lesions (B, K')."""
    return values[torch.arange(len(values), device=values.device).unsqueeze(1), lesions]


@full_precision
def localization_loss(
    out: Mapping[str, Tensor],
    masks: Tensor,
    known: Tensor,
    labels: Tensor,
    weights: Mapping[str, float] | None = None,
) -> dict[str, Tensor]:
    """Weighted terms of the localizer; their sum is its loss.

    `bce` per (scan, lesion) with a mask and `dice` where that mask is not empty; `align`, one minus the
    cosine of the features inside a mask and of the prompt; `cons`, agreement of the coarse with the fine
    prediction; `denoise`, only in training; `mil`, multiple-instance learning where there is no mask:
    the highest voxels against the scan's label.

    Args:
        out: what `LesionLocalizer` returns.
        masks: (B, K', D, H, W) 0 or 1; averaged where the logits are coarser.
        known: (B, K') whether there is a mask, be it empty.
        labels: (B, K') whether the scan has the lesion, -1 unknown; see `lesion_labels`.
        weights: changes to LOCALIZATION_WEIGHTS by name.

    Raises:
        ValueError: an unknown weight, or masks of other scans and lesions than the logits.
    """
    if unknown := sorted(set(weights or ()) - set(LOCALIZATION_WEIGHTS)):
        raise ValueError(f"weights must be among {sorted(LOCALIZATION_WEIGHTS)}, got {unknown}")
    logits, target, known = out["logits"].float(), masks.float(), known.bool()
    if masks.shape[:2] != logits.shape[:2]:
        raise ValueError(f"masks must begin with {tuple(logits.shape[:2])}, got {tuple(masks.shape)}")
    if target.shape != logits.shape:
        target = F.adaptive_avg_pool3d(target, _grid(logits))
    trusts = torch.tensor([MIL_TRUST.get(lesion, 1.0) for lesion in LESIONS], device=logits.device)
    terms = segmentation_terms(logits, target, known)
    terms["align"] = alignment(out["features"].float(), out["prompt"].float(), target, known)
    terms["cons"] = consistency(out["grid_logits"].float(), logits)
    terms["mil"] = multiple_instance(logits, labels.float(), ~known, trusts[out["lesions"]])
    if "denoise" in out:
        terms["denoise"] = out["denoise"]
    scale = {**LOCALIZATION_WEIGHTS, **(weights or {})}
    return {name: scale[name] * term for name, term in terms.items()}


def segmentation_terms(logits: Tensor, masks: Tensor, known: Tensor) -> dict[str, Tensor]:
    """`bce`, the mean over the (scan, lesion) with a mask, and `dice`, that over those with one not empty."""
    folded, target = logits.flatten(0, 1).unsqueeze(1), masks.flatten(0, 1).unsqueeze(1)  # (B K, 1, D, H, W)
    overlap = DiceLoss(sigmoid=True, reduction="none")(folded, target).reshape(known.shape)
    entropy = F.binary_cross_entropy_with_logits(logits, masks, reduction="none").flatten(2).mean(2)
    # Against an empty mask Dice is about 1 whatever is predicted: nothing to learn from.
    return {"dice": _mean(overlap, known & masks.flatten(2).any(2)), "bce": _mean(entropy, known)}


def alignment(features: Tensor, prompt: Tensor, masks: Tensor, known: Tensor) -> Tensor:
    """One minus the cosine of features (B, K, C, *grid) in a mask and prompt (B, K, C), positives only."""
    share = F.adaptive_avg_pool3d(masks, _grid(features)).flatten(2)  # (B, K, N)
    pooled = torch.einsum("bkn,bkcn->bkc", share, features.flatten(3))
    return _mean(1 - F.cosine_similarity(pooled, prompt, dim=2), known & share.any(2))


def consistency(grid_logits: Tensor, logits: Tensor) -> Tensor:
    """Mean squared difference of the coarse probabilities and of the fine ones averaged to their grid."""
    averaged = F.adaptive_avg_pool3d(logits.sigmoid(), _grid(grid_logits))
    return F.mse_loss(grid_logits.sigmoid(), averaged)


def multiple_instance(logits: Tensor, labels: Tensor, unmasked: Tensor, trust: Tensor) -> Tensor:
    """Cross-entropy of the mean of the largest voxel logits and the label, over known labels without a mask.

    `trust` (B, K) scales the loss of each lesion.
    """
    told = unmasked & (labels >= 0)
    voxels = logits.flatten(2)[told]  # (n, V): the sort is left out where it is not needed
    largest = voxels.topk(max(1, round(TOP_SHARE * voxels.shape[1])), dim=1).values.mean(1)
    entropy = F.binary_cross_entropy_with_logits(largest, labels[told], reduction="none")
    return (trust[told] * entropy).sum() / told.sum().clamp_min(1)


def _grid(volumes: Tensor) -> tuple[int, int, int]:
    depth, height, width = volumes.shape[-3:]
    return depth, height, width


def _mean(values: Tensor, where: Tensor) -> Tensor:
    """Mean of values over a mask; 0, still with a gradient, where the mask is empty."""
    return (values * where).sum() / where.sum().clamp_min(1)
