"""Rewards of reports: each component by itself, what it must not reward, and their sum."""

import math

import pytest
import torch
from medbundles.text.rouge import rouge_l
from rect_vlm.findings import FINDINGS
from rect_vlm.report_scores import clean_text
from rect_vlm.rewards import WEIGHTS, RewardModel
from torch import Tensor


def report(findings: str, impression: str = "See above.") -> str:
    return f"FINDINGS:\n{findings}\n\nIMPRESSION:\n{impression}"


REFERENCE = report(
    "A nodule is observed in the right upper lobe. Pleural effusion was not detected.", "Nodule."
)
MIRRORED = REFERENCE.replace("right", "left")
HEALTHY = report("Heart size is normal. Pleural effusion was not detected.", "Normal chest.")


def rewards(
    texts: list[str], reference: str = REFERENCE, logp: float = -0.5, ended: bool = True, **options: Tensor
) -> dict[str, Tensor]:
    size = len(texts)
    log_probs, ends = torch.full((size,), logp), torch.full((size,), ended)
    return RewardModel()(texts, [reference] * size, log_probs, ends, **options)


def test_reference_itself_earns_all_but_fluency() -> None:
    found = rewards([REFERENCE], logp=0.0)
    assert {name: value.item() for name, value in found.items()} == pytest.approx(
        {"clinical": 1, "factual": 1, "fluency": 1, "format": 1, "total": 1}
    )


def test_total_is_the_weighted_sum_and_every_reward_lies_between_0_and_1() -> None:
    found = rewards([REFERENCE, MIRRORED, HEALTHY, "", "a b c d a b c d a b c d", "FINDINGS:"])
    wanted = sum((weight * found[name] for name, weight in WEIGHTS.items()), torch.zeros(6))
    assert torch.allclose(found["total"], wanted)
    assert sum(WEIGHTS.values()) == pytest.approx(1)
    for value in found.values():
        assert value.shape == (6,)
        assert ((value >= 0) & (value <= 1)).all()


def test_the_wrong_side_costs_facts_and_no_label() -> None:
    found = rewards([REFERENCE, MIRRORED, HEALTHY])
    assert found["factual"].tolist() == pytest.approx([1, 0.5, 0.5])
    longest = rouge_l([clean_text(MIRRORED)], [clean_text(REFERENCE)])
    assert found["clinical"][1].item() == pytest.approx(0.5 + 0.5 * longest)
    assert found["total"][0] > found["total"][1] > found["total"][2]


def test_two_reports_without_findings_agree() -> None:
    assert rewards([HEALTHY], HEALTHY)["clinical"].item() == pytest.approx(1)


def test_labels_of_the_table_go_before_those_of_the_reference() -> None:
    none = torch.zeros(1, len(FINDINGS))
    by_text, by_table = rewards([REFERENCE]), rewards([REFERENCE], labels=none)
    assert by_table["clinical"].item() == pytest.approx(by_text["clinical"].item() - 0.5)
    unknown = rewards([REFERENCE], labels=torch.full((1, len(FINDINGS)), -1.0))
    assert unknown["clinical"].item() == by_text["clinical"].item()


def test_fluency_is_the_inverse_perplexity_without_repetition() -> None:
    loop = "the lungs are clear and " * 6
    fresh, again = rewards(["one two three four five six", loop], logp=-0.7)["fluency"].tolist()
    assert fresh == pytest.approx(math.exp(-0.7))
    assert again == pytest.approx(math.exp(-0.7) * 5 / 27, rel=1e-5)  # 30 words, 27 4-grams, 5 different
    # A report of few words gains nothing: that is what the likelihood is for.
    short, long = rewards(["No."], logp=-3.0)["fluency"], rewards([REFERENCE], logp=-0.1)["fluency"]
    assert short < long


@pytest.mark.parametrize(
    ("text", "ended", "worth"),
    [
        (REFERENCE, True, 1),
        (REFERENCE, False, 0),
        ("IMPRESSION:\nNodule.\n\nFINDINGS:\nA nodule.", True, 0),
        ("FINDINGS:\n\nIMPRESSION:\nNodule.", True, 0),
        ("FINDINGS:\nA nodule.\n\nIMPRESSION:\n", True, 0),
        ("FINDINGS:\nA nodule.", True, 0),
        ("FINDINGS: A nodule. IMPRESSION: Nodule.", True, 1),
        ("Well. " + REFERENCE, True, 0),
        ("", True, 0),
    ],
)
def test_format(text: str, ended: bool, worth: int) -> None:
    assert rewards([text], ended=ended)["format"].item() == worth


def test_weights_choose_the_components() -> None:
    model = RewardModel({"format": 2.0})
    found = model([REFERENCE], [HEALTHY], torch.zeros(1), torch.ones(1, dtype=torch.bool))
    assert found["total"].item() == 2.0
    assert set(found) == {*WEIGHTS, "total"}


def test_facts_may_come_from_elsewhere() -> None:
    model = RewardModel({"factual": 1.0}, extract=lambda text: {("all", "", text[:1])})
    found = model(["Foo", "Bar"], ["Fool", "Fool"], torch.zeros(2), torch.ones(2, dtype=torch.bool))
    assert found["total"].tolist() == [1.0, 0.0]


def test_wrong_weights_and_lengths_are_named() -> None:
    with pytest.raises(ValueError, match="weights for brevity"):
        RewardModel({"brevity": 1.0})
    for weights in ({}, {"format": 0.0}, {"format": 1.0, "factual": -1.0}):
        with pytest.raises(ValueError, match="at least 0"):
            RewardModel(weights)
    with pytest.raises(ValueError, match="2 texts, 1 references"):
        RewardModel()(["a", "b"], ["a"], torch.zeros(2), torch.ones(2))
