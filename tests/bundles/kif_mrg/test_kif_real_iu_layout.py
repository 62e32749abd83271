"""Training on an annotation in R2Gen's own layout of Indiana University X-Ray: two views, no labels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from kif_case_files import save_picture
from kif_mrg.conditions import CONDITIONS, IGNORE
from kif_studies import picture
from kif_training_runs import history, train, weights
from medbundles.text.labeler import CHEXPERT_CONDITIONS, label_report

REPORTS = (
    "The heart is normal in size. The lungs are clear. No XXXX pneumothorax.",
    "1. Cardiomegaly. 2. Small left pleural effusion.",
    "Right lower lobe opacity, possibly pneumonia. No pleural effusion.",
    "Stable cardiomegaly; XXXX catheter in place. Lungs are well-expanded.",
)
SPLITS = {"train": 8, "val": 3, "test": 2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """annotation.json and images/<id>/{0,1}.png, exactly the keys of R2Gen."""
    root = tmp_path_factory.mktemp("iu") / "iu_xray"
    content: dict[str, list[dict[str, Any]]] = {split: [] for split in SPLITS}
    number = 0
    for split, count in SPLITS.items():
        for _ in range(count):
            name = f"CXR{1000 + number}_IM-{number:04d}"
            views = [f"{name}/{view}.png" for view in range(2)]
            for view, path in enumerate(views):  # frontal upright, lateral narrow
                save_picture(
                    root / "images" / path, picture(number % 4, 2 * number + view, 90, 80 - 10 * view)
                )
            content[split].append(
                {"id": name, "report": REPORTS[number % 4], "image_path": views, "split": split}
            )
            number += 1
    (root / "annotation.json").write_text(json.dumps(content))
    return root


@pytest.fixture(scope="module")
def run(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    out = tmp_path_factory.mktemp("iu_run")
    workflow = train(folder, out, annotation=str(folder / "annotation.json"), views=2)
    return out, workflow.parser


def test_both_rounds_train_on_two_views(run: tuple[Path, Any]) -> None:
    out, parser = run
    batch = next(iter(parser.get_parsed_content("train#dataloader")))
    assert batch["image"].shape == (4, 2, 3, 64, 64)
    assert not torch.equal(batch["image"][:, 0], batch["image"][:, 1])
    reporter = parser.get_parsed_content("reporter").eval()
    with torch.no_grad():
        seen = reporter.describe(batch["image"], batch["memory"])
    assert seen["patches"].shape[1] == 2 * 4  # 2 x 2 patches of each view
    for index in range(2):
        rows = history(out, index)
        assert rows[1]["lm"] < rows[0]["lm"]
    state = weights(out / "models" / "reporter.pt")
    assert all(value.isfinite().all() for value in state.values())


def test_reports_are_labelled_by_rules(run: tuple[Path, Any]) -> None:
    _, parser = run
    records = parser.get_parsed_content("records")
    assert {split: len(rows) for split, rows in records.items()} == SPLITS
    known = [CONDITIONS.index(name) for name in CHEXPERT_CONDITIONS]
    for record in records["train"]:
        assert [record["labels"][i] for i in known] == list(label_report(record["raw"]))
        assert all(label == IGNORE for i, label in enumerate(record["labels"]) if i not in known)
    assert records["train"][1]["labels"][CONDITIONS.index("cardiomegaly")] == 1
    assert records["train"][1]["report"] == "cardiomegaly . small left pleural effusion ."
    assert records["train"][0]["study_id"] == "CXR1000"


def test_diagnosis_learns_from_labels_by_rules(run: tuple[Path, Any]) -> None:
    out, _ = run
    rows = history(out, 0)
    assert rows[1]["cls"] < rows[0]["cls"]
    assert 0 <= rows[1]["val_state_acc"] <= 1


def test_no_report_retrieves_its_own_study(run: tuple[Path, Any]) -> None:
    _, parser = run
    for split in ("train", "validate"):
        for item in parser.get_parsed_content(f"{split}#dataset"):
            assert item["study_id"] not in item["retrieved"]
            assert len(item["retrieved"]) == 3
