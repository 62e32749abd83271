"""Thresholds of the findings: chosen on scans, kept with the model, used by all that it says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from medbundles.precision import Precision
from rect_tiny_model import tiny_model, volumes
from rect_vlm.finding_scores import best_thresholds
from rect_vlm.findings import FINDINGS
from rect_vlm.model import ReCTVLM
from rect_vlm.predictions import finding_limits
from rect_vlm.thresholds import LEAST, validated_thresholds
from torch import Tensor

SCANS = 2 * LEAST
EVERY_SECOND = tuple(float(number % 2) for number in range(len(FINDINGS)))  # 0 and 1: all or none


@pytest.fixture(scope="module")
def model() -> ReCTVLM:
    model = tiny_model(generator=None)
    for parameter in model.classifier.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return model


def batches(labels: Tensor) -> list[dict[str, Tensor]]:
    torch.manual_seed(1)
    image = volumes(len(labels))
    regions = torch.zeros(image.shape, dtype=torch.uint8)
    return [
        {"image": image[i : i + 4], "regions": regions[i : i + 4], "labels": labels[i : i + 4]}
        for i in range(0, len(labels), 4)
    ]


def test_thresholds_have_the_highest_f1_where_there_are_enough_scans(model: ReCTVLM) -> None:
    labels = torch.zeros(SCANS, len(FINDINGS))
    labels[:LEAST, 0] = 1  # just enough
    labels[: LEAST - 1, 1] = 1  # one too few
    labels[:, 2] = torch.tensor([1.0] * LEAST + [0.0] * (LEAST - 1) + [-1.0])  # unknown ones do not count
    loader = batches(labels)
    chosen = validated_thresholds(model, Precision("cpu", "off"), loader)
    image = torch.cat([batch["image"] for batch in loader])
    with torch.no_grad():
        found = model.probabilities(model.encode(image))
    assert chosen[0] == pytest.approx(best_thresholds(found, labels)[0], abs=1e-4)
    assert chosen[0] != 0.5
    assert chosen[1:] == (0.5,) * (len(FINDINGS) - 1)


def test_a_saved_model_goes_by_its_thresholds(model: ReCTVLM, tmp_path: Path) -> None:
    image = volumes(1)
    model.save_pretrained(tmp_path)
    plain = ReCTVLM.from_pretrained(tmp_path)
    assert plain.thresholds is None
    half = plain.classify(image)
    assert torch.equal(half["predictions"], (half["probabilities"] > 0.5).long())
    plain.thresholds = EVERY_SECOND
    plain.save_pretrained(tmp_path)
    loaded = ReCTVLM.from_pretrained(tmp_path)
    wanted = list(FINDINGS)[::2]
    assert loaded.classify(image)["disease_names"] == [wanted]
    said = loaded.predict(image, generate_report=False)
    assert said["classification"]["disease_names"] == [wanted]
    seen = loaded.encode(image)
    (lines,) = loaded.told(seen, image)[1]
    assert not {name for name in list(FINDINGS)[1::2] for line in lines if f"{name} (classifier)" in line}
    # What is asked for goes before what was validated, in the evidence too.
    assert loaded.classify(image, threshold=0.0)["disease_names"] == [list(FINDINGS)]
    assert loaded.classify(image, threshold=[1.0] * 18)["disease_names"] == [[]]
    assert not any("(classifier)" in line for line in loaded.told(seen, image, threshold=1.0)[1][0])
    loaded.thresholds = None
    loaded.save_pretrained(tmp_path)
    assert ReCTVLM.from_pretrained(tmp_path).thresholds is None


@pytest.mark.parametrize(
    "content", ['{"Lung nodule": 0.5}', "[0.5]", "no json", json.dumps(dict.fromkeys(FINDINGS, 2))]
)
def test_a_broken_file_is_named(content: str, model: ReCTVLM, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    (tmp_path / "thresholds.json").write_text(content)
    with pytest.raises(ValueError, match=r"thresholds\.json must hold a probability for each of the 18"):
        ReCTVLM.from_pretrained(tmp_path)


def test_another_number_of_thresholds_is_refused() -> None:
    assert finding_limits(0.3) == (0.3,) * 18
    with pytest.raises(ValueError, match="one number or 18, got 3"):
        finding_limits([0.1, 0.2, 0.3])
    with pytest.raises(ValueError, match=r"must lie in 0\.\.1, got 1\.5"):
        finding_limits([1.5] * 18)
