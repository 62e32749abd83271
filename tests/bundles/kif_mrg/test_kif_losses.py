"""Losses of a self-distillation round: closed forms, padding, frozen teacher, both relation modes."""

import copy

import pytest
import torch
from kif_mrg.conditions import IGNORE
from kif_mrg.losses import IsdLoss, class_loss, language_loss, relation, sequence_kd
from torch import Tensor, nn

PAD, B, T, V, C = 0, 4, 6, 11, 5
NO_PRIOR = torch.zeros(C)


def outputs() -> dict[str, Tensor]:
    return {
        "logits": torch.randn(B, T, V),
        "class_logits": torch.randn(B, 4, C),
        "patches": torch.randn(B, 9, 8),
        "graph": torch.randn(B, 9, 8),
    }


def batch() -> dict[str, Tensor]:
    tokens = torch.randint(1, V, (B, T))
    tokens[1, 4:] = tokens[3, 2:] = PAD
    return {"tokens": tokens, "labels": torch.randint(0, 4, (B, C))}


def padded(x: Tensor, more: int = 5) -> Tensor:
    return torch.cat([x, 3 * torch.randn(B, more, V) if x.ndim == 3 else x.new_full((B, more), PAD)], dim=1)


def test_class_loss_is_the_mean_over_the_labelled_of_adjusted_cross_entropies() -> None:
    logits, labels, log_prior = torch.randn(B, 4, C), torch.randint(0, 4, (B, C)), -torch.rand(C)
    labels[0, 1], labels[:, 4] = IGNORE, IGNORE
    adjusted = logits.clone()
    adjusted[:, 1] += log_prior
    terms = [
        -adjusted[b, :, c].log_softmax(0)[labels[b, c]]
        for b in range(B)
        for c in range(C)
        if labels[b, c] != IGNORE
    ]
    before = logits.clone()
    torch.testing.assert_close(class_loss(logits, labels, log_prior), torch.stack(terms).mean())
    assert torch.equal(logits, before)


def test_nothing_labelled_gives_a_zero_with_a_graph() -> None:
    logits = torch.randn(B, 4, C, requires_grad=True)
    value = class_loss(logits, torch.full((B, C), IGNORE), NO_PRIOR)
    value.backward()
    assert value.item() == 0
    assert logits.grad is not None
    assert logits.grad.abs().max() == 0


@pytest.mark.parametrize("label", [-1, 4])
def test_a_label_that_is_no_state_is_named(label: int) -> None:
    labels = torch.zeros(B, C, dtype=torch.long)
    labels[2, 3] = label
    with pytest.raises(ValueError, match=r"labels must be in 0 \.\.\. 3 or -100"):
        class_loss(torch.randn(B, 4, C), labels, NO_PRIOR)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_language_loss_is_torchs_token_mean_without_padding(smoothing: float) -> None:
    logits, tokens = torch.randn(B, T, V), batch()["tokens"]
    torchs = nn.CrossEntropyLoss(label_smoothing=smoothing)(logits[tokens != PAD], tokens[tokens != PAD])
    torch.testing.assert_close(language_loss(logits, tokens, PAD, smoothing), torchs)
    torch.testing.assert_close(language_loss(padded(logits), padded(tokens), PAD, smoothing), torchs)


def test_sequence_term_is_the_sum_over_words_per_report() -> None:
    student, teacher, t = torch.randn(B, T, V), torch.randn(B, T, V), 4.0
    mask = batch()["tokens"] != PAD
    p, q = (teacher / t).softmax(2), (student / t).softmax(2)
    expected = t**2 / B * (p * (p / q).log()).sum(2)[mask].sum()
    torch.testing.assert_close(sequence_kd(student, teacher, mask, t), expected)
    assert sequence_kd(student, student, mask, t).item() == pytest.approx(0, abs=1e-6)
    assert sequence_kd(student, teacher, torch.zeros_like(mask), t).item() == 0


