"""Cross-image relations for the grade classifier (CIRKD: Yang et al., CVPR 2022, arXiv 2204.06986).

The published method distils segmentation networks.  Adapted here to classification: a voxel is a cell of
the teacher's grid inside liver or tumour, its class is "liver" or, in a tumour, the grade of the patient.
"""

import torch
import torch.nn.functional as F
from medbundles.distillation import full_precision
from torch import Tensor, nn


class EmbeddingQueue(nn.Module):
    """The latest ``size`` unit embeddings (C,) of every class, kept with the checkpoint."""

    embeddings: Tensor
    pushed: Tensor

    def __init__(self, classes: int, size: int, channels: int) -> None:
        super().__init__()
        self.register_buffer("embeddings", torch.zeros(classes, size, channels))
        self.register_buffer("pushed", torch.zeros(classes, dtype=torch.long))

    def push(self, embeddings: Tensor, kind: int) -> None:
        """Store embeddings (M, C) of one class."""
        size = self.embeddings.shape[1]
        latest = embeddings[-size:].detach().float()
        position = int(self.pushed[kind])
        slots = (position + torch.arange(len(latest), device=latest.device)) % size
        self.embeddings[kind, slots] = latest
        self.pushed[kind] += len(latest)

    def stored(self) -> Tensor:
        """All embeddings (M, C) held so far."""
        slots = torch.arange(self.embeddings.shape[1], device=self.pushed.device)
        return self.embeddings[slots < self.pushed[:, None]]


@full_precision
def relation_kl(student: Tensor, teacher: Tensor, memory_s: Tensor, memory_t: Tensor, tau: float) -> Tensor:
    """KL(teacher || student) of the anchors' softmax similarities to a memory, mean over the anchors.

    Args:
        student: (M, C) unit embeddings.
        teacher: (M, C), detached by the caller.
        memory_s: (P, C) what the student's embeddings are compared with.
        memory_t: (P, C) what the teacher's embeddings are compared with.
        tau: temperature of the similarities.
    """
    if not len(student) or not len(memory_s):
        return student.sum() * 0
    log_s = F.log_softmax(student @ memory_s.mT / tau, dim=1)  # (M, P)
    log_t = F.log_softmax(teacher @ memory_t.mT / tau, dim=1)
    return F.kl_div(log_s, log_t, reduction="batchmean", log_target=True)


def cross_image_kl(student: list[Tensor], teacher: list[Tensor], tau: float) -> Tensor:
    """Mean of the divergence over all ordered pairs of images, each a set (M_i, C) of unit embeddings."""
    images = range(len(student))
    pairs = [relation_kl(student[i], teacher[i], student[j], teacher[j], tau) for i in images for j in images]
    return torch.stack(pairs).mean()


class CrossImageMemory(nn.Module):
    """Voxel and region memories of the teacher's embeddings.

    Args:
        channels: C of the teacher.
        grades: number of grades.
        voxels: queue length per class for voxels.
        regions: queue length per class for mean embeddings of a class in an image.
        voxels_per_image: voxels of a class stored from one image, spread evenly over its cells.
    """

    def __init__(
        self, channels: int, grades: int = 3, voxels: int = 512, regions: int = 64, voxels_per_image: int = 16
    ) -> None:
        super().__init__()
        self.voxels = EmbeddingQueue(grades + 1, voxels, channels)
        self.regions = EmbeddingQueue(grades + 1, regions, channels)
        self.voxels_per_image = voxels_per_image

    def store(self, embeddings: Tensor, tumour: Tensor, label: int) -> None:
        """Store one image: unit embeddings (M, C), which of them lie in tumour (M,) bool, its grade or -1."""
        kinds = [(0, ~tumour)] if label < 0 else [(0, ~tumour), (1 + label, tumour)]
        for kind, inside in kinds:
            chosen = embeddings[inside]
            if not len(chosen):
                continue
            count = min(len(chosen), self.voxels_per_image)
            spread = torch.linspace(0, len(chosen) - 1, count, device=chosen.device).round().long()
            self.voxels.push(chosen[spread], kind)
            self.regions.push(F.normalize(chosen.float().mean(dim=0, keepdim=True), dim=1), kind)
