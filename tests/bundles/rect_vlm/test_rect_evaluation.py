"""The evaluate workflow on an untrained model: its words and masks, the floors beside it, and errors."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import rect_evaluation_runs as runs
from medbundles.contract.configs import config_problems
from medbundles.errors import without_wrappers
from medbundles.registry import get
from medbundles.tables import read_csv
from rect_tiny_ctrate import LESION, SHAPE, SPACING
from rect_vlm import evaluation_floors as floors
from rect_vlm.ctrate import read_ctrate
from rect_vlm.evaluation_cohort import EvaluationCohort
from rect_vlm.evaluation_gallery import sections, worst_and_spread
from rect_vlm.findings import FINDINGS, LESIONS
from rect_vlm.model import ReCTVLM

REPORT_ARMS = [
    floors.MODEL,
    floors.SHUFFLED,
    floors.CONSTANT,
    floors.COMMON,
    floors.RANDOM,
    floors.REFERENCES,
]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluation")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MEDBUNDLES_CACHE", str(folder / "cache"))
        runs.write_cohort(folder / "data")
        runs.write_model(folder)
        yield folder


@pytest.fixture(scope="module")
def result(place):
    folder = runs.run(place)
    metrics = json.loads((folder / "metrics.json").read_text(), parse_constant=pytest.fail)
    return folder, metrics, read_csv(folder / "predictions.csv")


def test_predictions_are_those_of_the_python_api(place, result) -> None:
    model = ReCTVLM.from_pretrained(place / "models" / "rect_vlm")
    records = read_ctrate(place / "data", "valid")
    assert [row["id"] for row in result[2]] == [record["id"] for record in records]
    search = {"do_sample": False, "max_new_tokens": 12}
    for record, row in list(zip(records, result[2], strict=True))[:2]:
        said = model.predict(record["image"], record["regions"], report_generation_config=search)
        expected = said["classification"]["probabilities"][0].tolist()
        assert [float(row[f"p {name}"]) for name in FINDINGS] == pytest.approx(expected, rel=1e-3)
        assert row["report"] == said["reports"][0]
        assert row["reference"] == record["report"]
        found = said["localization"]["binary_masks"]["lung_nodule"][0]
        assert found.any()
        volume = float(found.sum()) * SPACING**3 / 1000
        assert float(row["lung_nodule found_ml"]) == pytest.approx(volume, rel=0.01)


def test_lesions_count_on_the_voxels_of_the_file(result) -> None:
    rows = {row["id"]: row for row in result[2]}
    lesion = np.zeros(SHAPE)
    lesion[LESION] = 1
    assert float(rows["valid_1_a_1"]["lung_nodule true_ml"]) == lesion.sum() * SPACING**3 / 1000
    assert rows["valid_2_a_1"]["lung_nodule dice"] == ""
    told = result[1]["lesions"]["lung_nodule"]
    assert (told["positives"], told["negatives"]) == (3, 2)
    dice = [float(rows[f"valid_{number}_a_1"]["lung_nodule dice"]) for number in (1, 3, 5)]
    assert told["dice"]["value"] == pytest.approx(np.mean(dice))
    assert told["false_ml"]["value"] > 0
    assert result[1]["lesions"]["consolidation"]["dice"]["value"] is None  # nobody looked for it
    assert result[1]["lesions"]["all lesions"]["dice"] == told["dice"]


def test_every_floor_stands_beside_the_model(result) -> None:
    metrics = result[1]
    assert list(metrics["reports"]["arms"]) == REPORT_ARMS
    arms = metrics["findings"]["arms"]
    assert list(arms) == [floors.MODEL, floors.SHUFFLED, floors.PREVALENCE]
    assert set(floors.EXPLAINED) == {*REPORT_ARMS, *arms}
    assert metrics["findings"]["auroc_defined"] == 2
    assert arms[floors.PREVALENCE]["auroc_macro"]["value"] == 0.5
    assert arms[floors.MODEL]["auroc_macro"]["low"] is not None
    assert metrics["reports"]["arms"][floors.REFERENCES]["rule labeler CRG"]["value"] > 0.4
    both = [arms[name]["auroc_macro"]["value"] for name in (floors.MODEL, floors.SHUFFLED)]
    difference = metrics["findings"]["differences"][floors.SHUFFLED]["auroc_macro"]["value"]
    assert difference == pytest.approx(both[0] - both[1])
    assert both[0] != both[1]
    assert all(row["report_shuffled"] for row in result[2])


def test_the_page_shows_everything_and_needs_no_network(result) -> None:
    page = (result[0] / "evaluation.html").read_text()
    for heading in ("Findings", "Lesions", "Reports", "Scans", "How it was computed"):
        assert f">{heading}</h2>" in page
    assert page.count("<figure>") == 4 + 2  # bars, ROC, overlap, bars; of the scan slices and probabilities
    assert "Epochs were chosen on these scans" in page
    assert "http" not in page.replace("http-equiv", "")
    assert {path.name for path in result[0].glob("*.csv")} == {
        "predictions.csv",
        "findings.csv",
        "lesions.csv",
    }


def test_thresholds_never_come_from_evaluated_scans(place) -> None:
    data = str(place / "data")
    valid = EvaluationCohort(data, "valid", data, threshold_scans=2, check_files=False).read()
    assert [record["split"] for record in valid.held_out] == ["train"] * 2
    assert {record["split"] for record in valid.records} == {"valid"}
    assert len(valid.training) == 4
    train = EvaluationCohort(data, "train", data, threshold_scans=2, check_files=False).read()
    evaluated, held_out = ({r["patient"] for r in rows} for rows in (train.records, train.held_out))
    assert (len(evaluated), len(held_out), evaluated & held_out) == (4, 2, set())
    assert train.training == train.held_out  # floors of evaluated reports would not be floors
    assert "learned" in " ".join(valid.notes)


def test_a_cohort_without_training_labels_reports_or_masks_is_evaluated_for_what_it_has(
    place, tmp_path
) -> None:
    shutil.copytree(place / "data" / "valid_fixed", tmp_path / "data" / "valid_fixed")
    labels = Path("multi_abnormality_labels") / "valid_predicted_labels.csv"
    (tmp_path / "data" / labels).parent.mkdir()
    shutil.copy(place / "data" / labels, tmp_path / "data" / labels)
    overrides = {"dataset_dir": str(tmp_path / "data"), "output_dir": str(tmp_path / "out"), "gallery": 0}
    folder = runs.run(place, report=False, **overrides)
    metrics = json.loads((folder / "metrics.json").read_text())
    assert {"lesions", "reports"}.isdisjoint(metrics)
    assert list(metrics["findings"]["arms"]) == [floors.MODEL, floors.SHUFFLED]
    assert {row["threshold"] for row in metrics["findings"]["per_finding"]} == {0.5}
    told = " ".join(metrics["notes"])
    assert all(part in told for part in ("--training_dir", "no true masks", "no reports"))
    assert metrics["findings"]["arms"][floors.MODEL]["auroc_macro"]["value"] is not None


def test_errors_come_before_any_work(place, tmp_path) -> None:
    with pytest.raises(RuntimeError) as caught:
        runs.run(place, ckpt_dir=str(tmp_path), output_dir=str(tmp_path / "out"))
    assert "train one with" in str(without_wrappers(caught.value))
    with pytest.raises(RuntimeError) as caught:
        runs.run(place, split="test", output_dir=str(tmp_path / "out"))
    assert "split must be one of train, valid" in str(without_wrappers(caught.value))


def test_configs_have_all_properties(place) -> None:
    flow = runs.workflow(place)
    flow.initialize()
    assert flow.check_properties() == []
    problems = config_problems(get("rect_vlm"))
    assert [line for line in problems if line.startswith("configs/evaluate.json")] == []


def test_the_gallery_takes_the_worst_third_and_spreads_the_rest() -> None:
    order = list(range(100, 130))
    chosen = worst_and_spread(order, 9)
    assert chosen[:3] == [100, 101, 102]
    assert (chosen[-1], len(set(chosen))) == (129, 9)
    assert worst_and_spread([4, 2], 9) == [4, 2]
    assert sections("FINDINGS:\nA b.\n\nIMPRESSION:\nC.") == {"findings": "A b.", "impression": "C."}
    assert sections("") == {"findings": "–", "impression": "–"}
    assert len(LESIONS) == 5
