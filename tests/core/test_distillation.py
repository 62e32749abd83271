"""Distillation losses: closed forms, invariances, masks, precision."""

from collections.abc import Callable

import pytest
import torch
from medbundles.distillation import attention_transfer, feature_mse, kd_kl, relation_gram, relation_rows
from torch import Tensor, nn

LOSSES = [kd_kl, attention_transfer, feature_mse, relation_gram, relation_rows]


def batch(loss: Callable[..., Tensor], samples: int = 4) -> tuple[Tensor, Tensor]:
    shape = (samples, 3) if loss is kd_kl else (samples, 3, 2, 4, 3)
    return torch.randn(shape), torch.randn(shape)


@pytest.mark.parametrize("loss", LOSSES)
def test_zero_on_equal_inputs_positive_on_others(loss: Callable[..., Tensor]) -> None:
    student, teacher = batch(loss)
    assert loss(teacher, teacher).item() == pytest.approx(0, abs=1e-12)
    assert loss(student, teacher).item() > 0


@pytest.mark.parametrize("loss", LOSSES)
def test_gradient_reaches_the_student_only(loss: Callable[..., Tensor]) -> None:
    student, teacher = (x.requires_grad_() for x in batch(loss))
    loss(student, teacher).backward()
    assert student.grad is not None
    assert student.grad.abs().sum() > 0
    assert teacher.grad is None


@pytest.mark.parametrize("loss", LOSSES)
def test_weight_zero_drops_a_sample_even_of_nan(loss: Callable[..., Tensor]) -> None:
    student, teacher = batch(loss)
    expected = loss(student[[0, 2]], teacher[[0, 2]])
    student[1], teacher[3] = torch.nan, torch.nan
    student.requires_grad_()
    value = loss(student, teacher, weight=torch.tensor([1.0, 0.0, 1.0, 0.0]))
    value.backward()
    torch.testing.assert_close(value, expected)
    assert student.grad is not None
    assert student.grad.isfinite().all()


@pytest.mark.parametrize("loss", LOSSES)
def test_no_sample_gives_a_zero_with_a_graph(loss: Callable[..., Tensor]) -> None:
    student, teacher = batch(loss)
    value = loss(student.requires_grad_(), teacher, weight=torch.zeros(4))
    value.backward()
    assert value.item() == 0
    assert student.grad is not None


@pytest.mark.parametrize("loss", LOSSES)
def test_float32_inside_autocast(loss: Callable[..., Tensor]) -> None:
    student, teacher = (x.bfloat16() for x in batch(loss))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss(student, teacher)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, loss(student.float(), teacher.float()))


@pytest.mark.parametrize("loss", LOSSES)
def test_batches_of_different_size_are_rejected(loss: Callable[..., Tensor]) -> None:
    student, teacher = batch(loss)
    with pytest.raises(ValueError, match="the same batch"):
        loss(student[:2], teacher)


def test_kd_closed_form_direction_and_temperature() -> None:
    student, teacher, t = torch.tensor([[1.0, 0.0, -1.0]]), torch.tensor([[0.0, 2.0, 0.0]]), 3.0
    p, q = (teacher / t).softmax(1), (student / t).softmax(1)
    assert kd_kl(student, teacher, t).item() == pytest.approx(
        t**2 * (p * (p / q).log()).sum().item(), rel=1e-6
    )


def test_kd_is_a_mean_over_the_batch_not_over_classes() -> None:
    student, teacher = batch(kd_kl)
    single = torch.stack([kd_kl(s[None], t[None]) for s, t in zip(student, teacher, strict=True)])
    torch.testing.assert_close(kd_kl(student, teacher), single.mean())


def test_kd_ignores_a_constant_shift_of_logits() -> None:
    student, _ = batch(kd_kl)
    assert kd_kl(student + 5, student).item() == pytest.approx(0, abs=1e-6)


def test_kd_gradient_does_not_shrink_with_temperature() -> None:
    norms = []
    for temperature in (1.0, 2.0, 8.0):
        student = (0.01 * torch.randn(4, 3, generator=torch.Generator().manual_seed(1))).requires_grad_()
        kd_kl(student, torch.zeros(4, 3), temperature).backward()
        assert student.grad is not None
        norms.append(student.grad.norm().item())
    assert max(norms) / min(norms) < 1.02


def test_attention_ignores_scale_and_channel_order() -> None:
    student, teacher = batch(attention_transfer)
    expected = attention_transfer(student, teacher)
    torch.testing.assert_close(attention_transfer(7 * student[:, [2, 0, 1]], teacher), expected)


