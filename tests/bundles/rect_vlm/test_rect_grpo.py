"""Advantages and loss of group-relative optimisation against values worked out by hand."""

import math

import pytest
import torch
from rect_vlm.grpo import group_advantages, grpo_loss
from torch import Tensor


def parts(rows: int = 4, length: int = 5) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(3)
    logp, old, ref = (-torch.rand(rows, length, generator=draw) * 3 for _ in range(3))
    mask = torch.arange(length) < torch.tensor([5, 2, 3, 4])[:rows, None]
    return {
        "logp": logp.requires_grad_(True),
        "logp_old": old,
        "logp_ref": ref,
        "advantages": torch.tensor([1.5, -0.5, 0.25, -1.0])[:rows],
        "mask": mask,
    }


def test_advantages_are_deviations_from_the_own_group() -> None:
    rewards = torch.tensor([[0.0, 0.0, 1.0, 1.0], [5.0, 7.0, 6.0, 6.0]])
    spread = torch.tensor([math.sqrt(1 / 3), math.sqrt(2 / 3)])  # of a sample of four
    wanted = torch.tensor([[-0.5, -0.5, 0.5, 0.5], [-1, 1, 0, 0]]) / (spread[:, None] + 1e-4)
    assert torch.allclose(group_advantages(rewards), wanted)
    # Another group in the batch changes nothing, and neither does a shift of the own.
    assert torch.allclose(group_advantages(rewards[:1] + 3), wanted[:1], atol=1e-5)


def test_equal_rewards_have_no_advantage_at_all() -> None:
    rewards = torch.full((3, 7), 0.1) + torch.tensor([[0.0], [0.2], [0.5]])  # means of these are not exact
    assert (group_advantages(rewards) == 0).all()


def test_a_group_of_one_is_refused() -> None:
    with pytest.raises(ValueError, match="reports > 1"):
        group_advantages(torch.rand(4, 1))


def test_loss_of_two_reports_by_hand() -> None:
    given = {
        "logp": torch.log(torch.tensor([[0.5, 0.2], [0.4, 0.9]])),
        "logp_old": torch.log(torch.tensor([[0.25, 0.2], [0.5, 0.1]])),
        "logp_ref": torch.log(torch.tensor([[0.5, 0.4], [0.4, 0.3]])),
        "advantages": torch.tensor([1.0, -2.0]),
        "mask": torch.tensor([[1, 1], [1, 0]]),
    }
    # Ratios 2, 1, 0.8: the first is clipped to 1.2; three tokens in all.
    policy = -(1.2 * 1 + 1.0 * 1 + 0.8 * -2) / 3
    kl = (0 + (2 - math.log(2) - 1) + 0) / 3
    terms = grpo_loss(**given, clip=0.2, beta=0.1)
    assert terms["policy"].item() == pytest.approx(policy, abs=1e-6)
    assert terms["kl"].item() == pytest.approx(kl, abs=1e-6)
    assert terms["loss"].item() == pytest.approx(policy + 0.1 * kl, abs=1e-6)
    assert terms["ratio"].item() == pytest.approx(3.8 / 3, abs=1e-6)
    assert terms["clipped"].item() == pytest.approx(1 / 3)


def test_a_ratio_beyond_the_clip_earns_no_gradient_only_where_it_would_gain() -> None:
    logp = torch.log(torch.tensor([[0.8], [0.8], [0.1], [0.1]])).requires_grad_(True)
    old = torch.full((4, 1), math.log(0.4))
    gains = torch.tensor([1.0, -1.0, 1.0, -1.0])
    terms = grpo_loss(logp, old, logp.detach(), gains, torch.ones(4, 1), beta=0.0)
    terms["loss"].backward()
    assert logp.grad is not None
    assert (logp.grad[:, 0] != 0).tolist() == [False, True, True, False]


def test_tokens_after_the_end_count_nowhere() -> None:
    given = parts()
    grpo_loss(**given)["loss"].backward()
    changed = parts()
    for name in ("logp", "logp_old", "logp_ref"):
        changed[name] = changed[name].detach().masked_fill(~changed["mask"], -torch.inf)
    changed["logp"].requires_grad_(True)
    other = grpo_loss(**changed)["loss"]
    other.backward()
    assert torch.equal(grpo_loss(**given)["loss"], other)
    assert torch.equal(given["logp"].grad, changed["logp"].grad)  # type: ignore[arg-type]
    assert (given["logp"].grad[~given["mask"]] == 0).all()  # type: ignore[index]


def test_every_token_weighs_the_same_in_parts_as_in_the_whole() -> None:
    given = parts()
    whole = grpo_loss(**given)["loss"]
    tokens = given["mask"].sum()
    halves = [
        grpo_loss(**{name: part[rows] for name, part in given.items()}, tokens=tokens)["loss"]
        for rows in (slice(0, 1), slice(1, 4))
    ]
    assert torch.allclose(whole, sum(halves, torch.zeros(())))


def test_the_first_update_follows_the_plain_policy_gradient() -> None:
    given = parts()
    given["logp_old"] = given["logp"].detach()
    terms = grpo_loss(**given, beta=0.0)
    terms["loss"].backward()
    wanted = -given["advantages"][:, None] * given["mask"] / given["mask"].sum()
    assert terms["ratio"].item() == 1.0
    assert torch.allclose(given["logp"].grad, wanted)  # type: ignore[arg-type]


def test_divergence_is_zero_at_the_reference_and_positive_elsewhere() -> None:
    given = parts()
    assert grpo_loss(**{**given, "logp_ref": given["logp"].detach()})["kl"].item() == 0
    assert grpo_loss(**given)["kl"].item() > 0.01


def test_shapes_that_differ_are_named() -> None:
    given = parts()
    with pytest.raises(ValueError, match=r"advantages \(B,\)"):
        grpo_loss(**{**given, "advantages": torch.zeros(3)})
    with pytest.raises(ValueError, match="must be"):
        grpo_loss(**{**given, "logp_ref": torch.zeros(4, 4)})
