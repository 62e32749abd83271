"""Phase 3 goes by the thresholds that the saved model has, whether or not it was killed before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from medbundles.engines.checkpointing import save_weights
from rect_llm import tiny_folder
from rect_tiny_model import tiny_model
from rect_vlm.curriculum import Curriculum
from rect_vlm.findings import FINDINGS
from rect_vlm.model import ReCTVLM
from rect_vlm.part_weights import PartWeights
from rect_vlm.phases import PARTS, Phase

TABLE = {
    "2": {"trains": dict.fromkeys(PARTS, 1.0), "losses": {"cls": 1, "loc": 1, "gen": 1}, "epochs": 1},
    "3": {"trains": {"lora": 1.0}, "losses": {"reward": 1.0}, "epochs": 1},
}


class Run:
    """A curriculum whose phases move their parts by noise and note the thresholds and the noise they had."""

    def __init__(self, llm: Path, out: Path, thresholds: bool = True, killed_in: str | None = None) -> None:
        self.out, self.killed_in = out, killed_in
        self.model: ReCTVLM = tiny_model(llm)
        self.noted: dict[str, tuple[float, ...] | None] = {}
        self.noise: dict[str, float] = {}
        self.chosen = 0
        self.thresholds = self.choose if thresholds else None

    def train(self, *phases: str) -> None:
        Curriculum(
            lambda tasks: None, self.model, TABLE, phases, self.phase, self.phase,
            self.add_generator, str(self.out), str(self.out / "eval"), {},
            thresholds=self.thresholds,
        ).run()  # fmt: skip

    def add_generator(self) -> None:
        self.model.load_generator()

    def choose(self) -> Sequence[float]:
        """A function of the classifier's weights that draws from the random numbers, as a loader does."""
        torch.rand(3)
        self.chosen += 1
        weights = [weight.double().sum() for weight in self.model.weights_state(["classifier"]).values()]
        return [float(torch.stack(weights).sum().abs() % 1)] * len(FINDINGS)

    def phase(self, phase: Phase, fingerprint: Mapping[str, Any]) -> dict[str, float]:
        self.noted[phase.name], self.noise[phase.name] = self.model.thresholds, float(torch.rand(()))
        if phase.name == self.killed_in:
            raise KeyboardInterrupt
        view = PartWeights(self.model, list(phase.trains))
        state = {
            key: value + 0.1 * torch.randn(value.shape) if value.is_floating_point() else value
            for key, value in view.state_dict().items()
        }
        view.load_state_dict(state)
        self.out.mkdir(exist_ok=True)
        save_weights(view.state_dict(), self.out / f"{phase.stem}.pt")
        return {"val_score": 0.0}

    @property
    def saved(self) -> tuple[float, ...] | None:
        return ReCTVLM.from_pretrained(self.out / "rect_vlm").thresholds


@pytest.fixture(scope="module")
def llm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_folder(tmp_path_factory.mktemp("llm"))


def test_phase_3_has_the_thresholds_of_the_saved_model(llm: Path, tmp_path: Path) -> None:
    run = Run(llm, tmp_path / "run")
    first = tuple(run.choose())
    run.train("2", "3")
    assert run.noted["2"] is None
    assert run.noted["3"] == run.saved
    assert run.noted["3"] not in (None, first)  # of the classifier that phase 2 left

    finished = Run(llm, tmp_path / "run")
    finished.train("2", "3")
    assert (finished.noted, finished.chosen) == ({}, 1)  # for the folder alone

    plain = Run(llm, tmp_path / "plain", thresholds=False)
    plain.train("2", "3")
    assert (plain.noted["3"], plain.saved) == (None, None)
    assert plain.noise == run.noise  # choosing moves no random number of the phase


def test_a_run_killed_in_phase_3_goes_on_with_the_same_thresholds(llm: Path, tmp_path: Path) -> None:
    killed = Run(llm, tmp_path / "run", killed_in="3")
    with pytest.raises(KeyboardInterrupt):
        killed.train("2", "3")
    again = Run(llm, tmp_path / "run")
    again.train("3")
    assert killed.noted["3"] is not None
    assert again.noted == {"3": killed.noted["3"]}
    assert again.noise["3"] == killed.noise["3"]
    assert again.saved == killed.noted["3"]
