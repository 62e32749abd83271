"""Methods REACT-KD is compared with: the same student and data, other distillation terms.

All have the call of ``losses``: ``method(student, teacher, batch, epoch)`` returns named, weighted terms.
What a method learns or remembers (projections, queues) belongs to its module: give its parameters to the
optimizer and its state to the checkpoint.  The names say how close each is: ``_style`` marks a published idea
whose equations were not available.  Cases without a grade take part in every term but the grade's.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from medbundles.distillation import attention_transfer, feature_mse, kd_kl
from medbundles.region_graph import region_graph_loss
from torch import Tensor, nn

from .cirkd import CrossImageMemory, cross_image_kl, relation_kl
from .losses import UNGRADED, GradeLoss, Tensors, graph_pair
from .regions import LIVER_PARTS, occupancy, region_count


@dataclass(frozen=True)
class Setting:
    """What all methods of one comparison share.

    Args:
        student_channels: width of the student's features.
        teacher_channels: width of the teacher's features.
        alpha: share of the logit term against the grade term, where a method trades the two.
        temperature: of every logit term.
        gamma: focusing exponent of the grade loss.
        class_weights: one weight per class for the grade loss.
        liver_parts: the parts the region labels were made with.
        teacher_auc: validation macro AUC of the structure-function and the dose teacher, for ``mtcm_style``.
    """

    student_channels: int
    teacher_channels: int
    alpha: float = 0.7
    temperature: float = 2.0
    gamma: float = 2.0
    class_weights: Sequence[float] | None = None
    liver_parts: int = LIVER_PARTS
    teacher_auc: tuple[float, float] | None = None


class GradeOnly(nn.Module):
    """``ce``: the grade loss and no teacher; the base of the other methods, which add ``extra`` terms."""

    task_weight = 1.0

    def __init__(self, setting: Setting) -> None:
        super().__init__()
        self.setting = setting
        self.grade = GradeLoss(setting.gamma, setting.class_weights)

    def forward(
        self, student: Tensors, teacher: Tensors, batch: Tensors, epoch: int = 0
    ) -> dict[str, Tensor]:
        """Named terms of one batch; ``epoch`` is part of the common call."""
        task = self.task_weight * self.grade(student["logits"], batch["label"])
        return {"task": task} | self.extra(student, teacher, batch)

    def extra(self, student: Tensors, teacher: Tensors, batch: Tensors) -> dict[str, Tensor]:
        """Distillation terms besides the grade's."""
        return {}


