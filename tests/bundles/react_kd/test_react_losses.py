"""Grade loss and the combined REACT-KD loss."""

import pytest
import torch
import torch.nn.functional as F
from medbundles.attention import CBAM3D
from medbundles.distillation import kd_kl
from react_kd.losses import GradeLoss, ReactLoss
from torch import Tensor, nn

TERMS = ["task", "logits", "node", "edge", "gw"]


def outputs(batch: int = 3, channels: int = 8, grid: tuple[int, int, int] = (4, 4, 2)) -> dict[str, Tensor]:
    return {"logits": torch.randn(batch, 3), "features": torch.randn(batch, channels, *grid)}


def batch(*labels: int) -> dict[str, Tensor]:
    regions = torch.randint(0, 7, (len(labels), 1, 16, 16, 8), dtype=torch.uint8)
    return {"label": torch.tensor(labels), "regions": regions}


class Encoder(nn.Module):
    """A student with the parts that the graph must train: encoder, projection, attention."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Conv3d(1, 6, 3, stride=4, padding=1)
        self.projection = nn.Conv3d(6, 32, 1)
        self.attention = CBAM3D(32, kernel_size=3)
        self.head = nn.Linear(32, 3)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        features = self.attention(self.projection(self.encoder(image)))
        return {"features": features, "logits": self.head(features.mean((2, 3, 4)))}


def test_gamma_zero_is_cross_entropy() -> None:
    logits, label = torch.randn(6, 3), torch.tensor([0, 1, 2, 2, 1, 0])
    torch.testing.assert_close(GradeLoss(gamma=0)(logits, label), F.cross_entropy(logits, label))


def test_focal_closed_form_and_stuck_value() -> None:
    logits, label = torch.randn(6, 3), torch.tensor([0, 1, 2, 2, 1, 0])
    p = logits.softmax(1)[torch.arange(6), label]
    torch.testing.assert_close(GradeLoss(gamma=2)(logits, label), -((1 - p) ** 2 * p.log()).mean())
    assert GradeLoss()(torch.zeros(6, 3), label).item() == pytest.approx(0.488, abs=1e-3)


def test_class_weights_scale_their_class() -> None:
    logits, label = torch.randn(2, 3), torch.tensor([0, 2])
    single = [GradeLoss()(logits[i : i + 1], label[i : i + 1]) for i in range(2)]
    weighted = GradeLoss(alpha=[3.0, 1.0, 0.5])(logits, label)
    torch.testing.assert_close(weighted, (3 * single[0] + 0.5 * single[1]) / 2)


def test_scalar_alpha_is_rejected() -> None:
    with pytest.raises(ValueError, match="one weight per class"):
        GradeLoss(alpha=0.25)  # type: ignore[arg-type]


def test_ungraded_cases_are_left_out_of_the_mean() -> None:
    logits, label = torch.randn(4, 3), torch.tensor([1, -1, 2, -1])
    torch.testing.assert_close(GradeLoss()(logits, label), GradeLoss()(logits[[0, 2]], label[[0, 2]]))
    logits.requires_grad_()
    nothing = GradeLoss()(logits, torch.full((4,), -1))
    nothing.backward()
    assert nothing == 0
    assert logits.grad is not None
    assert (logits.grad == 0).all()


@pytest.mark.parametrize("label", [-2, 3])
def test_label_outside_the_classes_is_named(label: int) -> None:
    with pytest.raises(ValueError, match="label must be -1"):
        GradeLoss()(torch.randn(2, 3), torch.tensor([0, label]))


def test_terms_are_named_weighted_and_add_up() -> None:
    student, teacher, cases = outputs(), outputs(), batch(0, 2, 1)
    ones = ReactLoss(alpha=0.5, lam=1.0)(student, teacher, cases)
    other = ReactLoss(alpha=0.8, lam=3.0, node=2.0, edge=0.5)(student, teacher, cases)
    assert list(ones) == TERMS
    for name, factor in zip(TERMS, [0.4, 1.6, 6.0, 1.5, 3.0], strict=True):
        torch.testing.assert_close(other[name], factor * ones[name])
    torch.testing.assert_close(ones["logits"], 0.5 * kd_kl(student["logits"], teacher["logits"], 2.0))
    assert min(ones.values()) > 0


def test_the_teachers_own_output_leaves_the_task_only() -> None:
    teacher = outputs()
    terms = ReactLoss()(teacher, teacher, batch(0, 1, 2))
    assert all(terms[name] < 1e-6 for name in TERMS[1:])
    assert terms["task"] > 0


def test_warm_up_rises_linearly_to_one() -> None:
    student, teacher, cases = outputs(), outputs(), batch(0, 1, 2)
    loss = ReactLoss(graph_warmup_epochs=3)
    values = [loss(student, teacher, cases, epoch)["node"] for epoch in (0, 1, 3, 9)]
    full = ReactLoss()(student, teacher, cases)["node"]
    torch.testing.assert_close(torch.stack(values), full * torch.tensor([0.25, 0.5, 1.0, 1.0]))


def test_ungraded_cases_take_part_in_logits_and_graph() -> None:
    student = {key: value.requires_grad_() for key, value in outputs().items()}
    terms = ReactLoss()(student, outputs(), batch(-1, -1, -1))
    sum(terms.values()).backward()
    assert terms["task"] == 0
    for value in student.values():
        assert value.grad is not None
        assert (value.grad.flatten(1).abs().sum(1) > 0).all()


def test_mse_compares_raw_logits_and_other_names_are_rejected() -> None:
    student, teacher = outputs(), outputs()
    terms = ReactLoss(alpha=1.0, kd_loss="mse")(student, teacher, batch(0, 1, 2))
    torch.testing.assert_close(terms["logits"], F.mse_loss(student["logits"], teacher["logits"]))
    with pytest.raises(ValueError, match="kd_loss"):
        ReactLoss(kd_loss="l1")


def test_without_the_graph_no_regions_are_needed() -> None:
    cases = {"label": torch.tensor([0, 1, 2])}
    assert list(ReactLoss(lam=0.0)(outputs(), outputs(), cases)) == ["task", "logits"]


def test_graph_terms_train_every_part_before_the_head_and_never_the_teacher() -> None:
    student, teacher, image = Encoder(), Encoder(), torch.randn(3, 1, 16, 16, 8)
    terms = ReactLoss()(student(image), teacher(image), batch(0, 1, 2))
    (terms["node"] + terms["edge"] + terms["gw"]).backward()
    for part in (student.encoder, student.projection, student.attention):
        for parameter in part.parameters():
            assert parameter.grad is not None
            assert parameter.grad.isfinite().all()
            assert parameter.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_grids_may_differ_and_autocast_is_harmless() -> None:
    student, teacher, cases = outputs(), outputs(grid=(2, 2, 1)), batch(0, 1, -1)
    expected = ReactLoss()(student, teacher, cases)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        terms = ReactLoss()(student, teacher, cases)
    for name in TERMS:
        assert torch.equal(terms[name], expected[name])


def test_cases_without_regions_drop_out_of_the_graph() -> None:
    student, teacher, cases = outputs(), outputs(), batch(0, 1, 2)
    cases["regions"][2] = 0
    first = {key: value[:2] for key, value in cases.items()}
    two = ReactLoss()(*({k: v[:2] for k, v in x.items()} for x in (student, teacher)), first)
    terms = ReactLoss()(student, teacher, cases)
    for name in TERMS[2:]:
        torch.testing.assert_close(terms[name], two[name])
