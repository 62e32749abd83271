"""Comparison methods: common call, closed forms, weights of teachers, memories."""

import pytest
import torch
import torch.nn.functional as F
from medbundles.distillation import attention_transfer, kd_kl
from react_kd.baselines import BASELINES, GradeOnly, make_method
from react_kd.cirkd import EmbeddingQueue, cross_image_kl, relation_kl
from react_kd.losses import GradeLoss, ReactLoss
from torch import Tensor

SETTING = {"student_channels": 6, "teacher_channels": 5, "teacher_auc": (0.9, 0.7)}
TERMS = {
    "ce": ["task"],
    "kd": ["task", "logits"],
    "at": ["task", "attention"],
    "cirkd": ["task", "logits", "minibatch", "memory_voxel", "memory_region"],
    "mskd_style": ["task", "features", "edge"],
    "mtcm_style": ["task", "logits_sf", "logits_dose"],
    "camkd": ["task", "logits_sf", "logits_dose"],
}


def student(batch: int = 4, grid: tuple[int, int, int] = (4, 4, 2)) -> dict[str, Tensor]:
    return {
        "logits": torch.randn(batch, 3, requires_grad=True),
        "features": torch.randn(batch, 6, *grid, requires_grad=True),
    }


def teacher(batch: int = 4, channels: int = 5, grid: tuple[int, int, int] = (2, 2, 1)) -> dict[str, Tensor]:
    logits = {name: torch.randn(batch, 3) for name in ("logits", "sf_logits", "dose_logits")}
    return logits | {"features": torch.randn(batch, channels, *grid)}


def cases(*labels: int) -> dict[str, Tensor]:
    regions = torch.randint(0, 7, (len(labels), 1, 16, 16, 8), dtype=torch.uint8)
    return {"label": torch.tensor(labels), "regions": regions}


def method(name: str, **changes: object) -> GradeOnly:
    return make_method(name, **SETTING | changes)


@pytest.mark.parametrize("name", BASELINES)
def test_terms_are_finite_and_train_student_and_own_parameters(name: str) -> None:
    loss, output = method(name), student()
    for epoch in range(2):  # the memories of the first call serve the second
        terms = loss(output, teacher(), cases(0, 1, 2, -1), epoch)
    assert list(terms) == TERMS[name]
    sum(terms.values()).backward()
    for tensor in (output["logits"], *loss.parameters()):
        assert tensor.grad is not None
        assert tensor.grad.isfinite().all()
        assert tensor.grad.abs().sum() > 0
    assert (output["features"].grad is not None) == (name in ("at", "cirkd", "mskd_style"))


@pytest.mark.parametrize("name", BASELINES)
def test_a_batch_without_grades_or_regions_is_harmless(name: str) -> None:
    loss, output, batch = method(name), student(), cases(-1, -1, -1, -1)
    batch["regions"].zero_()
    terms = loss(output, teacher(), batch)
    sum(terms.values()).backward()
    assert terms["task"] == 0
    assert all(value.isfinite() for value in terms.values())


