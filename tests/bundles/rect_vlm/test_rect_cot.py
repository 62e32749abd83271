"""Chains of thought: one schema, other layouts translated, OmniAbnorm-CT, texts for tuning."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from rect_reasoning_files import omniabnorm, put
from rect_vlm.cot import cot_problems, parse_steps, read_cot, sft_pair
from rect_vlm.omniabnorm import read_omniabnorm

CASE: dict[str, Any] = {
    "case_id": "7_1", "image_path": "image/7/0.jpeg", "mask_path": "mask/7/1.jpeg", "region": "left lung",
    "category": "Nodule", "generated_by": "somebody",
    "cot_reasoning": [
        {"step": 1, "text": "A round spot.", "anatomical_entities": ["lung"], "mask_region": "centre"},
        {"step": 2, "text": "It is small.", "anatomical_entities": [], "mask_region": ""},
    ],
}  # fmt: skip


def test_cases_are_read_from_file_lines_and_folder(tmp_path: Path) -> None:
    put(tmp_path / "one/a.json", CASE)
    put(tmp_path / "one/failures.json", {"x": "no answer"})
    put(tmp_path / "many.json", [CASE, CASE])
    (tmp_path / "lines.jsonl").write_text(f"{json.dumps(CASE)}\n\n{json.dumps(CASE)}\n")
    assert read_cot(tmp_path / "one") == [CASE]
    assert read_cot(tmp_path / "many.json") == read_cot(tmp_path / "lines.jsonl") == [CASE, CASE]
    with pytest.raises(FileNotFoundError, match=r"nothing"):
        read_cot(tmp_path / "nothing")
    with pytest.raises(ValueError, match="must hold chains of thought, it has none"):
        read_cot(put(tmp_path / "empty.json", []))


def test_all_faults_are_told_with_file_entry_and_key(tmp_path: Path) -> None:
    nameless = {key: value for key, value in CASE.items() if key != "category"}
    broken_step = {**CASE, "cot_reasoning": [{**CASE["cot_reasoning"][0], "step": "one"}]}
    put(tmp_path / "a.json", [CASE, nameless, {**CASE, "cot_reasoning": []}, "text"])
    put(tmp_path / "b.json", broken_step)
    (tmp_path / "c.json").write_text("{")
    with pytest.raises(ValueError) as caught:
        read_cot(tmp_path)
    message = str(caught.value)
    assert "5 problems" in message
    assert "a.json, entry 1: key case: 'category' is a required property" in message
    assert "a.json, entry 2: key cot_reasoning: " in message
    assert "a.json, entry 3: must be an object" in message
    assert "b.json, entry 0: key cot_reasoning.0.step: 'one' is not of type 'integer'" in message
    assert "c.json: must be JSON" in message


def test_other_layouts_are_translated(tmp_path: Path) -> None:
    question = {
        "volumename": "train_1_a_1",
        "question": "Is there an effusion?",
        "answer": "1. Fluid lies low.\n2. Yes.",
    }
    report = {
        "image_id": "9",
        "findings": [
            {"disease": "nodule", "present": True, "confidence": 0.9, "location": "left upper lobe"},
            {"disease": "effusion", "present": False, "confidence": 0.2, "location": ""},
        ],
        "reasoning": "Step 1: A spot is seen.\nStep 2: It is solid.",
        "summary": "One nodule.",
    }
    one, two = read_cot(put(tmp_path / "a.json", [question, report]))
    assert not cot_problems(one)
    assert sft_pair(one) == ("Is there an effusion?", "1. Fluid lies low.\n2. Yes.")
    assert (two["category"], two["region"]) == ("nodule", "left upper lobe")
    prompt, target = sft_pair(two)
    assert prompt.startswith("Reason step by step")
    assert target == "1. A spot is seen.\n2. It is solid.\nAnswer: One nodule."
    assert sft_pair(CASE)[1].endswith("Answer: Nodule (left lung)")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("Here is why:\n1. One\n   more.\n2) Two", ["One more.", "Two"]),
        ("Step 1: One.\nstep 2 : Two.", ["One.", "Two."]),
        ("- One, 2. not a step\n* Two", ["One, 2. not a step", "Two"]),
        ("No list at 1.5 mm.", ["No list at 1.5 mm."]),
        ("", []),
    ],
)
def test_numbered_lines_become_steps(text: str, steps: list[str]) -> None:
    found = parse_steps(text)
    assert [step["text"] for step in found] == steps
    assert [step["step"] for step in found] == list(range(1, len(steps) + 1))


def test_omniabnorm_gives_a_case_per_abnormality(tmp_path: Path) -> None:
    case = read_omniabnorm(omniabnorm(tmp_path))[1]
    assert (case.case_id, case.category, case.description) == ("1_0", "Nodule: lung nodule", "Spot 1.")
    assert Path(case.image_path) == tmp_path / "image/1/0.jpeg"
    assert Path(case.mask_path).is_file()


def test_files_and_keys_that_omniabnorm_lacks(tmp_path: Path) -> None:
    folder = omniabnorm(tmp_path / "data")
    (folder / "image/0/0.jpeg").unlink()
    content = json.loads((folder / "train.json").read_text())
    del content["1"]["abnormality"][0]["label"]
    put(folder / "train.json", content)
    with pytest.raises(ValueError) as caught:
        read_omniabnorm(folder)
    assert "entry 0, key image: no such file" in str(caught.value)
    assert "entry 1, key abnormality: lacks label" in str(caught.value)
    with pytest.raises(ValueError, match="must hold annotation files"):
        read_omniabnorm(tmp_path)