class LogitKD(GradeOnly):
    """``kd``: ``(1 - alpha) L_grade + alpha T^2 KL`` to the fused teacher (Hinton, arXiv 1503.02531)."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self.task_weight = 1 - setting.alpha

    def extra(self, student: Tensors, teacher: Tensors, batch: Tensors) -> dict[str, Tensor]:
        divergence = kd_kl(student["logits"], teacher["logits"], self.setting.temperature)
        return {"logits": self.setting.alpha * divergence}


class AttentionTransfer(GradeOnly):
    """``at``: energy maps of the features, beta 1000 (Zagoruyko and Komodakis, arXiv 1612.03928)."""

    beta = 1000.0

    def extra(self, student: Tensors, teacher: Tensors, batch: Tensors) -> dict[str, Tensor]:
        return {"attention": self.beta * attention_transfer(student["features"], teacher["features"])}


class CrossImageKD(GradeOnly):
    """``cirkd``: relations between voxels of images and to memories, adapted to classification.

    Term weights of the published method: logits 1, mini-batch 1, voxel and region memory 0.1 each; tau 0.1.
    """

    tau = 0.1
    memory_weight = 0.1

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self.projection = nn.Conv3d(setting.student_channels, setting.teacher_channels, 1)
        self.memory = CrossImageMemory(setting.teacher_channels)
        self.regions = region_count(setting.liver_parts)

    def extra(self, student: Tensors, teacher: Tensors, batch: Tensors) -> dict[str, Tensor]:
        grid = teacher["features"].shape[2:]
        share = occupancy(batch["regions"], grid, self.regions).flatten(2)  # (B, K, N)
        inside = share.sum(dim=1) > 0
        tumour = share[:, self.setting.liver_parts :].sum(dim=1) > 0
        projected = self.projection(student["features"]).float()
        projected = F.interpolate(projected, size=tuple(grid), mode="trilinear")
        voxels_s = F.normalize(projected.flatten(2).mT, dim=2)  # (B, N, C)
        voxels_t = F.normalize(teacher["features"].detach().float().flatten(2).mT, dim=2)
        images = range(len(inside))
        sets_s, sets_t = ([x[b, inside[b]] for b in images] for x in (voxels_s, voxels_t))
        if self.training:
            for b in images:
                self.memory.store(sets_t[b], tumour[b, inside[b]], int(batch["label"][b]))
        return {
            "logits": kd_kl(student["logits"], teacher["logits"], self.setting.temperature),
            "minibatch": cross_image_kl(sets_s, sets_t, self.tau),
            "memory_voxel": self._memory(sets_s, sets_t, self.memory.voxels.stored()),
            "memory_region": self._memory(sets_s, sets_t, self.memory.regions.stored()),
        }

    def _memory(self, sets_s: list[Tensor], sets_t: list[Tensor], stored: Tensor) -> Tensor:
        return self.memory_weight * relation_kl(
            torch.cat(sets_s), torch.cat(sets_t), stored, stored, self.tau
        )


class RegionFeatureKD(GradeOnly):
    """``mskd_style``: feature error inside the regions and the edges of the region graph.

    After the idea of MSKD, structured distillation for medical segmentation (Comput. Biol. Med. 2023), whose
    equations were not available; weights 1 and 1.
    """

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self.projection = nn.Conv3d(setting.student_channels, setting.teacher_channels, 1)
        self.regions = region_count(setting.liver_parts)

    def extra(self, student: Tensors, teacher: Tensors, batch: Tensors) -> dict[str, Tensor]:
        features, target = self.projection(student["features"]), teacher["features"]
        inside = occupancy(batch["regions"], target.shape[2:], self.regions).sum(dim=1, keepdim=True)
        pair = graph_pair(features, target, batch["regions"], self.regions)
        edges = region_graph_loss(*pair, node=0.0, gw=0.0)["edge"]
        return {"features": feature_mse(features, target, mask=inside), "edge": edges}


class TwoTeacherKD(LogitKD):
    """Logit distillation from the structure-function and the dose teacher, weighted per sample.

    A case without PET (``batch["pet_available"]`` (B, 2) bool, optional) has no structure-function teacher.
    """

    def extra(self, student: Tensors, teacher: Tensors, batch: Tensors) -> dict[str, Tensor]:
        logits = (
            torch.stack([teacher["sf_logits"], teacher["dose_logits"]], dim=1).detach().float()
        )  # (B, 2, K)
        available = logits.new_ones(logits.shape[:2])
        if "pet_available" in batch:
            available[:, 0] = batch["pet_available"].any(dim=1).to(available.dtype)
        weight = self.weights(logits, batch["label"], available) * available
        weight = weight / weight.sum(dim=1, keepdim=True)
        return {
            name: self.setting.alpha
            * weight[:, k].mean()  # kd_kl divides by the sum of its weights, the methods by the batch
            * kd_kl(student["logits"], logits[:, k], self.setting.temperature, weight[:, k])
            for k, name in enumerate(("logits_sf", "logits_dose"))
        }

    def weights(self, logits: Tensor, label: Tensor, available: Tensor) -> Tensor:
        """Positive weights (B, 2) of the teachers."""
        raise NotImplementedError


class PerformanceKD(TwoTeacherKD):
    """``mtcm_style``: teachers weighted by the softmax of their validation macro AUC.

    After the idea of performance-aware response distillation in MTCM-KD (Ahmad et al., 2024), whose equations
    were not available; its response part only.

    Raises:
        ValueError: without the teachers' AUC in the setting.
    """

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        if setting.teacher_auc is None or len(setting.teacher_auc) != 2:
            raise ValueError(f"mtcm_style needs teacher_auc of two teachers, got {setting.teacher_auc}")
        self.auc = setting.teacher_auc

    def weights(self, logits: Tensor, label: Tensor, available: Tensor) -> Tensor:
        return logits.new_tensor(self.auc).softmax(dim=0).expand(len(logits), -1)


class ConfidenceKD(TwoTeacherKD):
    """``camkd``: a teacher counts the more, the better it predicts the label of the sample.

    ``w_k = (1 - softmax_k CE_k) / (M - 1)`` over M teachers (CA-MKD: Zhang et al., ICASSP 2022,
    arXiv 2201.00007), its logit part; equal weights for an ungraded case.
    """

    def weights(self, logits: Tensor, label: Tensor, available: Tensor) -> Tensor:
        teachers = logits.shape[1]
        graded = (label != UNGRADED)[:, None] & (available > 0)
        target = label.clamp_min(0)[:, None].expand(-1, teachers)
        error = F.cross_entropy(logits.mT, target, reduction="none")  # (B, M)
        return (1 - torch.where(graded, error, 0.0).softmax(dim=1)) / (teachers - 1)


BASELINES: dict[str, Callable[[Setting], GradeOnly]] = {
    "ce": GradeOnly,
    "kd": LogitKD,
    "at": AttentionTransfer,
    "cirkd": CrossImageKD,
    "mskd_style": RegionFeatureKD,
    "mtcm_style": PerformanceKD,
    "camkd": ConfidenceKD,
}


def make_method(name: str, **setting: Any) -> GradeOnly:
    """A fresh method of one training run; the keywords are those of ``Setting``.

    Raises:
        ValueError: for a name that is not in ``BASELINES``.
    """
    if name not in BASELINES:
        raise ValueError(f"method must be one of {', '.join(BASELINES)}, got {name!r}")
    return BASELINES[name](Setting(**setting))