def test_more_padding_leaves_the_sequence_term_unchanged() -> None:
    student, teacher, mask = torch.randn(B, T, V), torch.randn(B, T, V), batch()["tokens"] != PAD
    longer = torch.cat([mask, torch.zeros(B, 5, dtype=torch.bool)], dim=1)
    value = sequence_kd(padded(student), padded(teacher), longer)
    torch.testing.assert_close(value, sequence_kd(student, teacher, mask), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("on", ["patch", "graph"])
def test_separate_relation_is_blind_to_the_scale_of_the_diagnoses(on: str) -> None:
    student, teacher = outputs(), outputs()
    value = relation(student, teacher, "separate", on)
    scaled = [x | {"class_logits": 50 * x["class_logits"]} for x in (student, teacher)]
    torch.testing.assert_close(relation(*scaled, "separate", on), value)
    assert (relation(*scaled, "joint", on) - relation(student, teacher, "joint", on)).abs() > 1e-3


def test_separate_relation_weighs_features_and_diagnoses_alike() -> None:
    student, teacher = outputs(), outputs()
    same_features = relation(student, teacher | {"patches": student["patches"]})
    same_diagnoses = relation(student, teacher | {"class_logits": student["class_logits"]})
    torch.testing.assert_close(relation(student, teacher), same_features + same_diagnoses)
    other = "graph"
    torch.testing.assert_close(
        relation(student, teacher | {other: student[other]}), relation(student, teacher)
    )


def test_joint_relation_summed_over_the_batch_is_the_authors_formula() -> None:
    student, teacher = outputs(), outputs()
    rows = []
    for said in (student, teacher):
        features, diagnoses = said["patches"].reshape(B, -1), said["class_logits"].reshape(B, -1)
        gram = torch.cat([features @ features.T, diagnoses @ diagnoses.T], dim=1)  # (B, 2B)
        rows.append(gram / gram.pow(2).sum(1, keepdim=True).sqrt())
    summed = (rows[0] - rows[1]).pow(2).sum(1).sqrt().sum()
    torch.testing.assert_close(B * relation(student, teacher, "joint"), summed)


def test_terms_are_weighted_and_a_teacher_adds_two() -> None:
    said, taught, given = outputs(), outputs(), batch()
    loss = IsdLoss(PAD, class_weight=2, sequence_weight=0.5, relation_weight=3, temperature=2)
    terms = loss(said, taught, given, NO_PRIOR)
    plain = loss(said, None, given, NO_PRIOR)
    assert list(plain) == ["lm", "cls"]
    assert list(terms) == ["lm", "cls", "seq", "rel"]
    mask = given["tokens"] != PAD
    expected = {
        "lm": language_loss(said["logits"], given["tokens"], PAD),
        "cls": 2 * class_loss(said["class_logits"], given["labels"], NO_PRIOR),
        "seq": 0.5 * sequence_kd(said["logits"], taught["logits"], mask, 2),
        "rel": 3 * relation(said, taught),
    }
    for key, value in expected.items():
        torch.testing.assert_close(terms[key], value, msg=key)
    for key, value in plain.items():
        torch.testing.assert_close(value, expected[key], msg=key)


def test_an_agreeing_teacher_adds_nothing_and_no_teacher_gets_a_gradient() -> None:
    said, given = {key: x.requires_grad_() for key, x in outputs().items()}, batch()
    copied = {key: copy.deepcopy(x) for key, x in said.items()}
    terms = IsdLoss(PAD)(said, copied, given, NO_PRIOR)
    assert terms["seq"].item() == pytest.approx(0, abs=1e-6)
    assert terms["rel"].item() == pytest.approx(0, abs=1e-5)
    taught = {key: x.requires_grad_() for key, x in outputs().items()}
    torch.stack(list(IsdLoss(PAD)(said, taught, given, NO_PRIOR).values())).sum().backward()
    assert all(x.grad is None for x in taught.values())
    for key in ("logits", "class_logits", "patches"):
        grad = said[key].grad
        assert grad is not None
        assert grad.abs().max() > 0


def test_unknown_modes_are_refused() -> None:
    with pytest.raises(ValueError, match="rel_norm must be one of"):
        IsdLoss(PAD, rel_norm="both")
    with pytest.raises(ValueError, match="rel_on must be one of"):
        IsdLoss(PAD, rel_on="patches")
