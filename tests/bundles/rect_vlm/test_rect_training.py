"""All phases on a few scans: what each trains, starts with and leaves behind."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from rect_llm import tiny_folder
from rect_training_runs import TRAINED, checkpoint, history, make_cohort, train
from rect_vlm.model import ReCTVLM

PHASES = tuple(TRAINED)


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MEDBUNDLES_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="module")
def llm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_folder(tmp_path_factory.mktemp("llm"))


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_cohort(tmp_path_factory.mktemp("cohort"))


@pytest.fixture(scope="module")
def out(cohort: Path, llm: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a run of all five phases."""
    folder = tmp_path_factory.mktemp("run")
    train(cohort, folder, llm, *PHASES)
    return folder


@pytest.mark.parametrize("phase", PHASES)
def test_a_checkpoint_holds_the_parts_that_its_phase_trains_and_no_other(phase: str, out: Path) -> None:
    assert {key.split(".")[0] for key in checkpoint(out, phase)} == set(TRAINED[phase])


@pytest.mark.parametrize(
    ("phase", "part", "source"),
    [("1.2", "vision", "1.1"), ("2", "vision", "1.2"), ("2", "classifier", "1.1"), ("2", "lora", "1.3")],
)
def test_a_phase_moves_the_weights_it_starts_with(phase: str, part: str, source: str, out: Path) -> None:
    before, after = checkpoint(out, source), checkpoint(out, phase)
    keys = [key for key in after if key.split(".")[0] == part and after[key].is_floating_point()]
    moved = [key for key in keys if not torch.equal(before[key], after[key])]
    assert moved
    # Near what it started with: one epoch at small rates, not new weights.
    distance = sum((after[key] - before[key]).norm() ** 2 for key in keys) ** 0.5
    assert distance < 0.5 * sum(before[key].norm() ** 2 for key in keys) ** 0.5


@pytest.mark.parametrize(
    ("phase", "metrics"),
    [("1.1", {"val_auroc"}), ("1.2", {"val_dice", "val_false_ml"}), ("1.3", {"val_label_f1"})],
)
def test_a_phase_logs_the_measures_of_its_tasks(phase: str, metrics: set[str], out: Path) -> None:
    (row,) = history(out, phase)
    assert metrics <= set(row)
    assert {key for key in row if key.startswith("val_")} == {*metrics, "val_score"}


def test_phase_3_logs_rewards_from_before_its_first_step(out: Path) -> None:
    rows = history(out, "3")
    assert [row["epoch"] for row in rows] == [0, 1, 2]
    assert all(0 <= row["val_reward"] <= 1 for row in rows)


def test_the_saved_model_predicts(out: Path) -> None:
    model = ReCTVLM.from_pretrained(out / "models" / "rect_vlm")
    for name, tensor in checkpoint(out, "2").items():
        if name.split(".")[0] == "classifier":
            assert torch.equal(tensor, model.weights_state(["classifier"])[name])
    answer = model.predict(
        torch.rand(2, 1, *model.geometry.img_size) * 2 - 1,
        report_generation_config={"max_new_tokens": 4, "do_sample": False},
    )
    assert answer["classification"]["probabilities"].shape == (2, 18)
    assert len(answer["reports"]) == 2


def test_what_is_finished_is_left_out(
    out: Path, cohort: Path, llm: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = {path: path.stat().st_mtime_ns for path in (out / "models").glob("phase_*.pt")}
    with caplog.at_level(logging.INFO):
        train(cohort, out, llm, "1.1", "1.2")
    assert {path: path.stat().st_mtime_ns for path in (out / "models").glob("phase_*.pt")} == before
    assert "phase 1.1 is finished" in caplog.text


def test_a_phase_without_the_ones_before_is_refused_before_anything_is_read(
    tmp_path: Path, llm: Path
) -> None:
    cohort = make_cohort(tmp_path)
    with pytest.raises(
        FileNotFoundError, match=r"phase 2 starts with vision of phase 1\.2: no file .*phase_1_2"
    ):
        train(cohort, tmp_path, llm, "2")
    assert not list(cohort.rglob("*.nii.gz"))