def test_attention_closed_form() -> None:
    student, teacher = batch(attention_transfer)
    q_s, q_t = (x.pow(2).mean(1).flatten(1) for x in (student, teacher))
    q_s, q_t = (q / q.norm(dim=1, keepdim=True) for q in (q_s, q_t))
    torch.testing.assert_close(attention_transfer(student, teacher), (q_s - q_t).pow(2).mean())


def test_attention_resizes_the_student_and_takes_any_width() -> None:
    value = attention_transfer(torch.randn(2, 8, 4, 8, 6), torch.randn(2, 3, 2, 4, 3))
    assert value.item() > 0


def test_feature_mse_equals_torch_and_uses_the_projection() -> None:
    student, teacher = batch(feature_mse)
    torch.testing.assert_close(feature_mse(student, teacher), nn.functional.mse_loss(student, teacher))
    projection = nn.Conv3d(5, 3, 1)
    feature_mse(torch.randn(4, 5, 4, 8, 6), teacher, projection).backward()
    assert projection.weight.grad is not None
    assert projection.weight.grad.abs().sum() > 0


def test_feature_mse_looks_inside_the_mask_only() -> None:
    student, teacher = batch(feature_mse)
    mask = torch.zeros(4, 1, 2, 4, 3)
    mask[:3, :, 0, 1] = 1  # the last sample has an empty mask
    changed = torch.where(mask.bool(), student, student + 9)
    expected = (student - teacher)[:3, :, 0, 1].square().mean()
    torch.testing.assert_close(feature_mse(changed, teacher, mask=mask), expected)


def test_feature_mse_names_what_does_not_match() -> None:
    teacher = torch.randn(2, 3, 2, 2, 2)
    with pytest.raises(ValueError, match="one shape"):
        feature_mse(torch.randn(2, 5, 2, 2, 2), teacher)
    with pytest.raises(ValueError, match="mask must be"):
        feature_mse(teacher, teacher, mask=torch.ones(2, 1, 4, 4, 4))


def test_relation_is_blind_to_rotation_and_scale_of_the_features() -> None:
    student, teacher = torch.randn(4, 6, dtype=torch.float64), torch.randn(4, 5, dtype=torch.float64)
    rotation = torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64)).Q
    torch.testing.assert_close(
        relation_gram(3 * student @ rotation, teacher), relation_gram(student, teacher)
    )


def test_relation_closed_form() -> None:
    student, teacher = torch.randn(4, 6), torch.randn(4, 5)
    grams = [x @ x.T for x in (student, teacher)]
    g_s, g_t = (g / g.norm(dim=1, keepdim=True) for g in grams)
    torch.testing.assert_close(relation_gram(student, teacher), (g_s - g_t).square().mean())


def test_relation_rows_closed_form_of_one_block_and_of_two() -> None:
    student, teacher, small_s, small_t = (torch.randn(4, width) for width in (6, 5, 3, 3))
    joint = [torch.cat([x @ x.T, y @ y.T], 1) for x, y in ((student, small_s), (teacher, small_t))]
    for grams, value in (
        ([student @ student.T, teacher @ teacher.T], relation_rows(student, teacher)),
        (joint, relation_rows(student, teacher, small_s, small_t)),
    ):
        g_s, g_t = (g / g.norm(dim=1, keepdim=True) for g in grams)
        torch.testing.assert_close(value, sum((g_s - g_t).norm(dim=1)) / 4)


def test_relation_rows_is_blind_to_the_scale_of_one_block_but_not_of_two() -> None:
    student, teacher, small_s, small_t = (torch.randn(4, width) for width in (6, 5, 3, 3))
    torch.testing.assert_close(relation_rows(9 * student, teacher), relation_rows(student, teacher))
    swamped = relation_rows(1e3 * student, 1e3 * teacher, small_s, small_t)
    torch.testing.assert_close(swamped, relation_rows(student, teacher), rtol=1e-3, atol=1e-3)
    with pytest.raises(ValueError, match="pairs"):
        relation_rows(student, teacher, small_s)


def test_relation_rows_has_a_finite_gradient_where_student_and_teacher_agree() -> None:
    student = torch.randn(4, 6, requires_grad=True)
    relation_rows(student, student.detach().clone()).backward()
    assert student.grad is not None
    assert student.grad.isfinite().all()
