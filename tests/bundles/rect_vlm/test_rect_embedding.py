"""Lesions as tokens of their own: training and validation give the generator what prediction gives it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from medbundles.precision import Precision
from rect_llm import LINES, REPORTS, tiny_folder
from rect_tiny_ctrate import GEOMETRY
from rect_tiny_model import GENERATOR, tiny_model, volumes
from rect_vlm.model import ReCTVLM
from rect_vlm.phase_evaluator import PhaseEvaluator
from rect_vlm.task_terms import TaskTerms

ALONE, JOINT = {"gen": 1.0}, {"cls": 1.0, "loc": 1.0, "gen": 1.0}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ReCTVLM:
    llm = tiny_folder(tmp_path_factory.mktemp("llm"))
    model = tiny_model(llm, generator={**GENERATOR, "evidence": "embedding"})
    model.load_generator()
    return model.eval()


def batch(lesions: bool = True, known: bool = True) -> dict[str, Any]:
    """Two scans whose lesions fill the upper half of the volume, or are not there."""
    torch.manual_seed(1)
    masks = torch.zeros(2, 5, *GEOMETRY.img_size)
    masks[:, :, GEOMETRY.img_size[0] // 2 :] = lesions
    return {
        "image": volumes(2),
        "regions": torch.zeros(2, 1, *GEOMETRY.img_size, dtype=torch.uint8),
        "labels": torch.ones(2, 18),
        "masks": masks,
        "mask_known": torch.full((2, 5), known),
        "affine": torch.eye(4).expand(2, 4, 4),
        "report": REPORTS,
        "evidence": LINES,
    }


def spoken(model: ReCTVLM, losses: dict[str, float], given: dict[str, Any], **shares: float) -> float:
    with torch.no_grad():
        terms = TaskTerms(model, **{"drop_evidence": 0.0, "predicted_evidence": 0.0, **shares})
        return terms(given, losses, ())["gen"].item()


def test_the_generator_learns_with_the_true_lesions_that_are_known(model: ReCTVLM) -> None:
    nothing = spoken(model, ALONE, batch(lesions=False))
    assert abs(spoken(model, ALONE, batch()) - nothing) > 1e-4
    assert spoken(model, ALONE, batch(known=False)) == pytest.approx(nothing, abs=1e-6)
    assert spoken(model, ALONE, batch(), drop_evidence=1.0) == pytest.approx(nothing, abs=1e-6)


def test_the_joint_phase_shows_what_the_model_outlines_itself(model: ReCTVLM) -> None:
    given = batch()
    with torch.no_grad():
        vision = model.encode(given["image"], given["regions"])
        told = model.told(vision, given["image"], given["regions"])
        expected = model.load_generator().loss(*told, REPORTS)["gen"].item()
    for lesions in (True, False):
        found = spoken(model, JOINT, batch(lesions), predicted_evidence=1.0)
        assert found == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("tasks", [tuple(ALONE), tuple(JOINT)])
def test_validation_writes_from_true_or_own_lesions(model: ReCTVLM, tasks: tuple[str, ...]) -> None:
    evaluator = PhaseEvaluator(model, Precision("cpu", "off"), [batch()], max_new_tokens=4)
    evaluator.tasks = tasks
    seen = []
    projected = model.load_generator().projector.register_forward_pre_hook(
        lambda _, inputs: seen.append(inputs[0]["lesion_weights"])
    )
    evaluator.run()
    projected.remove()
    assert 0 <= evaluator.state.metrics["val_label_f1"] <= 1
    (weights,) = seen
    layers = weights.reshape(2, 5, GEOMETRY.img_size[0] // GEOMETRY.patch[0], -1).mean(3)
    half = layers.shape[2] // 2
    upper_alone = bool((layers[:, :, :half] == 0).all() and (layers[:, :, half + 1 :] == 1).all())
    assert upper_alone == (tasks == tuple(ALONE))