@pytest.mark.parametrize("name", BASELINES)
def test_bf16_autocast_stays_near_float32(name: str) -> None:
    loss, output, target, batch = method(name), student(), teacher(), cases(0, 1, 2, 0)
    loss.eval()
    expected = loss(output, target, batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        terms = loss(output, target, batch)
    for key, value in expected.items():
        torch.testing.assert_close(terms[key].float(), value, rtol=0.1, atol=0.02)


def test_unknown_method_and_missing_auc_are_named() -> None:
    with pytest.raises(ValueError, match="method must be one of ce, kd, at"):
        method("awmtkd")
    with pytest.raises(ValueError, match="teacher_auc"):
        method("mtcm_style", teacher_auc=None)


def test_ce_and_kd_equal_their_formulas() -> None:
    output, target, batch = student(), teacher(), cases(0, 1, 2, 2)
    task = GradeLoss(2.0)(output["logits"], batch["label"])
    torch.testing.assert_close(method("ce")(output, target, batch)["task"], task)
    terms = method("kd", alpha=0.6, temperature=4.0)(output, target, batch)
    torch.testing.assert_close(terms["task"], 0.4 * task)
    torch.testing.assert_close(terms["logits"], 0.6 * kd_kl(output["logits"], target["logits"], 4.0))


def test_kd_equals_react_without_its_graph() -> None:
    output, target, batch = student(), teacher(), cases(0, 1, 2, -1)
    terms = ReactLoss(lam=0.0)(output, target, batch)
    for name, value in method("kd")(output, target, batch).items():
        torch.testing.assert_close(value, terms[name])


def test_attention_transfer_carries_its_published_weight() -> None:
    output, target = student(), teacher()
    value = method("at")(output, target, cases(0, 1, 2, 2))["attention"]
    torch.testing.assert_close(value, 1000 * attention_transfer(output["features"], target["features"]))


def test_mtcm_weights_teachers_by_the_softmax_of_their_auc() -> None:
    output, target, batch = student(), teacher(), cases(0, 1, 2, -1)
    terms = method("mtcm_style")(output, target, batch)
    share = torch.tensor([0.9, 0.7]).softmax(0)
    for k, name in enumerate(("sf", "dose")):
        expected = 0.7 * share[k] * kd_kl(output["logits"], target[f"{name}_logits"], 2.0)
        torch.testing.assert_close(terms[f"logits_{name}"], expected)


def test_camkd_equals_its_formula_per_sample() -> None:
    output, target, batch = student(), teacher(), cases(0, 1, 2, -1)
    terms = method("camkd")(output, target, batch)
    expected = {"sf": torch.zeros(()), "dose": torch.zeros(())}
    for b, label in enumerate(batch["label"]):
        errors = [
            F.cross_entropy(target[f"{name}_logits"][b], label) if label >= 0 else torch.zeros(())
            for name in expected
        ]
        weights = 1 - torch.stack(errors).softmax(0)
        for k, name in enumerate(expected):
            divergence = kd_kl(output["logits"][b : b + 1], target[f"{name}_logits"][b : b + 1], 2.0)
            expected[name] = expected[name] + 0.7 * weights[k] * divergence / 4
    for name, value in expected.items():
        torch.testing.assert_close(terms[f"logits_{name}"], value)


@pytest.mark.parametrize("name", ["mtcm_style", "camkd"])
def test_a_case_without_pet_listens_to_the_dose_teacher_alone(name: str) -> None:
    output, target, batch = student(), teacher(), cases(0, 1, 2, -1)
    batch["pet_available"] = torch.zeros(4, 2, dtype=torch.bool)
    target["sf_logits"].fill_(torch.nan)
    terms = method(name)(output, target, batch)
    assert terms["logits_sf"] == 0
    expected = 0.7 * kd_kl(output["logits"], target["dose_logits"], 2.0)
    torch.testing.assert_close(terms["logits_dose"], expected)


def test_mskd_ignores_features_outside_the_regions() -> None:
    loss, output, target, batch = method("mskd_style"), student(), teacher(grid=(4, 4, 2)), cases(0, 1, 2, 0)
    batch["regions"][:, :, :8] = 0
    expected = loss(output, target, batch)
    changed = output["features"].detach().clone()
    changed[:, :, :2] += 5
    terms = loss(output | {"features": changed}, target, batch)
    for name, value in expected.items():
        torch.testing.assert_close(terms[name], value)


def test_relations_vanish_for_equal_embeddings_and_match_the_double_sum() -> None:
    sets = [[F.normalize(torch.randn(m, 5), dim=1) for m in (3, 7)] for _ in range(2)]
    assert cross_image_kl(sets[1], sets[1], 0.1).abs() < 1e-6
    expected = torch.zeros(())
    for i in range(2):
        for j in range(2):
            p, q = ((x[i] @ x[j].T / 0.1).softmax(1) for x in (sets[1], sets[0]))
            expected = expected + (p * (p / q).log()).sum(1).mean() / 4
    torch.testing.assert_close(cross_image_kl(*sets, 0.1), expected, rtol=1e-4, atol=1e-5)
    nothing = torch.zeros(0, 5, requires_grad=True)
    relation_kl(nothing, nothing, sets[0][0], sets[0][0], 0.1).backward()


def test_queue_keeps_the_latest_embeddings_of_each_class() -> None:
    queue = EmbeddingQueue(classes=2, size=4, channels=1)
    assert queue.stored().shape == (0, 1)
    for start in range(0, 9, 3):
        queue.push(torch.arange(start, start + 3.0)[:, None], 1)
    assert sorted(queue.stored().flatten().tolist()) == [5, 6, 7, 8]
    queue.push(torch.tensor([[42.0]]), 0)
    assert queue.stored().shape == (5, 1)
    restored = EmbeddingQueue(2, 4, 1)
    restored.load_state_dict(queue.state_dict())
    assert torch.equal(restored.stored(), queue.stored())


def test_cirkd_stores_teacher_voxels_by_class_while_training_only() -> None:
    loss, target, batch = method("cirkd"), teacher(), cases(0, 1, -1, 0)
    batch["regions"][:] = 1
    batch["regions"][:, :, :8] = 5  # the first half of every image is tumour
    loss.eval()(student(), target, batch)
    assert loss.memory.voxels.pushed.tolist() == [0, 0, 0, 0]
    loss.train()(student(), target, batch)
    assert loss.memory.voxels.pushed.tolist() == [8, 4, 2, 0]
    assert loss.memory.regions.pushed.tolist() == [4, 2, 1, 0]
    torch.testing.assert_close(loss.memory.voxels.stored().norm(dim=1), torch.ones(14))
