"""Losses of the REACT-KD student: grade, teacher logits and region graph (arXiv 2508.02104).

Every training method is a module called as ``method(student, teacher, batch, epoch)`` that returns named,
weighted terms; the loss is their sum.

student: ``logits`` (B, classes), ``features`` (B, C, x, y, z).
teacher: the same, and ``sf_logits`` and ``dose_logits`` (B, classes) of the two single teachers.
batch: ``label`` (B,) int64 with -1 for an ungraded case, ``regions`` (B, 1, X, Y, Z) label map.
"""

from collections.abc import Mapping, Sequence

import torch.nn.functional as F
from medbundles.distillation import feature_mse, full_precision, kd_kl
from medbundles.region_graph import region_graph_loss, region_nodes
from monai.losses import FocalLoss
from torch import Tensor, nn

from .regions import LIVER_PARTS, occupancy, region_count

Tensors = Mapping[str, Tensor]
UNGRADED = -1


class GradeLoss(nn.Module):
    """Focal loss of the grade, mean over the graded cases; ``gamma=0`` is cross-entropy.

    ``FL = -a_y (1 - p_y)^gamma log p_y`` (Lin et al., ICCV 2017, arXiv 1708.02002).

    Args:
        gamma: focusing exponent.
        alpha: one weight ``a`` per class.

    Raises:
        ValueError: for a scalar alpha, which would single out class 0 as background.
    """

    def __init__(self, gamma: float = 2.0, alpha: Sequence[float] | None = None) -> None:
        super().__init__()
        if alpha is not None and not isinstance(alpha, Sequence):
            raise ValueError(f"alpha must be one weight per class or null, got alpha={alpha!r}")
        self.focal = FocalLoss(gamma=gamma, alpha=alpha, use_softmax=True, reduction="none")

    def forward(self, logits: Tensor, label: Tensor) -> Tensor:
        """Scalar loss of logits (B, classes) and label (B,), -1 = ungraded; 0 with a graph if none is graded.

        Raises:
            ValueError: for a label that is neither a class nor -1.
        """
        return _focal(self.focal, logits, label)


@full_precision
def _focal(focal: FocalLoss, logits: Tensor, label: Tensor) -> Tensor:
    classes = logits.shape[1]
    if bool(((label < UNGRADED) | (label >= classes)).any()):
        raise ValueError(f"label must be -1 (ungraded) or in 0 ... {classes - 1}, got {label.tolist()}")
    graded = label != UNGRADED
    target = F.one_hot(label[graded].long(), classes)
    # A sum over classes: the mean MONAI offers divides by the number of classes as well.
    return focal(logits[graded], target).sum() / graded.sum().clamp_min(1)


class ReactLoss(nn.Module):
    """``(1 - alpha) L_grade + alpha L_logits + lam w (L_node + L_edge + L_gw)`` with a warm-up factor w.

    Args:
        alpha: share of the logit term against the grade term.
        temperature: of the logit term.
        lam: weight of the region graph; 0 builds no graph.
        node: weight within the graph term.
        edge: weight within the graph term.
        gw: weight within the graph term.
        kd_loss: "kl", the softened divergence, or "mse", the squared error of raw logits.
        graph_warmup_epochs: epochs over which w rises linearly to 1.
        gamma: focusing exponent of the grade term.
        class_weights: one weight per class for the grade term.
        liver_parts: the parts the region labels were made with.

    Raises:
        ValueError: for another ``kd_loss``.
    """

    def __init__(
        self,
        alpha: float = 0.7,
        temperature: float = 2.0,
        lam: float = 1.0,
        node: float = 1.0,
        edge: float = 1.0,
        gw: float = 1.0,
        kd_loss: str = "kl",
        graph_warmup_epochs: int = 0,
        gamma: float = 2.0,
        class_weights: Sequence[float] | None = None,
        liver_parts: int = LIVER_PARTS,
    ) -> None:
        super().__init__()
        if kd_loss not in ("kl", "mse"):
            raise ValueError(f"kd_loss must be 'kl' or 'mse', got kd_loss={kd_loss!r}")
        self.grade = GradeLoss(gamma, class_weights)
        self.alpha, self.temperature, self.kd_loss = alpha, temperature, kd_loss
        self.lam, self.node, self.edge, self.gw = lam, node, edge, gw
        self.graph_warmup_epochs = graph_warmup_epochs
        self.regions = region_count(liver_parts)

    def forward(
        self, student: Tensors, teacher: Tensors, batch: Tensors, epoch: int = 0
    ) -> dict[str, Tensor]:
        """Terms ``task``, ``logits``, ``node``, ``edge``, ``gw``; ``epoch`` counts from 0."""
        terms = {
            "task": (1 - self.alpha) * self.grade(student["logits"], batch["label"]),
            "logits": self.alpha * self._logits(student["logits"], teacher["logits"]),
        }
        if self.lam != 0:
            scale = self.lam * min(1.0, (epoch + 1) / (self.graph_warmup_epochs + 1))
            graph = region_graph_loss(
                *graph_pair(student["features"], teacher["features"], batch["regions"], self.regions),
                node=self.node,
                edge=self.edge,
                gw=self.gw,
            )
            terms |= {name: scale * value for name, value in graph.items()}
        return terms

    def _logits(self, student: Tensor, teacher: Tensor) -> Tensor:
        if self.kd_loss == "mse":
            return feature_mse(student, teacher)
        return kd_kl(student, teacher, self.temperature)


def graph_pair(
    student: Tensor, teacher: Tensor, regions: Tensor, n_regions: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Nodes (B, K, C) and presence (B, K) of both graphs, each pooled on its own feature grid.

    Returns:
        student nodes, teacher nodes, student present, teacher present.
    """
    nodes_s, present_s = region_nodes(student, occupancy(regions, student.shape[2:], n_regions))
    nodes_t, present_t = region_nodes(teacher, occupancy(regions, teacher.shape[2:], n_regions))
    return nodes_s, nodes_t, present_s, present_t
