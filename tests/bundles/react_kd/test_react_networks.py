"""Teacher and student: what is available decides the output; sizes; error messages."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from react_kd.encoders import PooledHead, SegResEncoder, SwinEncoder
from react_kd.networks import Student, Teacher, encode_rows, masked_mean
from react_kd.workflow import teach
from react_tiny_networks import BOTH, CT, PET, SIZE, SWIN, make_batch, make_student


@pytest.mark.parametrize("encoder", ["segresnet", "swin"])
@pytest.mark.parametrize("missing", [0, 1], ids=["ct", "pet"])
@pytest.mark.parametrize("content", [0.0, 1e6, float("nan")])
def test_content_of_a_missing_stream_changes_no_bit(encoder: str, missing: int, content: float) -> None:
    student = make_student(encoder).eval()
    available = torch.tensor([BOTH, PET if missing == 0 else CT])
    image = torch.randn(2, 3, *SIZE)
    other = image.clone()
    other[1, :1] = content if missing == 0 else other[1, :1]
    other[1, 1:] = content if missing == 1 else other[1, 1:]
    given = other.clone()
    with torch.no_grad():
        assert torch.equal(student(image, available), student(other, available))
    assert torch.equal(other.nan_to_num(7.0), given.nan_to_num(7.0))  # the caller's image is left as it was


def test_nan_of_a_missing_stream_reaches_no_gradient() -> None:
    student = make_student()
    image = torch.randn(2, 3, *SIZE)
    image[0, 1:] = image[1, :1] = float("nan")
    student(image, torch.tensor([CT, PET])).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in student.parameters())


def test_missing_pet_equals_an_image_of_ct_alone() -> None:
    student = make_student().eval()
    image = torch.randn(2, 3, *SIZE)
    with torch.no_grad():
        torch.testing.assert_close(student(image, torch.tensor([CT, CT])), student(image[:, :1]))
        torch.testing.assert_close(student(image), student(image, torch.tensor([BOTH, BOTH])))
        assert not torch.allclose(student(image), student(image[:, :1]))


def test_masked_mean_is_the_mean_of_what_is_available() -> None:
    maps = [torch.full((3, 1, 1, 1, 1), value) for value in (1.0, 4.0, float("nan"))]
    available = torch.tensor([[True, True, False], [False, True, False], [True, False, False]])
    assert masked_mean(maps, available).flatten().tolist() == [2.5, 4.0, 1.0]


def test_teacher_ignores_missing_tracers() -> None:
    teacher = Teacher(3, 8, SWIN).eval()
    batch = make_batch()
    available = torch.tensor([[False, True, True], [True, True, True]])
    with torch.no_grad():
        said = teach(teacher, batch, available)
        batch["pet"][0, 0] = float("nan")
        again = teach(teacher, batch, available)
    assert all(torch.equal(said[key], again[key]) for key in said)


@pytest.mark.parametrize("size", [(16, 16, 8), (17, 15, 9), (13, 22, 7)])
@pytest.mark.parametrize("encoder", ["segresnet", "swin"])
def test_odd_sizes(encoder: str, size: tuple[int, int, int]) -> None:
    said = make_student(encoder, pool="avgmax").encode(torch.randn(2, 3, *size))
    assert said["logits"].shape == (2, 3)
    step = 2 if encoder == "segresnet" else 4
    assert said["features"].shape == (2, 8, *(-(-n // step) for n in size))
    taught = teach(Teacher(3, 8, SWIN), make_batch(size), torch.ones(2, 3, dtype=torch.bool))
    assert taught["features"].shape == (2, 8, *(-(-n // 4) for n in size))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda: Student(encoder="resnet"),
            r"encoder must be one of \['segresnet', 'swin'\], got encoder='resnet'",
        ),
        (lambda: SwinEncoder(1, level=5), "level must be 1, 2, 3 or 4, got level=5"),
        (lambda: PooledHead(4, 3, "max"), "pool must be 'avg' or 'avgmax', got pool='max'"),
        (
            lambda: make_student()(torch.rand(2, 2, *SIZE)),
            r"1 channel \(CT\) or 3 .* got shape .*2, 2, 16, 12, 8",
        ),
        (
            lambda: make_student().encode(torch.rand(2, 3, *SIZE), torch.tensor([BOTH, [False, False]])),
            r"every case needs an available stream of \('ct', 'pet'\), got \[\[True, True\], \[False, False",
        ),
        (
            lambda: make_student().encode(torch.rand(1, 1, *SIZE), torch.tensor([PET])),
            "needs an available stream",
        ),
        (
            lambda: teach(Teacher(3, 8, SWIN), make_batch(), torch.zeros(2, 3, dtype=torch.bool)),
            r"every case needs an available stream of \('fdg', 'act', 'dose'\)",
        ),
    ],
)
def test_bad_input(build: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize("wanted", [[1, 0, 1, 1], [0, 0, 0, 1], [0, 1, 0, 0], [0, 0, 0, 0], [1, 1, 1, 1]])
def test_a_stream_encoded_only_where_it_is_there_gives_the_same(wanted: list[int]) -> None:
    encoder = SegResEncoder(2, init_filters=8, blocks_down=(1, 1))
    x, rows = torch.randn(4, 2, 8, 8, 8), torch.tensor(wanted, dtype=torch.bool)
    seen: list[int] = []
    encoder.register_forward_hook(lambda _, args, __: seen.append(len(args[0])))
    part = encode_rows(encoder, x, rows)
    assert seen == [max(2, sum(wanted))]
    torch.testing.assert_close(part[rows], encoder(x)[rows])
    part[rows].sum().backward()
    assert all(p.grad is not None for p in encoder.parameters())


def test_a_student_in_training_sees_what_it_sees_in_use() -> None:
    student = Student(channels=8, encoder_args={"init_filters": 8, "blocks_down": (1, 1)})
    image, available = torch.randn(3, 3, 8, 8, 8), torch.tensor([[True, False], [False, True], [True, True]])
    in_training = student.train()(image, available)
    torch.testing.assert_close(in_training, student.eval()(image, available))
