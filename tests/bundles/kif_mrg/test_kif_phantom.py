"""The simulated radiographs: reports and labels that say the same, resumable, in R2Gen's format."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from kif_mrg import phantom
from kif_mrg.conditions import CONDITIONS
from kif_mrg.phantom import case_facts, ensure, simulated_cohort
from kif_mrg.phantom_facts import Effusion, Facts, draw_facts, fact_labels, visible_zones
from kif_mrg.phantom_report import write_report
from medbundles.text.cleaning import clean_report
from medbundles.text.labeler import BLANK, NEGATIVE, POSITIVE, UNCERTAIN, label_reports
from PIL import Image

SMALL = {"train": 5, "val": 2, "test": 2}
NOTHING = Facts("normal", None, None, None, None, 0.03)


def rng(*seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.fixture(scope="module")
def drawn() -> list[tuple[Facts, str]]:
    """1500 random cases: facts and report."""
    facts = [draw_facts(rng(1, k)) for k in range(1500)]
    return [(found, write_report(found, rng(2, k))) for k, found in enumerate(facts)]


def test_rule_labels_of_the_report_are_the_labels_of_the_facts(drawn: list[tuple[Facts, str]]) -> None:
    expected = np.array([fact_labels(facts)[:14] for facts, _ in drawn])
    assert np.array_equal(label_reports([report for _, report in drawn]), expected)
    assert np.array_equal(label_reports([clean_report(report) for _, report in drawn]), expected)
    assert set(expected.ravel()) == {BLANK, POSITIVE, NEGATIVE, UNCERTAIN}


def test_findings_occur_at_plausible_and_unequal_rates(drawn: list[tuple[Facts, str]]) -> None:
    labels = np.array([fact_labels(facts) for facts, _ in drawn])
    rates = dict(zip(CONDITIONS, (labels == POSITIVE).mean(axis=0), strict=True))
    found = [rates[name] for name in ("cardiomegaly", "pleural_effusion", "lung_opacity", "lung_lesion")]
    assert all(0.15 < rate < 0.45 for rate in found)
    assert max(found) > 1.4 * min(found)
    assert 0.15 < rates["no_finding"] < 0.4
    assert Counter(facts.normal for facts, _ in drawn)[True] == (labels[:, 13] == POSITIVE).sum()


def test_report_names_every_fact_with_side_and_size(drawn: list[tuple[Facts, str]]) -> None:
    for facts, report in drawn:
        sentences = [sentence.lower() for sentence in report.split(".")]

        def said(*words: str, among: list[str] = sentences) -> bool:
            return any(all(word in sentence for word in words) for sentence in among)

        if facts.effusion:
            side = "bilateral" if len(facts.effusion.sides) == 2 else facts.effusion.sides[0]
            assert said(side, facts.effusion.size, "effusion"), report
        if facts.lesion:
            assert said(
                facts.lesion.side, facts.lesion.zone, f"{facts.lesion.mm} mm {facts.lesion.name}"
            ) or said(
                facts.lesion.side, facts.lesion.zone, f"{facts.lesion.name} measuring {facts.lesion.mm} mm"
            ), report
        if facts.opacity:
            assert said("hazy", facts.opacity.side, facts.opacity.zone), report
        if facts.catheter:
            assert said(facts.catheter, "catheter"), report
        assert said("enlarged") or said("cardiomegaly") or facts.heart == "normal"
        assert said("no ", "pneumothorax")


def test_reports_of_one_fact_vary_in_wording_and_order() -> None:
    facts = dataclasses.replace(NOTHING, effusion=Effusion(("left",), "small"), catheter="right")
    reports = [write_report(facts, rng(k)) for k in range(200)]
    assert len(set(reports)) > 100
    assert 0.5 < np.mean([r.index("eart") < r.index("effusion") for r in reports]) < 1
    assert len({tuple(row) for row in label_reports(reports)}) == 1


def test_nothing_is_hidden_behind_heart_or_fluid(drawn: list[tuple[Facts, str]]) -> None:
    for facts, _ in drawn:
        zones = [(item.side, item.zone) for item in (facts.lesion, facts.opacity) if item]
        assert len(set(zones)) == len(zones)
        assert set(zones) <= set(visible_zones(facts.heart, facts.effusion))


def test_annotation_is_complete_before_any_image(tmp_path: Path) -> None:
    folder = Path(simulated_cohort(3, SMALL, tmp_path / "cohort"))
    assert not list(folder.rglob("*.png"))
    annotation = json.loads((folder / "annotation.json").read_text())
    assert {split: len(entries) for split, entries in annotation.items()} == SMALL
    entries = [entry for split in annotation.values() for entry in split]
    assert len({entry["study_id"] for entry in entries}) == len({entry["id"] for entry in entries}) == 9
    for split, rows in annotation.items():
        for number, entry in enumerate(rows):
            assert set(entry) == {"id", "study_id", "report", "image_path", "split", "labels"}
            assert entry["split"] == split
            assert entry["labels"] == fact_labels(case_facts(3, split, number))
            assert len(entry["labels"]) == len(CONDITIONS)
    ensure(folder, progress=False)
    for entry in entries:
        with Image.open(folder / "images" / entry["image_path"][0]) as image:
            assert (image.format, image.mode, image.size) == ("PNG", "L", (96, 96))


def test_case_does_not_depend_on_how_many_there_are(tmp_path: Path) -> None:
    few, many = (
        Path(simulated_cohort(5, sizes, tmp_path / str(k)))
        for k, sizes in enumerate((SMALL, {"train": 9, "val": 3, "test": 2}))
    )
    ensure(few, progress=False)
    ensure(many, progress=False)
    for split, entries in json.loads((few / "annotation.json").read_text()).items():
        others = json.loads((many / "annotation.json").read_text())[split]
        assert others[: len(entries)] == entries
    for path in few.rglob("*.png"):
        assert path.read_bytes() == (many / path.relative_to(few)).read_bytes()


def test_seed_decides_facts_and_text() -> None:
    reports = [
        [write_report(case_facts(seed, "train", k), rng(seed, k)) for k in range(20)] for seed in (0, 0, 1)
    ]
    assert reports[0] == reports[1] != reports[2]


def test_missing_image_is_made_again_and_the_others_stay(tmp_path: Path) -> None:
    folder = Path(phantom.main(str(tmp_path / "cohort"), seed=1, image_size=64, **SMALL))
    first, *rest = sorted(folder.rglob("*.png"))
    before, written = first.read_bytes(), [path.stat().st_mtime_ns for path in rest]
    first.unlink()
    ensure(folder, progress=False)
    assert first.read_bytes() == before
    assert [path.stat().st_mtime_ns for path in rest] == written
    assert len(rest) == sum(SMALL.values()) - 1


def test_cohort_in_the_cache_is_named_by_what_it_depends_on(cache: Path) -> None:
    folders = {simulated_cohort(seed, SMALL, image_size=size) for seed in (0, 1) for size in (64, 96)}
    assert len(folders) == 4
    assert simulated_cohort(0, SMALL) in folders
    assert all(Path(folder).is_relative_to(cache) for folder in folders)


def test_folders_of_others_are_left_alone(tmp_path: Path) -> None:
    ensure(tmp_path)
    assert not list(tmp_path.iterdir())
    (tmp_path / "scan.png").touch()
    with pytest.raises(ValueError, match="needs an empty folder"):
        simulated_cohort(0, SMALL, tmp_path)
    folder = simulated_cohort(0, SMALL, tmp_path / "mine")
    with pytest.raises(ValueError, match="other seed"):
        simulated_cohort(1, SMALL, folder)
    with pytest.raises(ValueError, match="train, val, test, got training"):
        simulated_cohort(0, {"training": 3})


def test_a_cohort_that_another_process_is_making_is_no_obstacle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under torchrun all processes begin together: one finds what another has written in between."""
    made = Path(simulated_cohort(0, SMALL, tmp_path / "one"))
    shutil.copytree(made, tmp_path / "two")
    (tmp_path / "two" / ".0123456789ab.annotation.json").touch()
    monkeypatch.setattr(Path, "is_file", lambda path: False)  # it was not there yet when this one looked
    late = Path(simulated_cohort(0, SMALL, tmp_path / "two"))
    assert (late / "annotation.json").read_bytes() == (made / "annotation.json").read_bytes()
