"""Text metrics: equal to the COCO toolkit on 200 stored pairs, and what holds for any reports."""

import hashlib
import json
import random
from pathlib import Path
from typing import Any

import pytest
from medbundles.text.nlg import bleu, cider_d, distinct, meteor, report_metrics, rouge_l
from medbundles.text.rouge import common_subsequence_length

HERE = Path(__file__).parent
COCO: dict[str, Any] = json.loads((HERE / "coco_reference.json").read_text(encoding="utf-8"))
PAIRS: list[dict[str, str]] = json.loads((HERE / "report_pairs.json").read_text(encoding="utf-8"))
HYPOTHESES = [pair["hypothesis"] for pair in PAIRS]
REFERENCES = [pair["reference"] for pair in PAIRS]
SUBSETS = {"all": slice(0, 200)} | {f"{i}-{i + 49}": slice(i, i + 50) for i in (0, 50, 100, 150)}

SENTENCES = (
    "the heart is {mildly enlarged|normal in size|at the upper limits of normal} .",
    "the cardiomediastinal silhouette is {within normal limits|stable|widened} .",
    "there is {no|a small left|a moderate right|a large bilateral} pleural effusion .",
    "there is {no|a tiny apical} pneumothorax {seen|identified} .",
    "the lungs are {clear bilaterally|hyperinflated|low in volume} .",
    "no focal {consolidation|airspace disease} is {seen|present} .",
    "patchy {right lower lobe|left basilar|perihilar} opacity may represent {atelectasis|pneumonia} .",
    "a {5 mm|12 mm} nodule projects over the {left|right} upper lobe .",
    "the {right picc|endotracheal tube|dual lead pacemaker} is in {good|unchanged} position .",
    "degenerative changes of the thoracic spine are {noted|again seen} .",
    "old healed {left|right} sided rib fractures .",
    "mild interstitial edema has {improved|worsened} since the prior study .",
    "the aorta is {tortuous|calcified} .",
    "no acute osseous abnormality .",
)
SWAPS = {
    "left": "right", "right": "left", "no": "a", "small": "large", "mild": "moderate", "stable": "unchanged",
    "clear": "hyperinflated", "seen": "noted", "opacity": "opacities", "enlarged": "enlarging", "is": "are",
}  # fmt: skip


def authored_pairs(count: int = 200) -> list[dict[str, str]]:
    """Invented (hypothesis, reference) pairs from the sentences above; eight kinds of error in turn."""
    draw = random.Random(20).random  # the only method used: its stream is the same in every Python

    def pick(options: Any) -> Any:
        return options[int(draw() * len(options))]

    def sentence() -> str:
        head, *slots = pick(SENTENCES).split("{")
        return head + "".join(pick(slot.split("}")[0].split("|")) + slot.split("}")[1] for slot in slots)

    def hypothesis(kind: int, sentences: list[str]) -> str:
        words = " ".join(sentences).split()
        return {
            0: lambda: " ".join(words),
            1: lambda: " ".join(SWAPS.get(word, word) if draw() < 0.7 else word for word in words),
            2: lambda: " ".join([word for word in words if draw() < 0.75] or words),
            3: lambda: " ".join([*sentences, *([pick(sentences)] * 3)]),
            4: lambda: " ".join(words[: 1 + int(draw() * 5)]),
            5: lambda: " ".join(sentence() for _ in sentences),
            6: lambda: " ".join(sentences[::-1]),
            7: lambda: " ".join(sentence() if draw() < 0.4 else said for said in sentences),
        }[kind]()

    pairs = []
    for index in range(count):
        sentences = [sentence() for _ in range(1 + int(draw() * 7))]
        pairs.append({"hypothesis": hypothesis(index % 8, sentences), "reference": " ".join(sentences)})
    return pairs


def test_stored_pairs_are_the_generated_ones_and_those_that_were_measured() -> None:
    assert authored_pairs() == PAIRS
    assert hashlib.sha256(json.dumps(PAIRS).encode()).hexdigest() == COCO["pairs_sha256"]


