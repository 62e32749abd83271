"""Losses of the localizer: folding, unknown and empty masks, alignment, consistency, weak labels, weights."""

import pytest
import torch
import torch.nn.functional as F
from monai.losses import DiceCELoss, DiceLoss
from rect_vlm.findings import FINDINGS, LESIONS
from rect_vlm.losses import (
    LOCALIZATION_WEIGHTS,
    alignment,
    consistency,
    lesion_labels,
    localization_loss,
    multiple_instance,
    of_lesions,
    segmentation_terms,
)
from torch import Tensor

B, K, SIZE, GRID, C = 3, 5, (4, 6, 8), (2, 3, 2), 6
UNKNOWN = torch.full((B, K), -1.0)


def outputs() -> dict[str, Tensor]:
    return {
        "logits": torch.randn(B, K, *SIZE).requires_grad_(),
        "grid_logits": torch.randn(B, K, *GRID).requires_grad_(),
        "features": torch.randn(B, K, C, *GRID).requires_grad_(),
        "prompt": torch.randn(B, K, C).requires_grad_(),
        "lesions": torch.arange(K).expand(B, K),
        "denoise": torch.rand((), requires_grad=True),
    }


def boxes() -> Tensor:
    """A box in every mask."""
    masks = torch.zeros(B, K, *SIZE, dtype=torch.uint8)
    masks[..., 1:3, 2:5, 1:6] = 1
    return masks


def loss_of(out: dict[str, Tensor], true: tuple[Tensor, ...], lesions: Tensor) -> dict[str, Tensor]:
    """The loss, had these lesions (B, K') been asked for; `true` are masks, which are known, and labels."""
    some = {name: of_lesions(value, lesions) if value.ndim else value for name, value in out.items()}
    masks, known, labels = (of_lesions(each, lesions) for each in true)
    return localization_loss(some, masks, known, labels)


def test_labels_of_the_lesions_come_from_their_findings() -> None:
    labels = torch.arange(18.0).repeat(2, 1)
    names = [FINDINGS[int(column)] for column in lesion_labels(labels)[1]]
    assert names == [
        "Pericardial effusion",
        "Pleural effusion",
        "Consolidation",
        "Lung opacity",
        "Lung nodule",
    ]


@pytest.mark.parametrize("known", [True, False])
def test_loss_of_five_lesions_is_the_mean_of_five_losses(known: bool) -> None:
    out, masks, every = outputs(), boxes(), torch.full((B, K), known)
    labels = (torch.rand(B, K) < 0.5).float()
    together = localization_loss(out, masks, every, labels)
    one_by_one = torch.arange(K).expand(B, K).split(1, dim=1)
    alone = [loss_of(out, (masks, every, labels), lesion) for lesion in one_by_one]
    assert set(together) == set(LOCALIZATION_WEIGHTS)
    assert together["bce" if known else "mil"] > 0
    assert (together["align"] > 0) == known
    for name, term in together.items():
        torch.testing.assert_close(term, torch.stack([terms[name] for terms in alone]).mean(), msg=name)


def test_segmentation_agrees_with_monai_on_folded_channels() -> None:
    logits, masks = torch.randn(B, K, *SIZE), boxes().float()
    terms = segmentation_terms(logits, masks, torch.ones(B, K, dtype=torch.bool))
    folded = logits.flatten(0, 1).unsqueeze(1), masks.flatten(0, 1).unsqueeze(1)
    torch.testing.assert_close(terms["dice"] + terms["bce"], DiceCELoss(sigmoid=True)(*folded))


def test_dice_is_that_of_the_masks_that_are_not_empty() -> None:
    logits, masks = torch.randn(B, K, *SIZE), boxes().float()
    known = torch.ones(B, K, dtype=torch.bool)
    masks[0, 1] = masks[2, :3] = 0
    known[1, 2] = False
    inside = masks.flatten(2).any(2) & known
    terms = segmentation_terms(logits, masks, known)
    dice = DiceLoss(sigmoid=True)(logits[inside].unsqueeze(1), masks[inside].unsqueeze(1))
    torch.testing.assert_close(terms["dice"], dice)
    entropy = F.binary_cross_entropy_with_logits(logits[known], masks[known])
    torch.testing.assert_close(terms["bce"], entropy)
    changed = torch.where(inside[:, :, None, None, None], logits, logits + 3)
    torch.testing.assert_close(segmentation_terms(changed, masks, known)["dice"], dice)


def test_scans_may_have_their_lesions_in_any_order() -> None:
    out, masks = outputs(), (torch.rand(B, K, *SIZE) < 0.3).to(torch.uint8)
    masks[0, 2] = 0
    known, labels = torch.rand(B, K) < 0.4, torch.randint(-1, 2, (B, K)).float()
    order = torch.stack([torch.randperm(K) for _ in range(B)])
    assert (order != torch.arange(K)).any(1).all()
    expected = localization_loss(out, masks, known, labels)
    found = loss_of(out, (masks, known, labels), order)
    assert min(expected.values()) > 0
    for name, term in expected.items():
        torch.testing.assert_close(found[name], term, msg=name)


