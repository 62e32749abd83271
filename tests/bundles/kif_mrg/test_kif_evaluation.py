"""The evaluate workflow on an untrained reporter: its words, the floors beside it, what it leaves alone."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from pathlib import Path

import kif_evaluation_runs as runs
import numpy as np
import pytest
import torch
from kif_mrg import evaluation_floors as floors
from kif_mrg.annotation import read_annotation
from kif_mrg.conditions import CONDITIONS
from kif_mrg.diagnosis_scores import score_diagnosis
from kif_mrg.memory import ReportMemory
from kif_mrg.networks import KifReporter
from kif_mrg.transforms import eval_transform
from medbundles.errors import without_wrappers
from medbundles.tables import read_csv
from medbundles.text.efficacy import clinical_efficacy
from medbundles.text.labeler import label_reports

REPORT_ROWS = [floors.MODEL, floors.SHUFFLED, floors.CONSTANT, floors.COMMON, floors.RANDOM]
HEAD_ROWS = [floors.MODEL, floors.SHUFFLED, floors.UNRETRIEVED, floors.COMMON_STATES]


def sums(folder: Path) -> dict[str, str]:
    files = [path for path in folder.rglob("*") if path.is_file() and "retrieved" not in path.name]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def no_nan(name: str) -> float:
    raise AssertionError(f"metrics.json must be strict JSON, got {name}")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluation")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MEDBUNDLES_CACHE", str(folder / "cache"))
        runs.write_cohort(folder)
        yield folder


@pytest.fixture(scope="module")
def reporter(place) -> KifReporter:
    return runs.write_checkpoint(place)


@pytest.fixture(scope="module")
def result(place, reporter):
    folder = runs.run(place)
    metrics = json.loads((folder / "metrics.json").read_text(), parse_constant=no_nan)
    return folder, metrics, [json.loads(row) for row in (folder / "predictions.jsonl").open()]


def test_the_reports_are_those_of_the_reporter_on_each_image(place, reporter, result):
    records = read_annotation(place / "dataset_dir")["test"]
    memory = ReportMemory.load(place / "ckpt_dir" / "memory.npz")
    memory.attach(records, 3)
    assert [row["id"] for row in result[2]] == [record["id"] for record in records]
    transform = eval_transform(64, 64)
    search = {"num_beams": 2, "max_new_tokens": 12, "min_new_tokens": 3}
    for record, row in zip(records, result[2], strict=True):
        image = torch.as_tensor(transform({"image_path": record["image_path"]})["image"])[None]
        said = reporter.generate(image, memory.gather(record["retrieved"])[None], **search)
        assert row["report"] == reporter.tokenizer.comparable(said["reports"][0])
        assert row["reference"] == reporter.tokenizer.comparable(record["report"])
        torch.testing.assert_close(
            torch.tensor(row["probs"]), said["class_logits"][0].softmax(0), atol=1e-4, rtol=0
        )
        assert row["labels"] == record["labels"]


def test_every_floor_stands_beside_the_model(result):
    assert set(floors.EXPLAINED) == {*REPORT_ROWS, *HEAD_ROWS}
    _, metrics, rows = result
    assert list(metrics["reports"]) == REPORT_ROWS
    assert list(metrics["differences"]) == REPORT_ROWS[1:]
    assert list(metrics["diagnosis"]) == HEAD_ROWS
    assert metrics["bootstrap"] == {"replicates": 20, "seed": 0, "unit": "study", "confidence": 0.95}
    assert metrics["simulated"]
    assert (metrics["labeler"], metrics["reference_mode"]) == ("rule", "full")
    assert (metrics["uncertain"], metrics["empty"]) == ("negative", "zero")
    assert metrics["decoder_weights"] == "fp32"
    assert metrics["reports"][floors.CONSTANT]["unique_reports"]["value"] == pytest.approx(1 / 6)
    for row in rows:
        assert row["shuffled"]


def test_the_numbers_follow_from_the_written_predictions(result):
    folder, metrics, rows = result
    states = label_reports([row["report"] for row in rows])
    assert states.tolist() == [row["report_labels"] for row in rows]
    true = label_reports([row["reference"] for row in rows])
    for name, value in clinical_efficacy(states, true).items():
        assert metrics["reports"][floors.MODEL][name]["value"] == pytest.approx(value)
    readings = {(row["uncertain"], row["empty"]): row["ce_micro_f1"] for row in metrics["efficacy_readings"]}
    assert readings["positive", "one"] == clinical_efficacy(states, true, "positive", "one")["ce_micro_f1"]
    probs, labels = np.array([row["probs"] for row in rows]), np.array([row["labels"] for row in rows])
    accuracy = (probs.argmax(axis=1) == labels).mean()
    assert metrics["diagnosis"][floors.MODEL]["accuracy"]["value"] == pytest.approx(accuracy)
    table = read_csv(folder / "conditions.csv")
    assert [row["condition"] for row in table] == list(CONDITIONS)
    assert [int(row["references"]) for row in table[:14]] == (true == 1).sum(axis=0).tolist()
    assert [int(row["reports"]) for row in table[:14]] == (states == 1).sum(axis=0).tolist()
    assert [int(row["positive"]) for row in table] == (labels == 1).sum(axis=0).tolist()
    assert table[14]["f1"] == ""  # the labeler does not know the aorta


def test_the_page_holds_every_figure_and_the_cases(result):
    folder, metrics, rows = result
    page = (folder / "evaluation.html").read_text()
    figures = {path.stem: path.read_bytes() for path in folder.glob("*.png")}
    assert set(figures) == {"floors", "conditions", "states", "lengths"}
    shown = {base64.b64decode(data) for data in re.findall(r"base64,([^\"]+)", page)}
    assert shown > set(figures.values())
    assert len(shown) == 4 + 3  # and three cases
    for text in ("simulated", "retrieval is left unshuffled", metrics["checkpoint"]["sha256"][0][:12]):
        assert text in page
    worst = min(rows, key=lambda row: row["ce_example_f1"])["ce_example_f1"]
    assert f"F1 of the report {worst:.2f}" in page
    assert not list(folder.glob(".*"))


def test_the_diagnosis_floors_are_what_they_say(place, reporter, result):
    splits, metrics = read_annotation(place / "dataset_dir"), result[1]
    labels = np.array([record["labels"] for record in splits["test"]])
    transform = eval_transform(64, 64)
    images = [torch.as_tensor(transform({"image_path": r["image_path"]})["image"]) for r in splits["test"]]
    training = np.array([record["labels"] for record in splits["train"]])
    with torch.no_grad():
        alone = reporter.diagnosis(torch.stack(images)).softmax(dim=1).numpy()
    common = np.eye(4)[[np.bincount(column).argmax() for column in training.T]].T[None].repeat(6, 0)
    for name, probs in ((floors.UNRETRIEVED, alone), (floors.COMMON_STATES, common)):
        expected = score_diagnosis(probs, labels, (1,), np.ones((1, 6))).values
        found = {key: entry["value"] for key, entry in metrics["diagnosis"][name].items()}
        assert found == pytest.approx(expected, abs=1e-6)


def test_another_data_set_leaves_the_checkpoint_as_it_is(place, reporter, tmp_path):
    before = sums(place / "ckpt_dir")
    runs.write_cohort(tmp_path, seed=5)
    moved = {"dataset_dir": str(tmp_path / "dataset_dir"), "output_dir": str(tmp_path / "out"), "gallery": 0}
    folder = runs.run(place, **moved, split="val", uncertain="positive", reference_mode="promptmrg")
    assert sums(place / "ckpt_dir") == before
    metrics = json.loads((folder / "metrics.json").read_text())
    assert (metrics["uncertain"], metrics["reference_mode"]) == ("positive", "promptmrg")
    assert metrics["n_reports"] == 5
    assert any("were chosen on these cases" in note for note in metrics["notes"])


def test_a_single_case_without_training_data_says_what_is_missing(place, reporter, tmp_path):
    entries = json.loads((place / "dataset_dir" / "annotation.json").read_text())["test"][:1]
    entries[0]["image_path"] = [str(place / "dataset_dir" / "images" / entries[0]["image_path"][0])]
    (tmp_path / "external.json").write_text(json.dumps(entries))
    given = {"annotation": str(tmp_path / "external.json"), "output_dir": str(tmp_path / "out")}
    metrics = json.loads((runs.run(place, **given) / "metrics.json").read_text())
    assert list(metrics["reports"]) == [floors.MODEL, floors.COMMON, floors.RANDOM]  # of the memory's reports
    assert list(metrics["diagnosis"]) == [floors.MODEL, floors.UNRETRIEVED]
    notes = " ".join(metrics["notes"])
    assert "no row with shuffled images" in notes
    assert "no validation reports" in notes
    assert not metrics["simulated"]  # the annotation is not that of a simulated cohort


def test_a_missing_checkpoint_names_the_command_that_trains(place, tmp_path):
    flow = runs.workflow(place, ckpt_dir=str(tmp_path / "none"), output_dir=str(tmp_path / "out"))
    flow.initialize()
    assert flow.check_properties() == []
    with pytest.raises(RuntimeError) as error:
        flow.run()
    cause = without_wrappers(error.value)
    assert isinstance(cause, FileNotFoundError)
    assert "configs/train.json" in str(cause)
    assert not (tmp_path / "out").exists()


def test_a_split_without_records_is_refused(place, reporter):
    with pytest.raises(RuntimeError) as error:
        runs.run(place, split="exam")
    assert "got 'exam'; there are train 14, val 5, test 6" in str(without_wrappers(error.value))
