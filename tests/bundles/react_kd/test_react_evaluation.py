import base64
import json
import re
from functools import partial

import numpy as np
import pytest
import torch
from medbundles.tables import read_csv
from react_evaluation_runs import LEVELS, MODELS, SIZE, networks, run, workflow, write_cohort
from react_kd.data import read_datalist
from react_kd.evaluation_conditions import CT, PET, PETCT, DoseSweep
from react_kd.transforms import preprocessing
from sklearn.metrics import roc_auc_score


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluation")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MEDBUNDLES_CACHE", str(folder / "cache"))
        write_cohort(folder)
        yield folder


@pytest.fixture(scope="module")
def result(place):
    folder = run(place)
    return folder, json.loads((folder / "metrics.json").read_text()), read_csv(folder / "predictions.csv")


def rows_of(result, **wanted):
    return [row for row in result[1]["results"] if all(row[key] == value for key, value in wanted.items())]


def logits_of(result, network, condition):
    rows = [row for row in result[2] if (row["network"], row["condition"]) == (network, condition)]
    return [row["scan_id"] for row in rows], np.array(
        [[float(row[f"logit_{k}"]) for k in range(3)] for row in rows]
    )


def test_every_condition_is_measured_on_the_cases_that_allow_it(result):
    found = {
        (r["network"], r["condition"], r["cases"]): (r["n_cases"], r["noise_model"])
        for r in result[1]["results"]
    }
    doses = {f"ct_{level:g}_{model}": model for model in MODELS for level in LEVELS[1:]}
    expected = {("student", "pet", "with PET"): (5, "none")}
    for network in ("student", "teacher"):
        expected |= {(network, name, "all"): (7, model) for name, model in doses.items()}
        expected |= {(network, "ct", "all"): (7, "none"), (network, "ct", "with PET"): (5, "none")}
        expected |= {(network, "petct", "with PET"): (5, "none")}
    assert found == expected


def test_ungraded_cases_are_counted_and_left_out(result):
    facts = result[1]
    assert (facts["n_cases"], facts["n_patients"], facts["n_with_pet"]) == (7, 6, 5)
    assert facts["n_ungraded_left_out"] == 1
    assert "ungraded" not in {row["scan_id"] for row in result[2]}


def test_predictions_are_those_of_the_networks_on_the_same_images(place, result):
    student, teacher = (network.eval() for network in networks().values())
    student.load_state_dict(torch.load(place / "ckpt_dir" / "model.pt", weights_only=True))
    teacher.load_state_dict(torch.load(place / "ckpt_dir" / "teacher.pt", weights_only=True))
    case = read_datalist(place / "dataset_dir" / "datalist.json").splits["test"][3]
    noisy = {m: preprocessing(SIZE, dose_levels=[1e5, 5e2], dose_model=m)(dict(case)) for m in MODELS}
    image, pet = (noisy["linear"][key][None] for key in ("image", "pet"))
    low = {model: sample["dose"][None, 1:] for model, sample in noisy.items()}
    nothing = torch.full_like(pet, torch.nan)
    ct_only = torch.tensor([[False, False, True]])
    with torch.no_grad():
        expected = {
            ("student", "ct"): student(image),
            ("student", "petct"): student(torch.cat([image, pet], 1)),
            ("student", "pet"): student(
                torch.cat([image * torch.nan, pet], 1), torch.tensor([[False, True]])
            ),
            ("student", "ct_500_linear"): student(low["linear"]),
            ("student", "ct_500_beer_lambert"): student(low["beer_lambert"]),
            ("teacher", "petct"): teacher(image, pet, image, torch.ones(1, 3, dtype=torch.bool))["logits"],
            ("teacher", "ct"): teacher(image, nothing, image, ct_only)["logits"],
            ("teacher", "ct_500_linear"): teacher(low["linear"], nothing, low["linear"], ct_only)["logits"],
        }
    for (network, condition), logits in expected.items():
        scans, written = logits_of(result, network, condition)
        found = written[scans.index("s3")]
        np.testing.assert_allclose(found, logits[0].numpy(), atol=2e-4, err_msg=f"{network} {condition}")
    values = torch.cat(list(expected.values()))
    assert (
        torch.cdist(values, values).add(torch.eye(len(values))).min() > 2e-3
    )  # so that none passes for another


def test_scores_agree_with_scikit_learn_on_the_written_predictions(result):
    for row in rows_of(result, cases="all"):
        mine = [p for p in result[2] if (p["network"], p["condition"]) == (row["network"], row["condition"])]
        labels = np.array([int(p["label"]) for p in mine])
        probs = np.array([[float(p[f"prob_{k}"]) for k in range(3)] for p in mine])
        auc = roc_auc_score(labels, probs / probs.sum(1, keepdims=True), multi_class="ovr")
        assert row["metrics"]["auc_macro"]["value"] == pytest.approx(auc)
        assert row["metrics"]["accuracy"]["value"] == pytest.approx(np.mean(probs.argmax(1) == labels))
        assert sum(map(sum, row["confusion"])) == len(mine) == 7


def test_the_page_names_what_was_evaluated_and_shows_every_figure(place, result):
    folder, facts, _ = result
    page = (folder / "evaluation.html").read_text()
    sums = {name: entry["sha256"][:12] for name, entry in facts["checkpoints"].items()}
    for text in (
        "made-up livers",
        "Split test: 7 graded scans of 6 patients",
        "1 ungraded left out",
        *sums.values(),
    ):
        assert text in page
    names = {"roc", "confusion", "reliability", "decision_curve", "modalities", "decision_curve_modalities"}
    figures = {path.stem: path.read_bytes() for path in folder.glob("*.png")}
    assert set(figures) == names | {"dose_beer_lambert", "dose_linear"}
    shown = {base64.b64decode(data) for data in re.findall(r"base64,([^\"]+)", page)}
    assert shown == set(figures.values())
    assert not list(folder.glob(".*"))


def test_an_external_split_of_ct_alone_without_a_teacher(place, tmp_path):
    (tmp_path / "model.pt").write_bytes((place / "ckpt_dir" / "model.pt").read_bytes())
    one = {"noise_models": "linear", "dose_levels": [None], "n_bootstrap": 5}
    folder = run(place, split="external", ckpt_dir=str(tmp_path), output_dir=str(tmp_path / "out"), **one)
    rows = json.loads((folder / "metrics.json").read_text())["results"]
    assert [(row["network"], row["condition"], row["n_cases"]) for row in rows] == [("student", "ct", 3)]
    page = (folder / "evaluation.html").read_text()
    assert "No case of this split has a PET" in page
    assert "no teacher.pt" in page
    assert not (folder / "modalities.png").exists()


def test_the_two_files_make_a_workflow_without_weights(place):
    flow = workflow(place, ckpt_dir="/nowhere")
    flow.initialize()
    assert flow.check_properties() == []


def test_dose_levels_of_all_models_come_from_one_sample(place):
    sweep = DoseSweep(partial(preprocessing, SIZE), LEVELS, MODELS)
    case = read_datalist(place / "dataset_dir" / "datalist.json").splits["test"][0]
    sample = sweep(case)
    assert sweep.conditions[:3] == [CT, PETCT, PET]
    assert {sample[f"dose_{model}"].shape for model in MODELS} == {(2, *SIZE)}
    assert "dose" not in sample
    noise = {model: (sample[f"dose_{model}"] - sample["image"]).std(dim=(1, 2, 3)) for model in MODELS}
    assert all(low > high > 0 for high, low in noise.values())
