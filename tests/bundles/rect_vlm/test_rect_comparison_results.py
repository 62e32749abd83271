"""The comparison: tables of what is there, and runs that are trained, scored and resumed."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rect_comparison_budget import TINY
from rect_llm import tiny_folder
from rect_training_runs import numbers
from rect_vlm.comparison import driver, main
from rect_vlm.comparison.plan import ARMS, FULL, Budget, Run, run_file
from rect_vlm.comparison.results import read_results
from rect_vlm.comparison.scoring import Examination
from rect_vlm.comparison.summary import write_summary
from rect_vlm.comparison.tables import F1, all_tables

JOINT = dict.fromkeys(("vision", "classifier", "localizer", "projector"), "2")
LOADED = {
    "3": {**JOINT, "lora": "3"},
    "1.1": {"vision": "1.1", "classifier": "1.1"},
    "1.2": {"vision": "1.2", "localizer": "1.2"},
    "2": {**JOINT, "lora": "2"},
}


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDBUNDLES_CACHE", str(tmp_path_factory.mktemp("cache")))


def write_runs(folder: Path, scores: Mapping[Run, Mapping[str, Mapping[str, float | None]]]) -> None:
    for run, phases in scores.items():
        path = run_file(folder, run)
        path.parent.mkdir(parents=True, exist_ok=True)
        alike = dict.fromkeys(("changes", "test", "configs", "text_encoder", "code"), "a")
        path.write_text(json.dumps({"fingerprint": alike, "phases": phases}))


def test_tables_hold_means_and_paired_differences_over_the_seeds_that_are_there(tmp_path: Path) -> None:
    alone, joint = [0.80, 0.84, 0.82], [0.83, 0.85, 0.90]
    scores: dict[Run, Any] = {}
    for seed in range(3):
        report = {f"reports/{arm}/{F1}": value for arm, value in (("model", 0.7), ("constant report", 0.3))}
        found = {"auroc/macro": joint[seed], "auroc/Emphysema": 0.9, "auroc/Bronchiectasis": None, **report}
        scores[Run(FULL, seed)] = {
            "1.1": {"auroc/macro": alone[seed]},
            "2": found,
            "3": {"reward/before": 0.5},
        }
    scores |= {Run("no_regions", seed): {"1.1": {"auroc/macro": 0.78}} for seed in (0, 2)}
    write_runs(tmp_path, scores)
    text = write_summary(tmp_path, Budget())
    assert text == (tmp_path / "comparison.md").read_text()
    rows = json.loads((tmp_path / "results.json").read_text())["tables"]
    row = rows["Findings and lesions"][0]
    assert (row["phase alone"], row["joint phase"]) == ("0.820 ± 0.020 (1.1)", "0.860 ± 0.036")
    assert row["by seed"] == "+0.030, +0.010, +0.080"
    half = 4.302652729696142 * np.std([0.03, 0.01, 0.08], ddof=1) / np.sqrt(3)  # t of 2 degrees
    assert row["difference"] == f"0.040 [{0.04 - half:.3f}, {0.04 + half:.3f}]"
    regions = rows["What each part is worth"][0]
    assert (regions["left out"], regions["without"]) == ("regions", "0.780 ± 0.000")
    assert regions["by seed"] == "-0.020, -0.040"
    assert "| Bronchiectasis | – | – |" in text
    assert "| no_regions |" in text
    assert {path.name for path in tmp_path.glob("*.png")} == {"ablations.png", "findings.png", "reports.png"}
    path = run_file(tmp_path, Run("no_regions", 0))
    path.write_text(path.read_text().replace('"code": "a"', '"code": "b"'))
    with pytest.raises(ValueError, match="are not alike in code"):
        write_summary(tmp_path, Budget())


def check_loading(examination: Examination, models: Path) -> None:
    """Every part is as the newest phase up to the one that is scored left it, also when going back."""
    for name, origins in LOADED.items():
        examination.load(examination.phases[name])
        for part, phase in origins.items():
            kept = torch.load(models / f"{examination.phases[phase].stem}.pt", weights_only=True)
            for key, value in examination.model.weights_state([part]).items():
                assert torch.equal(value, kept[key]), (name, key)


@pytest.mark.slow
def test_runs_are_trained_scored_and_after_a_stop_go_on_where_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.set_num_threads(1)
    model = numbers(tiny_folder(tmp_path / "llm"))
    tiny = replace(TINY, changes={**TINY.changes, "model_config": model})
    monkeypatch.setitem(driver.BUDGETS, "short", tiny)
    done: list[str] = []

    def here(job: Callable[[Any], None], arguments: Sequence[Any], workers: int, title: str) -> None:
        for argument in arguments:
            done.append(title)
            sent = pickle.loads(pickle.dumps((job, argument)))  # noqa: S301 - as another process gets it
            sent[0](sent[1])

    monkeypatch.setattr(driver, "run_in_processes", here)
    out = tmp_path / "out"
    with pytest.raises(ValueError, match="no complete run of the full method"):
        main(True, str(out), report=True)
    text = main(True, str(out))
    assert done == ["cohorts"] * 2 + ["runs"] * 3 + ["runs on phases of the full ones"] * 2
    scores = json.loads((out / "results.json").read_text())["scores"]
    assert {name: set(phases) for name, phases in scores.items()} == {
        f"{name}-seed0": {phase for phase in arm.phases if phase != "1.3"} for name, arm in ARMS.items()
    }
    assert 0 <= scores["full-seed0"]["2"][f"reports/model, images shuffled/{F1}"] <= 1
    assert {"reward/before", "reward/after"} <= set(scores["full-seed0"]["3"])
    assert all(name in text for name in ("constant report", "Reinforcement", "text guidance", "evidence"))
    shared = [out / "trainings" / f"{name}-seed0/models/phase_1_1.pt" for name in (FULL, "no_evidence")]
    assert shared[0].read_bytes() == shared[1].read_bytes()

    check_loading(Examination(out, tiny, Run(FULL, 0)), out / "trainings/full-seed0/models")

    lost = run_file(out, Run("no_evidence", 0))
    before = lost.read_bytes()
    lost.unlink()
    weights = out / "trainings/no_evidence-seed0/models/phase_2.pt"
    written = weights.stat().st_mtime_ns
    done.clear()
    assert main(True, str(out)) == text
    assert done == ["cohorts"] * 2 + ["runs on phases of the full ones"]
    assert lost.read_bytes() == before
    assert weights.stat().st_mtime_ns == written
    monkeypatch.setitem(driver.BUDGETS, "short", replace(tiny, test=4))
    with pytest.raises(ValueError, match=r"full-seed0 \(test\)"):
        main(True, str(out))


def test_every_table_has_a_title_of_its_own(tmp_path: Path) -> None:
    write_runs(tmp_path, {Run(FULL, 0): {"1.1": {"auroc/macro": 0.8}, "2": {"auroc/macro": 0.9}}})
    titles = [table.title for table in all_tables(read_results(tmp_path, Budget(seeds=1)))]
    assert len(titles) == len(set(titles))
    assert "What each part is worth" not in titles
