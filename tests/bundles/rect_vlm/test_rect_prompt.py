"""Rows of tokens: what is a label, where padding goes, what is cut when there is too much."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from rect_llm import LINES, REPORTS, tiny_folder
from rect_vlm.prompt import IGNORED, INSTRUCTION, Prompt, Rows

M = 3
CHAT = (
    "{{ bos_token }}{% for m in messages %}<{{ m['role'] }}> {{ m['content'] }} </>{% endfor %}"
    "{% if add_generation_prompt %}<assistant> {% endif %}"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_folder(tmp_path_factory.mktemp("llm"))


@pytest.fixture
def tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


def _real(rows: Rows, i: int) -> list[int]:
    """Ids of a row without padding and image."""
    return rows.ids[i][rows.mask[i].bool() & ~rows.visual[i]].tolist()


def test_labels_are_the_report_and_its_end_and_nothing_else(tokenizer: Any) -> None:
    rows = Prompt(tokenizer, M).training_rows(LINES, REPORTS)
    for i, report in enumerate(REPORTS):
        words = tokenizer.encode(report, add_special_tokens=False)
        labels = rows.labels[i][rows.labels[i] != IGNORED].tolist()
        assert labels == [*words, tokenizer.eos_token_id]
        assert len(labels) == len(words) + 1
        marked = rows.labels[i] != IGNORED
        assert torch.equal(rows.labels[i][marked], rows.ids[i][marked])
        assert not (marked & rows.visual[i]).any()
        assert not (marked & (rows.mask[i] == 0)).any()


def test_a_row_begins_with_its_first_token_then_the_image(tokenizer: Any) -> None:
    rows = Prompt(tokenizer, M).training_rows(LINES, REPORTS)
    assert rows.ids[:, 0].tolist() == [tokenizer.bos_token_id] * 2
    assert (rows.ids == tokenizer.bos_token_id).sum(1).tolist() == [1, 1]
    assert rows.visual.nonzero().tolist() == [[i, j] for i in range(2) for j in range(1, 1 + M)]
    said = tokenizer.decode(_real(rows, 0)[1:-1])
    assert said == "\n" + "\n".join([*LINES[0], INSTRUCTION]) + "\n" + REPORTS[0]


def test_training_pads_right_and_generation_left_with_positions_from_the_first_token(tokenizer: Any) -> None:
    prompt = Prompt(tokenizer, M)
    training, generation = prompt.training_rows(LINES, REPORTS), prompt.generation_rows(LINES)
    assert (training.mask.diff(dim=1) <= 0).all()
    assert (generation.mask.diff(dim=1) >= 0).all()
    assert (generation.labels == IGNORED).all()
    for i in range(2):
        asked = _real(generation, i)
        assert _real(training, i)[: len(asked)] == asked
        for rows in (training, generation):
            real = rows.positions[i][rows.mask[i].bool()]
            assert real.tolist() == list(range(len(real)))
    assert int(training.mask.min()) == int(generation.mask.min()) == 0  # there is padding in both


def test_evidence_that_does_not_fit_loses_whole_lines_and_never_the_instruction(tokenizer: Any) -> None:
    first = len(tokenizer.encode("\n" + LINES[0][0], add_special_tokens=False))
    for limit, kept in ((first, 1), (first - 1, 0), (10_000, 2), (0, 0)):
        rows = Prompt(tokenizer, M, max_evidence=limit).generation_rows(LINES)
        said = tokenizer.decode(_real(rows, 0)[1:])
        assert said == "\n" + "\n".join([*LINES[0][:kept], INSTRUCTION]) + "\n"


def test_a_cut_report_has_no_end(tokenizer: Any) -> None:
    words = tokenizer.encode(REPORTS[1], add_special_tokens=False)
    rows = Prompt(tokenizer, M, max_target=6).training_rows([[]], REPORTS[1:])
    assert rows.labels[rows.labels != IGNORED].tolist() == words[:6]
    whole = Prompt(tokenizer, M, max_target=len(words) + 1).training_rows([[]], REPORTS[1:])
    assert int(whole.labels[0, -1]) == tokenizer.eos_token_id


def test_a_chat_template_surrounds_the_content(tokenizer: Any) -> None:
    tokenizer.chat_template = CHAT
    rows = Prompt(tokenizer, M, "Write.").generation_rows(LINES)
    content = "\n" + "\n".join([*LINES[0], "Write."])
    rendered = tokenizer.apply_chat_template(
        [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
    )
    assert tokenizer.decode(_real(rows, 0)) == rendered
    before = tokenizer.encode("<s><user> ", add_special_tokens=False)
    assert rows.ids[0, : len(before)].tolist() == before
    assert rows.visual[0].nonzero()[0].item() == len(before)
    tokenizer.chat_template = "{{ bos_token }}hello"
    with pytest.raises(ValueError, match="show the user's content once, got it 0 times"):
        Prompt(tokenizer, M)


def test_given_tokens_are_labels_up_to_the_end_of_their_mask(tokenizer: Any) -> None:
    tokens = torch.tensor([[7, 8, 9, 0], [5, 0, 0, 0]])
    mask = torch.tensor([[1, 1, 1, 0], [1, 0, 0, 0]])
    rows = Prompt(tokenizer, M).scored_rows(LINES, tokens, mask)
    found = [rows.labels[i][rows.labels[i] != IGNORED].tolist() for i in range(2)]
    assert found == [[7, 8, 9], [5]]


@pytest.mark.parametrize("numbers", [{"max_target": 1}, {"max_evidence": -1}])
def test_bad_limits_are_refused(tokenizer: Any, numbers: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="max_target >= 2 and max_evidence >= 0"):
        Prompt(tokenizer, M, **numbers)
