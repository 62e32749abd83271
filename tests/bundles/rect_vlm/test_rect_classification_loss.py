"""Losses of the classifier: known labels only, both kinds, weights of the positives."""

import pytest
import torch
import torch.nn.functional as F
from rect_vlm.losses import classification_loss, positive_weights


def test_classification_loss_is_the_mean_over_known_labels() -> None:
    logits, labels = torch.randn(4, 18), (torch.rand(4, 18) < 0.4).float()
    labels[0, 3] = labels[2] = -1
    weight = 1 + torch.rand(18)
    terms = -(weight * labels * F.logsigmoid(logits) + (1 - labels) * F.logsigmoid(-logits))
    torch.testing.assert_close(classification_loss(logits, labels, weight), terms[labels >= 0].mean())
    other = logits.clone()
    other[2], other[0, 3] = 99.0, -99.0
    torch.testing.assert_close(classification_loss(other, labels), classification_loss(logits, labels))


def test_focal_loss_is_cross_entropy_times_confidence() -> None:
    logits, labels = torch.randn(4, 18), (torch.rand(4, 18) < 0.4).float()
    right = torch.where(labels == 1, logits.sigmoid(), 1 - logits.sigmoid())
    alpha = torch.where(labels == 1, 0.25, 0.75)
    expected = (-alpha * (1 - right) ** 2 * right.log()).mean()
    torch.testing.assert_close(classification_loss(logits, labels, kind="focal"), expected)


def test_nothing_known_is_a_zero_with_a_gradient() -> None:
    logits = torch.randn(2, 18, requires_grad=True)
    loss = classification_loss(logits, torch.full((2, 18), -1.0))
    loss.backward()
    assert loss == 0
    assert logits.grad is not None
    assert logits.grad.abs().max() == 0


def test_unknown_classification_loss_is_refused() -> None:
    with pytest.raises(ValueError, match=r"kind must be one of .*, got 'hinge'"):
        classification_loss(torch.zeros(1, 2), torch.zeros(1, 2), kind="hinge")


def test_positive_weights_are_negatives_per_positive_within_bounds() -> None:
    labels = torch.zeros(40, 5)
    labels[:8, 0], labels[:30, 1], labels[:1, 2], labels[:, 4] = 1, 1, 1, -1
    labels[30:, 0] = -1
    assert positive_weights(labels).tolist() == [22 / 8, 1, 20, 20, 1]
