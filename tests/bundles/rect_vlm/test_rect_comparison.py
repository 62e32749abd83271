"""The comparison: a plan without double work, arms that lack one part, and fingerprints."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rect_comparison_budget import TINY
from rect_vlm.comparison import plan
from rect_vlm.comparison.code_version import code_digest
from rect_vlm.comparison.driver import check_claims
from rect_vlm.comparison.plan import ARMS, BUDGETS, FULL, Budget, Run, fingerprint, run_file, waves
from rect_vlm.comparison.training import evaluation_config, phases_of, training_config
from rect_vlm.disease_text import LesionCodes
from rect_vlm.phases import sources

PLACES = ("ckpt_dir", "output_dir", "phases", "model_config")


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDBUNDLES_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.mark.parametrize("budget", BUDGETS.values())
def test_every_arm_runs_once_per_seed_and_what_it_builds_on_runs_before(budget: Budget) -> None:
    first, second = waves(budget)
    assert len({run.name for run in first + second}) == len(first + second) == budget.seeds * len(ARMS)
    assert all(Run(FULL, run.seed) in first and not ARMS[run.arm].shares for run in first)
    assert all(ARMS[run.arm].shares for run in second)
    assert [run.arm for run in first[: budget.seeds]] == [FULL] * budget.seeds  # the longest


def test_an_arm_trains_or_takes_over_every_phase_that_it_builds_on(tmp_path: Path) -> None:
    phases = phases_of(training_config(tmp_path, TINY, Run(FULL, 0)))
    for name, arm in ARMS.items():
        needed = {source for phase in arm.phases for source in sources(phases[phase], phases).values()}
        assert needed - {None} <= {*arm.phases, *arm.shares}, name
        assert not set(arm.phases) & set(arm.shares)


def test_arms_lack_what_they_say_and_nothing_else(tmp_path: Path) -> None:
    configs = {name: training_config(tmp_path, TINY, Run(name, 0)) for name in ARMS}
    models = {name: config.get_parsed_content("model") for name, config in configs.items()}
    whole = {key: value.shape for key, value in models[FULL].state_dict().items()}

    def lacks(name: str) -> set[str]:
        return {key.split(".")[0] for key in whole.keys() - models[name].state_dict().keys()}

    assert lacks("no_slice_bias") == lacks("no_regions") == {"vision"}
    assert lacks("no_text_guidance") == {"localizer"}
    assert lacks("no_evidence") == set()
    assert isinstance(models["no_text_guidance"].localizer.text, LesionCodes)
    assert all(block.region_attention is None for block in models["no_regions"].vision.blocks)
    biases = {key for key in whole if key.endswith("distance_bias")}
    assert biases == whole.keys() - models["no_slice_bias"].state_dict().keys()
    assert models["no_evidence"].plan.arguments["evidence"] == "none"
    for name, config in configs.items():
        same = {key: value for key, value in config.config.items() if key not in PLACES}
        assert same == {key: value for key, value in configs[FULL].config.items() if key not in PLACES}, name


def test_test_scans_are_those_of_no_training_and_the_language_model_reads_training_reports(
    tmp_path: Path,
) -> None:
    folders = {plan.training_cohort(TINY, 0), plan.training_cohort(TINY, 1), plan.test_cohort(TINY)}
    assert len(folders) == 3
    config = evaluation_config(tmp_path, TINY, Run(FULL, 1))
    assert config.get_parsed_content("dataset_dir") == plan.test_cohort(TINY)
    learned = config.get_parsed_content("records")["train"]
    assert {Path(record["image"]).is_relative_to(plan.training_cohort(TINY, 1)) for record in learned} == {
        True
    }
    assert len({record["scan"] for record in learned}) == TINY.changes["dataset_dir#train"]


def test_a_fingerprint_changes_with_all_that_matters(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(plan, "_code", lambda: "one")
    run = Run(FULL, 0)
    before = fingerprint(TINY, run)
    assert before == json.loads(json.dumps(before)) == fingerprint(replace(TINY, seeds=3), run)

    def differing(budget: Budget = TINY, other: Run = run) -> set[str]:
        found = fingerprint(budget, other)
        return {key for key in before if found[key] != before[key]}

    assert differing(other=Run("no_regions", 0)) == {"arm"}
    assert differing(other=Run(FULL, 1)) == {"seed", "cohort"}
    assert differing(replace(TINY, test=4)) == {"test"}
    assert differing(replace(TINY, changes={**TINY.changes, "augment": False})) == {"changes"}
    entries = plan.config_entries

    def edited(*names: str) -> dict[str, Any]:
        return entries(*names) | {"clip": 2.0}

    monkeypatch.setattr(plan, "config_entries", edited)
    assert differing() == {"configs"}
    monkeypatch.setattr(plan, "config_entries", entries)
    monkeypatch.setattr(plan, "_code", lambda: "another")
    assert differing() == {"code"}
    path = run_file(tmp_path, run)
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"fingerprint": before, "phases": {}}))
    check_claims(tmp_path, {run: before})
    with pytest.raises(ValueError, match=r"runs of other settings: full-seed0 \(code\); give another"):
        check_claims(tmp_path, {run: fingerprint(TINY, run)})


def test_a_code_digest_follows_statements_and_imports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "digested_package"
    folder.mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    imports = "    from digested_package.used import VALUE\n"
    files = {
        "__init__": "",
        "root": f'"""Root."""\ndef run():\n{imports}    return VALUE\n',
        "used": "VALUE = 1\n",
        "unused": "VALUE = 1\n",
        "left_out": "VALUE = 1\n",
    }

    def made(**changes: str) -> str:
        for name, text in {**files, **changes}.items():
            (folder / f"{name}.py").write_text(text)
        return code_digest(
            ["digested_package.root", "digested_package.left_out"], {"digested_package.left_out"}
        )

    before = made()
    assert (
        made(used="# a comment\nVALUE = 1\n", root='"""Changed."""\n' + files["root"].split("\n", 1)[1])
        == before
    )
    assert made(unused="VALUE = 2\n", left_out="VALUE = 2\n") == before
    assert made(used="VALUE = 2\n") != before
    assert made(root=files["root"].replace("return VALUE", "return -VALUE")) != before
    assert made() == before
    (folder / "data.json").write_text("{}")
    assert made() != before
    with pytest.raises(ValueError, match=r"no module digested_package\.nothing"):
        code_digest(["digested_package.nothing"])
