"""Overlays of train.json: the teacher alone, and the sizes of the paper."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import ConfigParser
from react_training_runs import BUNDLE, equal, history, train, weights


def test_teacher_alone_is_the_teacher_of_a_full_run(tiny_cohort: Path, trained: Path, tmp_path: Path) -> None:
    train(tiny_cohort, tmp_path, "train_teacher")
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["teacher.pt"]
    assert equal(weights(tmp_path / "models" / "teacher.pt"), weights(trained / "models" / "teacher.pt"))
    assert history(tmp_path, "teacher") == history(trained, "teacher")
    assert not (tmp_path / "eval" / "student_history.jsonl").exists()


@pytest.fixture(scope="module")
def paper() -> ConfigParser:
    configs = [BUNDLE / "configs" / f"{name}.json" for name in ("train", "paper")]
    parser = ConfigParser(ConfigParser.load_config_files([str(path) for path in configs]))
    parser.parse()
    return parser


def on_meta(parser: ConfigParser, key: str) -> Any:
    """A network of the config that computes shapes without values."""
    return (
        parser.get_parsed_content(key).to("meta").eval()
    )  # training picks rows by their values, which meta tensors lack


def test_paper_size_student(paper: ConfigParser) -> None:
    student = on_meta(paper, "network_def")
    image = torch.empty(1, 3, *paper["size"], device="meta")
    assert student.ct.out_channels == 128
    with torch.no_grad():
        assert student.ct(image[:, :1]).shape == (1, 128, 28, 28, 8)
        assert student.pet(image[:, 1:]).shape == (1, 128, 28, 28, 8)
        said = student.encode(image)
    assert said["features"].shape == (1, 256, 28, 28, 8)
    assert said["logits"].shape == (1, 3)
    assert sum(p.numel() for p in student.ct.parameters()) == pytest.approx(4.40e6, rel=0.01)


def test_paper_size_teacher(paper: ConfigParser) -> None:
    teacher = on_meta(paper, "teacher")
    image = torch.empty(1, 3, *paper["size"], device="meta")
    with torch.no_grad():
        for encoder, channels in ((teacher.fdg, 2), (teacher.act, 2), (teacher.dose, 1)):
            assert encoder.stages[0][0].use_checkpoint
            assert encoder(image[:, :channels]).shape == (1, 384, 14, 14, 4)


PAPER = {
    "loss#alpha": 0.7, "batch_size": 4, "epochs": 100, "lr": 3e-4, "teacher_lr": 1e-4, "cache": "persistent",
    "optimizer#weight_decay": 1e-4, "modality_dropout": 0.3, "drop_pet_share": 0.5,
}  # fmt: skip


@pytest.mark.parametrize("key", PAPER)
def test_paper_numbers(key: str, paper: ConfigParser) -> None:
    assert paper[key] == PAPER[key]
