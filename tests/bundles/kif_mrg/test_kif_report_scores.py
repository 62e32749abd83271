"""Report scores: every number against the library it belongs to, every replicate against a repeated list."""

from __future__ import annotations

import numpy as np
import pytest
from kif_mrg import evaluation_floors as floors
from kif_mrg import report_scores
from kif_mrg.evaluation import Scoring
from kif_mrg.evaluation_texts import make_labeler, reference_text
from kif_mrg.report_scores import ReportScores, bleu_statistics, weighted_bleu4
from kif_mrg.scored import Scored
from kif_mrg.text import ReportTokenizer
from medbundles.intervals import with_interval
from medbundles.text import meteor as meteor_module
from medbundles.text.cleaning import clean_report
from medbundles.text.efficacy import clinical_efficacy
from medbundles.text.labeler import label_reports
from medbundles.text.nlg import bleu, report_metrics, rouge_l

REFERENCES = [
    "the heart is normal in size . the lungs are clear .",
    "the heart is enlarged . no pleural effusion or pneumothorax is seen .",
    "there is a large pleural effusion on the left . the heart is enlarged .",
    "there is a nodule in the right upper lobe . no pneumothorax is seen .",
]
REPORTS = [
    "the heart is normal in size . the lungs are clear bilaterally .",
    "the heart is enlarged . there is a large pleural effusion .",
    "there is a large pleural effusion on the right . the heart is normal .",
    "no pneumothorax is seen .",
]
STUDIES = ["a", "b", "b", "c"]
EFFICACY = {"uncertain": "negative", "empty": "zero"}


@pytest.fixture(scope="module")
def compare() -> ReportScores:
    return ReportScores(REFERENCES, STUDIES, label_reports, EFFICACY, n_bootstrap=30, seed=1)


@pytest.fixture(scope="module")
def scored(compare: ReportScores) -> Scored:
    return compare.score(REPORTS, label_reports(REPORTS))


def test_values_are_those_of_the_metric_functions(scored: Scored, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meteor_module, "meteor_jar", lambda: None)
    expected = report_metrics(REPORTS, REFERENCES)
    expected |= clinical_efficacy(label_reports(REPORTS), label_reports(REFERENCES), **EFFICACY)
    assert scored.values == pytest.approx(expected)
    assert expected["bleu4"] > 0  # or its replicates would all be 0


def test_a_replicate_is_the_score_of_the_reports_it_drew(compare: ReportScores, scored: Scored) -> None:
    for r, weights in enumerate(compare.weights[:8]):
        drawn = np.repeat(np.arange(4), weights.astype(int))
        said, true = [REPORTS[i] for i in drawn], [REFERENCES[i] for i in drawn]
        expected = {"bleu4": bleu(said, true)["bleu4"], "rouge_l": rouge_l(said, true)}
        expected |= clinical_efficacy(label_reports(said), label_reports(true), **EFFICACY)
        assert {name: values[r] for name, values in scored.replicates.items()} == pytest.approx(expected)


def test_whole_studies_are_drawn(compare: ReportScores) -> None:
    assert (compare.weights[:, 1] == compare.weights[:, 2]).all()
    one = ReportScores(REFERENCES, ["a"] * 4, label_reports, EFFICACY, n_bootstrap=5)
    entry = one.score(REPORTS, label_reports(REPORTS)).entries()["ce_example_f1"]
    assert entry["low"] == entry["value"] == entry["high"]


def test_clinical_efficacy_of_four_reports_by_hand(compare: ReportScores, scored: Scored) -> None:
    # Positive in the references: no finding; cardiomegaly; effusion, cardiomegaly; lesion.
    # In the reports: no finding; cardiomegaly, effusion; effusion; no finding.
    assert compare.case_f1(label_reports(REPORTS)).tolist() == pytest.approx([1, 2 / 3, 2 / 3, 0])
    assert scored.values["ce_example_f1"] == pytest.approx((1 + 2 / 3 + 2 / 3) / 4)
    assert scored.values["ce_micro_precision"] == pytest.approx(3 / 5)
    assert scored.values["ce_micro_recall"] == pytest.approx(3 / 5)
    assert compare.ceiling["ce_example_f1"] == 1
    assert compare.ceiling["ce_macro_f1"] == pytest.approx(4 / 14)  # conditions that are there at all


def test_differences_are_paired(compare: ReportScores, scored: Scored) -> None:
    assert all(set(entry.values()) == {0.0} for entry in scored.minus(scored).values())
    floor = compare.score(REFERENCES[:1] * 4, label_reports(REFERENCES[:1] * 4))
    entry = scored.minus(floor)["rouge_l"]
    difference = scored.replicates["rouge_l"] - floor.replicates["rouge_l"]
    assert entry["value"] == pytest.approx(scored.values["rouge_l"] - floor.values["rouge_l"])
    assert (entry["low"], entry["high"]) == pytest.approx(tuple(np.quantile(difference, [0.025, 0.975])))