def test_masks_finer_than_the_logits_are_averaged() -> None:
    out, known, labels = outputs(), torch.rand(B, K) < 0.5, torch.ones(B, K)
    masks = (torch.rand(B, K, *(2 * size for size in SIZE)) < 0.3).to(torch.uint8)
    found = localization_loss(out, masks, known, labels)
    expected = localization_loss(out, F.avg_pool3d(masks.float(), 2), known, labels)
    for name, term in expected.items():
        torch.testing.assert_close(found[name], term, msg=name)
    share = F.avg_pool3d(masks.float(), 2)[known]
    torch.testing.assert_close(found["bce"], F.binary_cross_entropy_with_logits(out["logits"][known], share))


def test_an_empty_mask_teaches_through_cross_entropy_alone() -> None:
    out, known = outputs(), torch.ones(B, K, dtype=torch.bool)
    terms = localization_loss(out, torch.zeros(B, K, *SIZE), known, UNKNOWN)
    assert terms["dice"] == terms["align"] == terms["mil"] == 0
    sum(terms[name] for name in ("dice", "align", "mil", "bce")).backward()  # type: ignore[union-attr]
    grad = out["logits"].grad
    assert grad is not None
    torch.testing.assert_close(grad, out["logits"].detach().sigmoid() / out["logits"].numel())


def test_masks_that_are_not_known_and_scans_without_label_teach_nothing() -> None:
    out = outputs()
    terms = localization_loss(out, boxes(), torch.zeros(B, K, dtype=torch.bool), UNKNOWN)
    sum(terms[name] for name in ("dice", "bce", "align", "mil")).backward()  # type: ignore[union-attr]
    for name in ("logits", "features", "prompt"):
        grad = out[name].grad
        assert grad is not None, name
        assert grad.isfinite().all()
        assert grad.abs().max() == 0, name


def test_alignment_compares_what_is_inside_the_mask_with_the_prompt() -> None:
    prompt, known = torch.randn(B, K, C), torch.ones(B, K, dtype=torch.bool)
    masks = torch.zeros(B, K, *SIZE)
    masks[..., :2, 2:4, 5:] = 1  # in the cell (0, 1, 1) and no other
    inside = torch.randn(B, K, C, *GRID)
    inside[..., 0, 1, 1] = 2 * prompt
    assert alignment(inside, prompt, masks, known) < 1e-6
    inside[..., 0, 1, 1] = -prompt
    torch.testing.assert_close(alignment(inside, prompt, masks, known), torch.tensor(2.0))
    masks[0] = 0  # negatives do not count
    torch.testing.assert_close(alignment(inside, prompt, masks, known), torch.tensor(2.0))


def test_consistency_is_zero_where_coarse_and_fine_agree() -> None:
    coarse = torch.randn(B, K, *GRID)
    fine = coarse.repeat_interleave(2, 2).repeat_interleave(2, 3).repeat_interleave(4, 4)
    assert consistency(coarse, fine) < 1e-12
    expected = (coarse.sigmoid() - 0.5).square().mean()
    torch.testing.assert_close(consistency(coarse, torch.zeros_like(fine)), expected)


def test_weak_labels_speak_where_there_is_no_mask_and_half_for_ground_glass() -> None:
    logits = torch.full((1, K, 10, 20, 10), -3.0)
    logits[:, :, 0, 0, :2] = torch.tensor([1.0, 3.0])  # the top 0.1 % of 2000 voxels
    labels = torch.tensor([[1.0, 0.0, -1.0, 1.0, 1.0]])
    unmasked = torch.tensor([[True, True, True, True, False]])
    out = {**{name: value[:1] for name, value in outputs().items() if value.ndim}, "logits": logits}
    term = localization_loss(out, torch.zeros_like(logits), ~unmasked, labels, {"mil": 1.0})["mil"]
    positive, negative = F.softplus(torch.tensor(-2.0)), F.softplus(torch.tensor(2.0))
    assert LESIONS[3] == "ground_glass_opacity"
    torch.testing.assert_close(term, (positive + negative + positive / 2) / 3)
    trust = torch.tensor([[1.0, 0.0, 1.0, 0.0, 1.0]])
    torch.testing.assert_close(multiple_instance(logits, labels, unmasked, trust), positive / 3)


def test_weights_scale_their_terms_and_unknown_names_are_refused() -> None:
    out, masks, known = outputs(), boxes(), torch.rand(B, K) < 0.5
    labels = torch.ones(B, K)
    plain = localization_loss(out, masks, known, labels, dict.fromkeys(LOCALIZATION_WEIGHTS, 1.0))
    default = localization_loss(out, masks, known, labels)
    for name, weight in LOCALIZATION_WEIGHTS.items():
        torch.testing.assert_close(default[name], weight * plain[name])
    with pytest.raises(ValueError, match=r"weights must be among .*, got \['dise'\]"):
        localization_loss(out, masks, known, labels, {"dise": 1.0})
    with pytest.raises(ValueError, match=r"masks must begin with \(3, 5\), got \(3, 2, 4, 6, 8\)"):
        localization_loss(out, masks[:, :2], known, labels)
