"""Class prior: closed form, conditions without positives, bad input."""

import pytest
import torch
from kif_mrg.conditions import IGNORE
from kif_mrg.prior import SMALLEST, ClassPrior, adjust


def test_prior_starts_at_the_relative_frequency_of_positives() -> None:
    labels = torch.tensor([[1, 1, IGNORE, 0], [1, 0, IGNORE, 2], [3, 2, IGNORE, 0], [1, 3, IGNORE, 0]])
    prior = ClassPrior.from_labels(labels)
    torch.testing.assert_close(prior.prior, torch.tensor([1, 1 / 3, 1, 1]))
    assert torch.equal(prior.log_prior, prior.prior.log())


def test_prior_is_updated_from_the_positives_alone_and_stays_finite() -> None:
    prior = ClassPrior(3, torch.tensor([1.0, 0.5, 0.25]))
    logits = torch.randn(6, 4, 3)
    labels = torch.tensor([[1, 1, 0], [1, 1, 2], [0, 1, IGNORE], [2, 3, 0], [3, 2, 0], [1, 0, 3]])
    prior.update(logits, labels)
    found = logits.softmax(1)[:, 1]
    mean = torch.stack([found[[0, 1, 5], 0].mean(), found[[0, 1, 2], 1].mean()])
    torch.testing.assert_close(prior.prior, torch.cat([mean / mean.max(), torch.tensor([0.25])]))
    prior.update(logits, torch.full_like(labels, IGNORE))  # nothing positive at all
    torch.testing.assert_close(prior.prior[2], torch.tensor(0.25))
    logits[:, 1, 0] = -1e4  # never found: a probability of 0
    prior.update(logits, labels)
    assert prior.prior[0].item() == pytest.approx(SMALLEST)
    assert prior.log_prior.isfinite().all()


def test_prior_survives_its_state_dict_and_adjusts_a_copy_of_positive_only() -> None:
    prior = ClassPrior(18, torch.rand(18).clamp_min(0.1))
    fresh = ClassPrior(18)
    fresh.load_state_dict(prior.state_dict())
    logits = torch.randn(2, 4, 18)
    before = logits.clone()
    adjusted = fresh.adjusted(logits)
    assert torch.equal(logits, before)
    assert torch.equal(adjusted[:, [0, 2, 3]], logits[:, [0, 2, 3]])
    torch.testing.assert_close(adjusted[:, 1], logits[:, 1] + prior.log_prior)
    assert torch.equal(adjust(logits, torch.zeros(18)), logits)


def test_bad_priors_are_named() -> None:
    for start in (torch.ones(3), torch.tensor([0.0, 1.0]), torch.tensor([2.0, 1.0])):
        with pytest.raises(ValueError, match="start must be 2 priors"):
            ClassPrior(2, start)
    with pytest.raises(ValueError, match="labels must be"):
        ClassPrior(18).update(torch.randn(2, 4, 18), torch.zeros(2, 14))
    with pytest.raises(ValueError, match="must be finite"):
        ClassPrior(2).update(torch.full((1, 4, 2), torch.nan), torch.ones(1, 2))
