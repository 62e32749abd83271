"""Distillation losses: the teacher is detached, the arithmetic is float32 whatever autocast does outside.

``weight`` (B,) counts the samples of a batch: those of weight 0 are dropped before anything is computed, so
what they hold (NaN included) cannot matter. A batch of none gives a zero that still has a graph.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

P = ParamSpec("P")
R = TypeVar("R")


def full_precision(function: Callable[P, R]) -> Callable[P, R]:
    """Run a loss outside autocast on float32 copies of its half-precision arguments (float64 stays)."""

    def widen(value: Any) -> Any:
        half = isinstance(value, Tensor) and value.is_floating_point() and value.dtype != torch.float64
        return value.float() if half else value

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        tensors = (value for value in (*args, *kwargs.values()) if isinstance(value, Tensor))
        with torch.autocast(next(tensors).device.type, enabled=False):
            return function(*map(widen, args), **{key: widen(value) for key, value in kwargs.items()})

    return run


@full_precision
def kd_kl(
    student_logits: Tensor, teacher_logits: Tensor, temperature: float = 2.0, weight: Tensor | None = None
) -> Tensor:
    """``T^2 KL(teacher || student)`` of softened class distributions, logits (B, K), mean over the batch.

    Hinton et al., Distilling the Knowledge in a Neural Network, arXiv 1503.02531.
    """
    student, teacher, weight = _counted(student_logits, teacher_logits, weight)
    divergence = F.kl_div(
        F.log_softmax(student / temperature, dim=-1),
        F.log_softmax(teacher / temperature, dim=-1),
        reduction="none",
        log_target=True,
    )
    return temperature**2 * _mean(divergence.sum(dim=-1), weight)


@full_precision
def attention_transfer(student: Tensor, teacher: Tensor, weight: Tensor | None = None) -> Tensor:
    """Mean squared difference of L2-normalised energy maps ``mean_c F^2`` of (B, C, ...) and (B, C', ...).

    The student's map is resized to the teacher's grid (Zagoruyko and Komodakis, arXiv 1612.03928).
    """
    student, teacher, weight = _counted(student, teacher, weight)
    energy_s = _resize(student.square().mean(dim=1, keepdim=True), teacher.shape[2:])
    energy_t = teacher.square().mean(dim=1, keepdim=True)
    difference = F.normalize(energy_s.flatten(1), dim=1) - F.normalize(energy_t.flatten(1), dim=1)  # (B, N)
    return _mean(difference.square().mean(dim=1), weight)


@full_precision
def feature_mse(
    student: Tensor,
    teacher: Tensor,
    projection: nn.Module | None = None,
    mask: Tensor | None = None,
    weight: Tensor | None = None,
) -> Tensor:
    """Mean squared error of features (B, C, ...) or (B, C), over the whole grid or averaged with a soft mask.

    Args:
        student: features; projected, then resized to the teacher's grid.
        teacher: features on the grid where the loss is taken.
        projection: learnable map from the student's channels to the teacher's (FitNets, arXiv 1412.6550).
        mask: (B, 1, ...) non-negative weights on the teacher's grid; a sample with an empty mask is left out.
        weight: (B,) sample weights.

    Raises:
        ValueError: when the projected student and the teacher differ in channels, or the mask in its grid.
    """
    if mask is not None and mask.shape != (teacher.shape[0], 1, *teacher.shape[2:]):
        raise ValueError(f"mask must be (B, 1, *teacher grid), got {_sizes(mask)} for {_sizes(teacher)}")
    if mask is not None:
        occupied = (mask.flatten(1).sum(dim=1) > 0).to(student.dtype)
        weight = occupied if weight is None else weight * occupied
        mask = mask[weight > 0]
    student, teacher, weight = _counted(student, teacher, weight)
    student = _resize(student if projection is None else projection(student), teacher.shape[2:])
    if student.shape != teacher.shape:
        raise ValueError(
            "student and teacher features must have one shape, or a projection that brings them there, "
            f"got {_sizes(student)} and {_sizes(teacher)}"
        )
    error = (student - teacher).square().mean(dim=1, keepdim=True).flatten(1)  # (B, N)
    if mask is None:
        return _mean(error.mean(dim=1), weight)
    share = mask.flatten(1)
    return _mean((share * error).sum(dim=1) / share.sum(dim=1), weight)


@full_precision
def relation_gram(student: Tensor, teacher: Tensor, weight: Tensor | None = None) -> Tensor:
    """Mean squared error of the row-normalised (B, B) Gram matrices of features (B, C, ...) or (B, C).

    Similarity-preserving distillation (Tung and Mori, ICCV 2019, arXiv 1907.09682); ``weight`` only selects.
    """
    student, teacher, _ = _counted(student, teacher, weight)
    difference = _gram(student) - _gram(teacher)
    return difference.square().sum() / max(difference.numel(), 1)


@full_precision
def relation_rows(student: Tensor, teacher: Tensor, *more: Tensor, weight: Tensor | None = None) -> Tensor:
    """Mean over the batch of the distance ``||R(student)_i - R(teacher)_i||_2`` of Gram rows of length 1.

    R(X) normalises the rows of ``X X^T``, X (B, C, ...) or (B, C). Further pairs ``student, teacher, ...``
    are normalised jointly: a row of R then runs over all Gram matrices side by side, and the one with the
    largest entries dominates (doi 10.3390/app152010974); ``weight`` only selects.

    Raises:
        ValueError: when a student comes without its teacher, or the batches differ.
    """
    if len(more) % 2:
        raise ValueError(f"further blocks must be pairs of student and teacher, got {len(more)} tensors")
    blocks = (student, teacher, *more)
    pairs = [_counted(s, t, weight)[:2] for s, t in zip(blocks[::2], blocks[1::2], strict=True)]
    rows_s, rows_t = (
        F.normalize(torch.cat([_products(x) for x in side], dim=1), dim=1)
        for side in zip(*pairs, strict=True)
    )
    distance = torch.linalg.vector_norm(rows_s - rows_t, dim=1)
    return distance.sum() / max(len(distance), 1)


def _gram(features: Tensor) -> Tensor:
    return F.normalize(_products(features), dim=1)


def _products(features: Tensor) -> Tensor:
    flat = features.flatten(1)  # (B, C*N)
    return flat @ flat.mT


def _counted(student: Tensor, teacher: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    if student.shape[0] != teacher.shape[0]:
        raise ValueError(
            f"student and teacher must hold the same batch, got {_sizes(student)} and {_sizes(teacher)}"
        )
    if weight is None:
        return student, teacher.detach(), student.new_ones(student.shape[0])
    if weight.shape != student.shape[:1]:
        raise ValueError(f"weight must be (B,) with B={student.shape[0]}, got {_sizes(weight)}")
    keep = weight > 0
    return student[keep], teacher.detach()[keep], weight[keep].to(student.dtype)


def _mean(values: Tensor, weight: Tensor) -> Tensor:
    return (values * weight).sum() / weight.sum().clamp_min(torch.finfo(values.dtype).tiny)


def _resize(x: Tensor, grid: Sequence[int]) -> Tensor:
    if x.ndim - 2 != len(grid):
        raise ValueError(
            f"student features must have the teacher's {len(grid)} spatial axes, got {_sizes(x)}"
        )
    if x.shape[2:] == tuple(grid):
        return x
    return F.interpolate(x, size=tuple(grid), mode=("linear", "bilinear", "trilinear")[len(grid) - 1])


def _sizes(x: Tensor) -> tuple[int, ...]:
    return tuple(x.shape)