def test_bleu_statistics_add_up_to_the_corpus() -> None:
    statistics = bleu_statistics(REPORTS, REFERENCES)
    assert weighted_bleu4(statistics, np.ones((1, 4)))[0] == pytest.approx(bleu(REPORTS, REFERENCES)["bleu4"])
    assert (
        weighted_bleu4(statistics, np.array([[0, 0, 0, 1.0]]))[0]
        == bleu(REPORTS[3:], REFERENCES[3:])["bleu4"]
    )


def test_java_meteor_is_a_column_of_its_own_and_for_one_arm_only(
    compare: ReportScores, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []

    def java(reports: list[str], references: list[str]) -> dict[str, float]:
        calls.append(len(reports))
        return {"meteor": 0.25}

    monkeypatch.setattr(report_scores, "meteor_jar", lambda: "meteor.jar")
    monkeypatch.setattr(report_scores, "meteor", java)
    states = label_reports(REPORTS)
    assert "meteor" not in compare.score(REPORTS, states).values
    assert not calls
    values = compare.score(REPORTS, states, java=True).values
    assert values["meteor"] == 0.25
    assert values["meteor_lite"] == report_metrics(REPORTS, REFERENCES, java=False)["meteor_lite"]
    assert len(calls) == 1


def test_without_java_no_java_program_is_run(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = report_metrics(REPORTS, REFERENCES, java=False)
    monkeypatch.setattr(meteor_module, "meteor_jar", lambda: "meteor.jar")
    monkeypatch.setattr(meteor_module, "_java_meteor", lambda pairs, jar: 0.25)
    assert report_metrics(REPORTS, REFERENCES, java=False) == plain
    assert report_metrics(REPORTS, REFERENCES)["meteor"] == 0.25
    assert meteor_module.meteor(REPORTS, REFERENCES, java=False) == {"meteor_lite": plain["meteor_lite"]}


def test_without_replicates_there_is_no_interval() -> None:
    none = ReportScores(REFERENCES, STUDIES, label_reports, EFFICACY, n_bootstrap=0)
    entry = none.score(REPORTS, label_reports(REPORTS)).entries()["bleu4"]
    assert np.isnan([entry["low"], entry["high"]]).all()
    assert with_interval(entry) == f"{entry['value']:.3f}"
    assert with_interval({"value": 0.5, "low": 0.25, "high": 0.75}) == "0.500 [0.250, 0.750]"
    assert with_interval({"value": np.nan, "low": np.nan, "high": np.nan}) == "–"


def test_both_sides_take_one_form() -> None:
    raw = "Well-expanded lungs. No air-space disease, 3-4 cm mass."
    clean = clean_report(raw)
    tokenizer = ReportTokenizer.build([clean])
    said = tokenizer.decode(tokenizer.encode(clean))
    assert said != clean  # the tokenizer takes hyphens apart
    assert tokenizer.comparable(said) == tokenizer.comparable(clean) == clean
    assert bleu([tokenizer.comparable(said)], [tokenizer.comparable(clean)])["bleu4"] == pytest.approx(1)
    assert label_reports([tokenizer.comparable(said)]).tolist() == label_reports([raw]).tolist()


def test_reference_modes() -> None:
    raw = "Heart  size normal.\n" + "Lungs clear. " * 60
    record = {"report": clean_report(raw), "raw": raw}
    assert reference_text(record) == clean_report(raw)
    cut = reference_text(record, "promptmrg")
    assert cut == " ".join(clean_report(raw, "mimic").split(" ")[:100])
    assert len(cut.split()) == 100
    with pytest.raises(ValueError, match="reference_mode must be one of full, promptmrg, got 'r2gen'"):
        reference_text(record, "r2gen")


def test_chexbert_needs_both_its_files(tmp_path) -> None:
    assert make_labeler(None, None) == ("rule", label_reports)
    with pytest.raises(ValueError, match="chexbert_tokenizer=None"):
        make_labeler(str(tmp_path / "chexbert.pth"), None)
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pth"):
        make_labeler(str(tmp_path / "nowhere.pth"), str(tmp_path))


def test_floors_come_from_training_reports_only() -> None:
    train = ["a b c d .", "a b c d .", "e f g h ."]
    made, notes = floors.floor_reports(train, ["e f g h ."] * 3, 2, seed=0)
    assert made[floors.CONSTANT] == ["e f g h ."] * 2  # chosen on validation
    assert made[floors.COMMON] == ["a b c d ."] * 2
    assert set(made[floors.RANDOM]) <= set(train)
    assert not notes
    made, notes = floors.floor_reports(train, [], 2, seed=0)
    assert floors.CONSTANT not in made
    assert "no validation reports" in notes[0]
    assert floors.floor_reports([], [], 2, seed=0)[0] == {}


def test_uncertain_states_count_as_asked() -> None:
    assert Scoring().positive == (1,)
    assert Scoring(uncertain="positive").positive == (1, 3)
