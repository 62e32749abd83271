"""The report generator: its loss, what it writes, and that both see the same thing."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from rect_llm import LINES, REPORTS, shake_lora, tiny_folder, tiny_generator, tiny_vision
from rect_vlm.generator import ReportGenerator, up_to_end
from torch import Tensor


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_folder(tmp_path_factory.mktemp("llm"))


@pytest.fixture
def generator(folder: Path) -> ReportGenerator:
    generator = tiny_generator(folder).eval()
    shake_lora(generator)
    return generator


def _study(vision: dict[str, Tensor], *chosen: int) -> dict[str, Tensor]:
    return {name: value[list(chosen)] for name, value in vision.items()}


def _loss(generator: ReportGenerator, vision: dict[str, Tensor], *chosen: int) -> float:
    lines, reports = [LINES[i] for i in chosen], [REPORTS[i] for i in chosen]
    return generator.loss(_study(vision, *chosen), lines, reports)["gen"].item()


def test_padding_does_not_change_the_loss(generator: ReportGenerator) -> None:
    vision = tiny_vision()
    tokens = [len(generator.prompt.encode(report)) + 1 for report in REPORTS]
    alone = [_loss(generator, vision, i) for i in range(2)]
    mean = sum(n * loss for n, loss in zip(tokens, alone, strict=True)) / sum(tokens)
    assert _loss(generator, vision, 0, 1) == pytest.approx(mean, abs=1e-5)


def test_right_padded_scores_equal_the_left_padded_steps_of_generation(generator: ReportGenerator) -> None:
    from transformers import GenerationConfig

    vision = tiny_vision()
    rows = generator.prompt.generation_rows(LINES)
    steps = GenerationConfig(
        max_new_tokens=6, output_logits=True, return_dict_in_generate=True, eos_token_id=None, pad_token_id=0
    )
    out = generator.llm.generate(
        **generator._inputs(rows, generator.projector(vision)), generation_config=steps
    )
    logits = torch.stack(out.logits, 1)  # (B, 6, V), of rows padded on the left
    expected = logits.log_softmax(-1).gather(2, out.sequences[:, :, None])[:, :, 0]
    mask = torch.tensor([[1] * 6, [1] * 4 + [0] * 2])
    found = generator.log_probs(vision, LINES, out.sequences, mask)
    torch.testing.assert_close(found, expected * mask, atol=1e-4, rtol=1e-4)


def test_the_loss_is_the_mean_of_the_scores_of_the_true_tokens(generator: ReportGenerator) -> None:
    vision = tiny_vision()
    tokens = torch.tensor([[*generator.prompt.encode(REPORTS[0]), generator.prompt.eos]])
    scores = generator.log_probs(_study(vision, 0), LINES[:1], tokens, torch.ones_like(tokens))
    assert _loss(generator, vision, 0) == pytest.approx(-scores.mean().item(), abs=1e-5)


def test_scores_of_several_samples_per_study(generator: ReportGenerator) -> None:
    vision, tokens = tiny_vision(), torch.randint(3, 50, (4, 5))
    mask = torch.ones_like(tokens)
    both = generator.log_probs(vision, LINES, tokens, mask)
    second = generator.log_probs(_study(vision, 1), LINES[1:], tokens[3:], mask[3:])
    torch.testing.assert_close(both[3:], second, atol=1e-5, rtol=1e-4)
    with pytest.raises(ValueError, match="multiple of the 2 studies, got 3"):
        generator.log_probs(vision, LINES, tokens[:3], mask[:3])


def test_one_report_is_learned_by_heart_and_ends(folder: Path) -> None:
    generator = tiny_generator(folder, lora_r=8, lora_alpha=16, lora_dropout=0.0)
    vision, lines, report = tiny_vision(1), LINES[:1], REPORTS[:1]
    optimizer = torch.optim.AdamW([w for w in generator.parameters() if w.requires_grad], lr=1e-2)
    for step in range(1, 151):
        optimizer.zero_grad()
        generator.loss(vision, lines, report)["gen"].backward()
        optimizer.step()
        if step % 30 == 0:
            written = generator.generate(vision, lines, 80, do_sample=False, return_tokens=True)
            if written.texts == report:
                break
    assert written.texts == report
    assert written.tokens[0].tolist() == [*generator.prompt.encode(REPORTS[0]), generator.prompt.eos]


def test_studies_without_a_report_have_no_part(generator: ReportGenerator) -> None:
    vision = tiny_vision()
    mixed = generator.loss(vision, LINES, ["  ", REPORTS[1]])["gen"]
    assert float(mixed) == pytest.approx(_loss(generator, vision, 1), abs=1e-6)
    none = generator.loss(vision, LINES, ["", ""])["gen"]
    none.backward()
    weights = [w for part in generator.parameters_by_part().values() for w in part]
    assert float(none) == 0
    assert all(w.grad is not None and not w.grad.any() for w in weights)


def test_everything_that_may_learn_gets_a_gradient_and_nothing_else(generator: ReportGenerator) -> None:
    generator.loss(tiny_vision(), LINES, REPORTS)["gen"].backward()
    learns = {id(w) for part in generator.parameters_by_part().values() for w in part}
    for name, weight in generator.named_parameters():
        assert weight.requires_grad == (id(weight) in learns), name
        assert (weight.grad is not None) == weight.requires_grad, name
    lora = generator.parameters_by_part()["lora"]
    assert len(lora) == 3 * 3 * 2  # layers, targets, A and B
    assert all(weight.grad is not None and weight.grad.any() for weight in lora)


def test_the_image_and_the_evidence_are_read(folder: Path, generator: ReportGenerator) -> None:
    def loss(of: ReportGenerator, image: dict[str, Tensor], lines: list[list[str]]) -> float:
        return float(of.loss(image, lines, REPORTS[:1])["gen"])

    vision, other = _study(tiny_vision(), 0), _study(tiny_vision(), 0)
    other["region_present"] = vision["region_present"]
    here = loss(generator, vision, LINES[:1])
    assert abs(loss(generator, vision, [[]]) - here) > 1e-3
    assert abs(loss(generator, other, LINES[:1]) - here) > 1e-3
    unread = tiny_generator(folder, evidence="none").eval()
    assert loss(unread, vision, LINES[:1]) == loss(unread, vision, [[]])


def test_lesions_as_tokens_of_their_own(folder: Path) -> None:
    generator = tiny_generator(folder, evidence="embedding").eval()
    vision, weights = tiny_vision(), torch.zeros(2, 2, 5, 12)
    weights[1, :, 2, 4:8] = 1.0
    absent, present = (
        generator.loss(vision | {"lesion_weights": each}, LINES, REPORTS)["gen"].item() for each in weights
    )
    assert abs(present - absent) > 1e-4
    with pytest.raises(ValueError, match="lesion_weights"):
        generator.loss(vision, LINES, REPORTS)


def test_samples_of_a_study_stand_in_a_row_and_end_once(generator: ReportGenerator) -> None:
    written = generator.generate(
        tiny_vision(), LINES, max_new_tokens=12, temperature=1.0, top_p=1.0, num_return=3, return_tokens=True
    )
    assert len(written.texts) == 6
    assert written.tokens.shape == written.mask.shape == (6, written.tokens.shape[1])
    assert len({tuple(row) for row in written.tokens.tolist()}) == 6
    tokens = torch.tensor([[5, 2, 2, 5], [2, 5, 5, 5], [5, 5, 5, 5]])
    assert up_to_end(tokens, 2).long().tolist() == [[1, 1, 0, 0], [1, 0, 0, 0], [1, 1, 1, 1]]


@pytest.mark.parametrize("numbers", [{"num_return": 2, "do_sample": False}, {"temperature": 0.0}])
def test_impossible_sampling_is_refused(generator: ReportGenerator, numbers: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="sample, with temperature > 0"):
        generator.generate(tiny_vision(), LINES, **numbers)  # type: ignore[call-overload]


def test_more_than_the_model_reads_is_refused(generator: ReportGenerator) -> None:
    with pytest.raises(ValueError, match="must fit the 2048 tokens of the model"):
        generator.generate(tiny_vision(), LINES, max_new_tokens=2048)
    with pytest.raises(ValueError, match="evidence must be one of"):
        tiny_generator(Path("unused"), evidence="words")
