"""A report generator as a policy: where it starts, what it samples from, and what learns of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from rect_policies import fill_lora, generator_prompt, tiny_generator
from rect_vlm.adapters import REFERENCE
from rect_vlm.grpo import grpo_loss
from rect_vlm.grpo_policy import GeneratorPolicy, Rollout, Studies
from rect_vlm.grpo_trainer import GrpoTrainer
from rect_vlm.rewards import RewardModel

REPORT = "FINDINGS:\nEmphysema was observed.\n\nIMPRESSION:\nEmphysema."
GAINS = torch.tensor([1.0, -1.0, 0.5, 2.0])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("llm")


@pytest.fixture
def policy(folder: Path) -> GeneratorPolicy:
    generator = tiny_generator(folder, lora_dropout=0.5).train()
    return GeneratorPolicy(generator)


def ending_early(policy: GeneratorPolicy) -> Rollout:
    """Four reports that end in different places."""
    end, words = policy.generator.prompt.eos, len(policy.generator.tokenizer)
    tokens = torch.randint(5, words, (4, 6))
    length = torch.tensor([3, 6, 2, 5])
    tokens[torch.arange(4), length - 1] = end
    mask = torch.arange(6) < length[:, None]
    return Rollout(tokens, mask, torch.ones(4, dtype=torch.bool), [""] * 4)


def test_at_the_start_policy_and_reference_are_one(policy: GeneratorPolicy) -> None:
    prompt = generator_prompt()
    rollout = policy.sample(prompt, 2, 5)
    with torch.no_grad():
        old = policy.log_probs(prompt, rollout)
    reference = policy.log_probs(prompt, rollout, reference=True)
    with policy.generator.llm.disable_adapter(), torch.no_grad():
        base = policy.log_probs(prompt, rollout)
    now = policy.log_probs(prompt, rollout)
    assert not reference.requires_grad
    terms = grpo_loss(now, old, reference, GAINS, rollout.mask)
    assert terms["ratio"].item() == pytest.approx(1, abs=1e-5)
    assert abs(terms["kl"].item()) < 1e-6
    # Without any LoRA it is another model, which the phase did not begin with.
    assert grpo_loss(now, old, base, GAINS, rollout.mask)["kl"].item() > 1e-3


def test_samples_come_from_the_distribution_of_the_log_probabilities(
    policy: GeneratorPolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {}
    generate = policy.generator.llm.generate

    def watched(**options: Any) -> Any:
        asked.update(options["generation_config"].to_dict())
        return generate(**options)

    monkeypatch.setattr(policy.generator.llm, "generate", watched)
    rollout = policy.sample(generator_prompt(), 2, 5)
    assert {name: asked[name] for name in ("do_sample", "temperature", "top_p", "top_k")} == {
        "do_sample": True, "temperature": 1.0, "top_p": 1.0, "top_k": 0,
    }  # fmt: skip
    assert len(rollout.texts) == len(rollout.tokens) == 4
    assert rollout.mask.shape == rollout.tokens.shape


def test_tokens_after_the_end_do_not_change_the_loss(policy: GeneratorPolicy) -> None:
    prompt, rollout = generator_prompt(), ending_early(policy)
    other = rollout.tokens.where(rollout.mask, (rollout.tokens + 7) % 300 + 5)
    assert not torch.equal(other, rollout.tokens)
    losses = []
    for tokens in (rollout.tokens, other):
        logp = policy.log_probs(prompt, Rollout(tokens, rollout.mask, rollout.ended, rollout.texts))
        losses.append(grpo_loss(logp, logp.detach() - 0.1, logp.detach() + 0.2, GAINS, rollout.mask)["loss"])
    assert torch.equal(losses[0], losses[1])


def test_recomputed_activations_give_the_same_gradients(folder: Path) -> None:
    """The backward pass computes them a second time, where dropout must be off as in the first."""
    prompt, gradients, passes = generator_prompt(), [], []
    for checkpointing in (False, True):
        generator = tiny_generator(folder, lora_dropout=0.5, checkpointing=checkpointing).train()
        policy = GeneratorPolicy(generator)
        weights = list(policy.trainable().values())
        for weight in weights:
            weight.requires_grad_(True)
        layer = next(part for name, part in generator.llm.named_modules() if name.endswith("mlp.act_fn"))
        layer.register_forward_hook(lambda *_, seen=passes: seen.append(1))
        torch.manual_seed(1)
        policy.log_probs(prompt, ending_early(policy)).sum().backward()
        gradients.append(torch.cat([weight.grad.flatten() for weight in weights]))  # type: ignore[union-attr]
        assert len(passes) == (3 if checkpointing else 1)  # the first one of both, and once more
    assert gradients[0].abs().max() > 0
    assert torch.allclose(gradients[0], gradients[1], rtol=1e-4, atol=1e-6)


def test_one_step_moves_the_lora_of_the_policy_alone(policy: GeneratorPolicy) -> None:
    generator = policy.generator
    before = {name: value.clone() for name, value in generator.state_dict().items()}
    trainer = GrpoTrainer(policy, RewardModel({"fluency": 1.0}), lr=1e-2, group=2, max_tokens=6)
    learning = {name for name, weight in generator.named_parameters() if weight.requires_grad}
    assert learning == {f"llm.{name}" for name in policy.trainable()}
    log = trainer.step([Studies(generator_prompt(), [REPORT, ""], torch.zeros(2, 18))])
    assert {"reward_clinical", "reward_factual", "reward_fluency", "reward_format"} <= set(log)
    after = generator.state_dict()
    changed = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert changed
    assert changed <= learning
    assert not any(REFERENCE in name for name in changed)


def test_closing_takes_the_reference_away(policy: GeneratorPolicy) -> None:
    trained = policy.generator.adapter_state()
    assert any(REFERENCE in name for name in policy.generator.state_dict())
    policy.close()
    assert not any(REFERENCE in name for name in policy.generator.state_dict())
    assert all(torch.equal(value, policy.generator.adapter_state()[name]) for name, value in trained.items())
    fill_lora(policy.generator.llm)  # the next phase begins with other weights
    GeneratorPolicy(policy.generator)
    state = policy.generator.llm.state_dict()
    pairs = [(name, name.replace("default", REFERENCE)) for name in state if ".default." in name]
    assert pairs
    assert all(torch.equal(state[one], state[other]) for one, other in pairs)
