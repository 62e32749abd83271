"""The table of phases: order, parts, sources and what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from rect_training_runs import CONFIG, TRAINED
from rect_vlm.phase_evaluator import label_f1, macro_auroc, overlap
from rect_vlm.phase_training import set_learning, warmup_cosine
from rect_vlm.phases import chosen_phases, read_phases, sources

PHASES = read_phases(json.loads(CONFIG.read_text())["phase_table"])


def test_the_table_trains_what_the_method_says() -> None:
    assert {name: tuple(phase.trains) for name, phase in PHASES.items()} == TRAINED
    assert PHASES["2"].losses == {"cls": 1.0, "loc": 2.0, "gen": 1.5}


@pytest.mark.parametrize(
    ("phase", "expected"),
    [
        ("1.1", {"vision": None, "classifier": None}),
        ("1.2", {"vision": "1.1", "localizer": None}),
        ("1.3", {"vision": "1.2", "projector": None, "lora": None}),
        ("2", {"vision": "1.2", "classifier": "1.1", "localizer": "1.2", "projector": "1.3", "lora": "1.3"}),
        ("3", dict.fromkeys(("vision", "classifier", "localizer", "projector", "lora"), "2")),
    ],
)
def test_every_part_starts_with_the_newest_phase_that_trained_it(
    phase: str, expected: dict[str, str | None]
) -> None:
    assert sources(PHASES[phase], PHASES) == expected


@pytest.mark.parametrize("wanted", [1.1, "1.1", ["1.1"], [1.1]])
def test_one_phase_may_be_named_in_any_way(wanted: Any) -> None:
    assert chosen_phases(wanted, PHASES) == ["1.1"]


def test_phases_run_in_their_order() -> None:
    assert chosen_phases(["2", 1.1, "1.3"], PHASES) == ["1.1", "1.3", "2"]


def test_an_unknown_phase_is_refused() -> None:
    with pytest.raises(ValueError, match=r"phases must be among 1\.1, 1\.2, 1\.3, 2, 3, got 4"):
        chosen_phases(["1.1", 4], PHASES)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"trains": {"bert": 1e-3}}, "trains must be among"),
        ({"losses": {"clas": 1.0}}, "losses must be among"),
        ({"trains": {"localizer": 1e-3}}, r"no loss of \['cls'\] reaches \['localizer'\]"),
        ({"trains": {}}, "at least one part and task"),
        ({"epoch": 3}, "unexpected keyword argument 'epoch'"),
    ],
)
def test_numbers_that_make_no_phase_are_refused(changes: dict[str, Any], message: str) -> None:
    row = {"trains": {"vision": 1e-3}, "losses": {"cls": 1.0}, "epochs": 1}
    with pytest.raises(ValueError, match=message):
        read_phases({"1.1": {**row, **changes}})


def test_rates_rise_then_fall_to_nothing() -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)
    schedule = warmup_cosine(optimizer, steps=20, warmup=0.2)
    rates = []
    for _ in range(20):
        rates.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    assert rates[3] == 2.0
    assert rates[:4] == sorted(rates[:4])
    assert rates[4:] == sorted(rates[4:], reverse=True)
    assert schedule.get_last_lr()[0] == pytest.approx(0, abs=1e-9)


def test_overlap_tells_missing_lesions_from_unknown_ones() -> None:
    true = torch.zeros(1, 3, 2, 2, 2, dtype=torch.bool)
    true[0, 0, 0] = True  # four voxels
    found = torch.zeros_like(true)
    found[0, 0, :, 0] = True  # four, two of them right
    found[0, 1, 0, 0, 0] = True  # one where there is no lesion
    scores = overlap(found, true, torch.tensor([[True, True, False]]))
    assert scores["dice"][0, 0] == 0.5
    assert scores["dice"][0, 1:].isnan().all()
    assert scores["false"][0, 1] == 1
    assert scores["false"][0, [0, 2]].isnan().all()


def test_macro_auroc_leaves_out_findings_of_one_class_and_unknown_labels() -> None:
    labels = torch.zeros(4, 18)
    labels[:2, 0] = 1  # separated
    labels[0, 1], labels[1, 1] = 1, -1  # the unknown one would spoil it
    probabilities = torch.full((4, 18), 0.5)
    probabilities[:, 0] = torch.tensor([0.9, 0.8, 0.1, 0.2])
    probabilities[:, 1] = torch.tensor([0.6, 0.9, 0.7, 0.1])
    assert macro_auroc(probabilities.numpy(), labels.numpy()) == pytest.approx((1.0 + 0.5) / 2)


def test_label_f1_is_one_for_the_same_reports() -> None:
    texts = ["FINDINGS:\nPleural effusion on the right.\n\nIMPRESSION:\nPleural effusion."]
    assert label_f1(texts, texts) == 1.0
    assert label_f1(["FINDINGS:\nNormal.\n\nIMPRESSION:\nNormal."], texts) == 0.0


def test_only_the_named_parts_learn() -> None:
    from rect_tiny_model import tiny_model

    model = tiny_model(generator=None)
    learning = set_learning(model, {"classifier": 1e-3})
    named = {id(parameter) for parameter in learning["classifier"]}
    assert {id(p) for p in model.parameters() if p.requires_grad} == named