@pytest.mark.parametrize("subset", SUBSETS)
def test_metrics_equal_the_coco_toolkit(subset: str) -> None:
    said, true = HYPOTHESES[SUBSETS[subset]], REFERENCES[SUBSETS[subset]]
    expected = {name: value for name, value in COCO["scores"][subset].items() if name != "meteor"}
    found = {**bleu(said, true), "rouge_l": rouge_l(said, true), "cider_d": cider_d(said, true)}
    assert found == pytest.approx(expected, rel=0, abs=1e-10)


@pytest.fixture
def without_jar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medbundles.text.meteor.meteor_jar", lambda: None)


@pytest.mark.usefixtures("without_jar")
def test_a_report_against_itself_scores_full_marks_and_more_errors_score_less() -> None:
    scores = []
    for wrong in (0.0, 0.2, 0.5, 1.0):
        draw = random.Random(1).random
        said = [" ".join("wrong" if draw() < wrong else w for w in r.split()) for r in REFERENCES[:40]]
        scores.append(report_metrics(said, REFERENCES[:40]))
    for name in ("bleu1", "bleu2", "bleu3", "bleu4", "rouge_l", "cider_d", "meteor_lite"):
        values = [score[name] for score in scores]
        assert values == sorted(values, reverse=True), name
        assert len(set(values)) == 4, name
        assert values[-1] == 0, name
    assert all(scores[0][f"bleu{n}"] == pytest.approx(1) for n in (1, 2, 3, 4))
    assert scores[0]["rouge_l"] == pytest.approx(1)
    assert cider_d(REFERENCES[:3], REFERENCES[:3]) == pytest.approx(10)


@pytest.mark.usefixtures("without_jar")
def test_an_empty_hypothesis_scores_nothing() -> None:
    metrics = report_metrics(["", ""], ["heart normal .", "lungs clear ."])
    assert metrics.pop("unique_reports") == 0.5
    assert set(metrics.values()) == {0}


def test_a_short_hypothesis_pays_for_its_length() -> None:
    assert bleu(["no acute disease"], ["no acute disease is seen ."])["bleu1"] == pytest.approx(0.36787944117)


def test_cider_ignores_what_every_reference_says() -> None:
    references = [f"no acute disease . {word} {word} {word} {word}" for word in ("edema", "nodule", "picc")]
    assert cider_d(["no acute disease ."] * 3, references) == 0
    assert cider_d(references, references) == pytest.approx(10)
    assert cider_d(references[:1], references[:1]) == 0  # one document: nothing is rare


def test_common_subsequence_equals_the_dynamic_programme() -> None:
    rng = random.Random(3)
    for _ in range(200):
        first, second = ([rng.choice("abcde") for _ in range(rng.randrange(80))] for _ in range(2))
        row = [0] * (len(second) + 1)
        for word in first:
            above, row = row, [0]
            for j, other in enumerate(second):
                row.append(above[j] + 1 if word == other else max(above[j + 1], row[j]))
        assert common_subsequence_length(first, second) == row[-1]


@pytest.mark.usefixtures("without_jar")
def test_length_and_variety_of_the_hypotheses() -> None:
    metrics = report_metrics(
        ["clear clear .", "clear  clear .", "heart normal . lungs clear ."], ["clear ."] * 3
    )
    assert (metrics["words_mean"], metrics["words_sd"]) == (4, pytest.approx(2**0.5))
    assert metrics["distinct1"] == 5 / 12
    assert metrics["distinct2"] == 6 / 9
    assert metrics["unique_reports"] == 2 / 3


@pytest.mark.parametrize("metric", [bleu, rouge_l, cider_d, meteor, report_metrics])
def test_bad_input_is_named(metric: Any) -> None:
    with pytest.raises(ValueError, match="got 2 hypotheses for 1 references"):
        metric(["a", "b"], ["a"])
    with pytest.raises(ValueError, match="at least one"):
        metric([], [])
    with pytest.raises(ValueError, match="hypotheses must be a sequence of reports, got one string of 5"):
        metric("clear", ["clear"])


def test_distinct_needs_an_order() -> None:
    with pytest.raises(ValueError, match="n must be at least 1, got n=0"):
        distinct(["a"], 0)
