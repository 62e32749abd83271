"""Policy optimisation as a whole: what holds before, during and after it, on small policies."""

from __future__ import annotations

from typing import Any

import pytest
import rect_vlm.grpo_trainer as trainer_module
import torch
from rect_policies import BEGIN, WORDS, BigramPolicy, LlamaPolicy, rollout_of, tiny_llama, word_reward
from rect_vlm.adapters import REFERENCE
from rect_vlm.grpo_policy import Studies
from rect_vlm.grpo_trainer import GrpoTrainer
from torch import Tensor

BATCHES = [Studies(torch.tensor([3, 4]), ["w5", "w6"]), Studies(torch.tensor([7, 8, 9]), ["w5", "w6", "w7"])]
PROMPT = torch.tensor([[BEGIN, 3, 4], [BEGIN, 5, 6]])


def make(policy: Any = None, **options: Any) -> GrpoTrainer:
    options = {"lr": 0.05, "group": 4, "max_tokens": 6, "weight_decay": 0.0} | options
    return GrpoTrainer(policy or BigramPolicy(), options.pop("reward", word_reward), **options)


def equal_reward(texts: list[str], *_: Any) -> dict[str, Tensor]:
    return {"total": torch.full((len(texts),), 0.3)}


def test_equal_rewards_move_nothing() -> None:
    policy = BigramPolicy()
    log = make(policy, reward=equal_reward, beta=0.0).step(BATCHES)
    assert log["flat_groups"] == 1.0
    assert log["grad_norm"] == 0.0
    assert torch.equal(policy.logits, policy.start)


def test_a_word_is_learnt_and_reference_and_base_stay_as_they_were() -> None:
    policy = LlamaPolicy(tiny_llama())
    before = {name: value.clone() for name, value in policy.model.state_dict().items()}
    trainer = make(policy, lr=5e-3, group=8)
    studies = Studies(PROMPT, ["w9"] * 2)
    logs = trainer.train([studies], steps=40)
    start, end = (sum(log["reward"] for log in part) / 5 for part in (logs[:5], logs[-5:]))
    assert end > start + 0.2
    after = policy.model.state_dict()
    changed = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert changed == {name for name in after if ".default." in name}
    # The reference was the policy of the start: its LoRA is what the policy's was.
    for name in changed:
        assert torch.equal(after[name.replace("default", REFERENCE)], before[name])


def test_log_has_every_component_and_what_the_update_did() -> None:
    seen: list[int] = []
    logs = make().train(BATCHES, 3, accumulate=2, on_step=lambda step, log: seen.append(step))
    assert seen == [1, 2, 3]
    assert set(logs[0]) == {
        "reward", "reward_word", "reward_short", "reward_spread", "flat_groups", "loss", "policy", "kl",
        "ratio", "clipped", "grad_norm", "tokens", "ended",
    }  # fmt: skip
    assert logs[0]["ratio"] == pytest.approx(1, abs=1e-6)
    assert logs[0]["kl"] == pytest.approx(0, abs=1e-6)
    assert logs[-1]["kl"] > 0


def test_further_updates_of_the_same_samples_leave_the_sampling_policy() -> None:
    log = make(inner_steps=3, lr=0.3).step(BATCHES)
    assert abs(log["ratio"] - 1) > 1e-3


@pytest.mark.parametrize("processes", [1, 2])
def test_parts_and_processes_take_the_same_step_as_the_whole(
    processes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two processes with the same reports must do what one does: tokens and gradients are summed."""
    tokens = torch.randint(2, WORDS, (12, 6))
    first, second = Studies(torch.tensor([3, 4]), ["w5"] * 2), Studies(torch.tensor([7]), ["w6"])
    whole = make(max_norm=1e9)
    whole.policy.replay = tokens  # type: ignore[attr-defined]
    whole.step([Studies(torch.tensor([3, 4, 7]), ["w5", "w5", "w6"])])
    if processes == 2:
        monkeypatch.setattr(trainer_module.idist, "get_world_size", lambda: 2)
        monkeypatch.setattr(trainer_module.idist, "all_reduce", lambda values: 2 * values)
    parts, replays = make(max_norm=1e9), iter([tokens[:8], tokens[8:]])
    monkeypatch.setattr(parts.policy, "sample", lambda *_: rollout_of(next(replays)))
    parts.step([first, second])
    grads = [trainer.parameters["logits"].grad for trainer in (whole, parts)]
    assert grads[0].abs().max() > 0  # type: ignore[union-attr]
    assert torch.allclose(grads[0], grads[1], atol=1e-7)  # type: ignore[arg-type]


def test_a_run_goes_on_where_it_stopped() -> None:
    torch.manual_seed(5)
    straight = make()
    straight.train(BATCHES[:1], 4)
    torch.manual_seed(5)
    first, second = make(), make()
    first.train(BATCHES[:1], 2)
    second.load_state_dict(first.state_dict())
    second.train(BATCHES[:1], 2)
    assert second.steps == 4
    assert torch.equal(straight.parameters["logits"], second.parameters["logits"])
    with pytest.raises(ValueError, match="weights of this policy"):
        second.load_state_dict({**first.state_dict(), "weights": {}})


def test_evaluation_changes_nothing() -> None:
    trainer = make()
    log = trainer.evaluate(BATCHES)
    assert 0 <= log["reward"] <= 1
    assert torch.equal(trainer.parameters["logits"], trainer.policy.start)  # type: ignore[attr-defined]
    assert trainer.parameters["logits"].grad is None


def test_wrong_numbers_are_named() -> None:
    with pytest.raises(ValueError, match="group must be >= 2"):
        make(group=1)
    with pytest.raises(ValueError, match="at least one batch"):
        make().train([], 1)
    with pytest.raises(ValueError, match="at least one batch"):
        make().evaluate([])
