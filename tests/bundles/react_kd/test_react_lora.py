"""The student with LoRA: starts as its base, trains adapters and what follows the encoders, nothing else."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from medbundles.engines.checkpointing import load_weights, save_atomic
from react_kd.lora import lora_student
from react_kd.networks import Student
from react_training_runs import train
from torch import nn

ARGS: dict[str, Any] = {
    "channels": 8,
    "encoder_args": {"feature_size": 12, "level": 2, "window_size": (4, 4, 4)},
}
TARGETS = ("stages.0.0.blocks.0.mlp.linear1", "stages.1.0.blocks.0.attn.qkv")
IMAGE = torch.randn(2, 3, 16, 16, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def base(tmp_path: Path) -> tuple[Student, Path]:
    student = Student(encoder="swin", **ARGS)
    save_atomic(student.state_dict(), tmp_path / "base.pt")
    return student, tmp_path / "base.pt"


def test_starts_as_its_base(base: tuple[Student, Path]) -> None:
    student, path = base
    adapted = lora_student(ARGS, path, targets=TARGETS)
    with torch.no_grad():
        torch.testing.assert_close(adapted.eval()(IMAGE), student.eval()(IMAGE), atol=0, rtol=0)


def test_number_of_trainable_parameters(base: tuple[Student, Path]) -> None:
    student, path = base
    adapted = lora_student(ARGS, path, r=4, targets=TARGETS)
    frozen = sum(p.numel() for p in [*student.ct.parameters(), *student.pet.parameters()])
    # A rank-r adapter of an (out, in) weight holds r (in + out) numbers: mlp 12 -> 48, qkv 24 -> 72.
    adapters = 2 * 4 * ((12 + 48) + (24 + 72))
    trainable = sum(p.numel() for p in adapted.parameters() if p.requires_grad)
    assert trainable == sum(p.numel() for p in student.parameters()) - frozen + adapters


def test_training_moves_adapters_and_head_alone(base: tuple[Student, Path]) -> None:
    adapted = lora_student(ARGS, base[1], targets=TARGETS, dropout=0.0)
    before = {name: p.detach().clone() for name, p in adapted.named_parameters()}
    optimizer = torch.optim.AdamW(adapted.parameters(), lr=0.01)
    for _ in range(2):  # at first only one factor of an adapter has a slope, the other one is zero
        optimizer.zero_grad()
        nn.functional.cross_entropy(adapted(IMAGE), torch.tensor([0, 2])).backward()
        optimizer.step()
    for name, parameter in adapted.named_parameters():
        trains = "lora_" in name or name.startswith(("fusion.", "head."))
        assert parameter.requires_grad == trains == (parameter.grad is not None), name
        assert torch.equal(parameter, before[name]) != trains, name


def test_checkpoint_round_trip(base: tuple[Student, Path], tmp_path: Path) -> None:
    adapted, again = (lora_student(ARGS, base[1], targets=TARGETS) for _ in range(2))
    with torch.no_grad():
        for parameter in adapted.parameters():
            parameter.add_(0.1)
    save_atomic(adapted.state_dict(), tmp_path / "model.pt")
    load_weights(again, tmp_path / "model.pt")
    assert torch.equal(adapted.eval()(IMAGE), again.eval()(IMAGE))


def test_needs_weights_to_start_from(base: tuple[Student, Path], tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match="init_from must name the weights of a trained Swin student, got None"
    ):
        lora_student(ARGS, None)
    with pytest.raises(FileNotFoundError, match="init_from: no file"):
        lora_student(ARGS, tmp_path / "nowhere.pt")
    with pytest.raises(ValueError, match="another architecture"):
        lora_student({**ARGS, "channels": 16}, base[1])


@pytest.mark.parametrize("targets", [("layers1.0.blocks.0.mlp.fc1",), ("patch_embed",), ()])
def test_unknown_targets(targets: tuple[str, ...], base: tuple[Student, Path]) -> None:
    with pytest.raises(
        ValueError, match=r"targets must name linear layers .*stages\.0\.0\.blocks\.0\.mlp\.linear1"
    ):
        lora_student(ARGS, base[1], targets=targets)


def test_missing_peft_names_the_extra(base: tuple[Student, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ImportError, match=r"medbundles\[text\]"):
        lora_student(ARGS, base[1])


def test_overlay_trains(tiny_cohort: Path, trained: Path, tmp_path: Path) -> None:
    sizes = {"feature_size": 12, "level": 2, "window_size": [4, 4, 4]}
    save_atomic(Student(3, 32, "swin", sizes, "avgmax").state_dict(), tmp_path / "swin.pt")
    teacher = str(trained / "models" / "teacher.pt")
    overrides = {"init_from": str(tmp_path / "swin.pt"), "teacher_checkpoint": teacher, "epochs": 1}
    train(tiny_cohort, tmp_path, "swin_lora_student", **overrides)
    base, tuned = (
        torch.load(path, weights_only=True)
        for path in (tmp_path / "swin.pt", tmp_path / "models" / "model.pt")
    )
    key = "ct.stages.0.0.blocks.0.mlp.linear2.weight"
    assert torch.equal(base[key], tuned[key])
    assert not torch.equal(base["head.classify.0.weight"], tuned["head.classify.0.weight"])
    assert any("lora_A" in key for key in tuned)
