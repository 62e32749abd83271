"""Why a student gave its grade: Grad-CAM, Grad-CAM smoothed over the region graph, and how sure it was.

Grad-CAM: Selvaraju et al., ICCV 2017 (arXiv 1610.02391). Explaining through the region graph is the idea of
REACT-KD (arXiv 2508.02104); its definition was not to be had, the one here is our own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from medbundles.region_graph import cosine_edges, region_nodes
from numpy.typing import ArrayLike
from torch import Tensor, nn

from react_kd.networks import Student
from react_kd.regions import occupancy, region_count, region_table

BETA = 0.3  # share of a region's relevance that comes from the regions most like it


@dataclass(frozen=True)
class Explanation:
    """Maps on the network's grid, each with maximum 1 (or 0 everywhere), and the graph they came through."""

    target: Tensor  # (B,) the class explained
    cam: Tensor  # (B, 1, X, Y, Z) Grad-CAM
    topo: Tensor  # (B, 1, X, Y, Z) Topo Grad-CAM, zero outside every region
    relevance: Tensor  # (B, K) r, the mean activation of each region
    smoothed: Tensor  # (B, K) r', after the neighbours' share
    edges: Tensor  # (B, K, K) cosines between the regions' features


def grad_cam(head: nn.Module, features: Tensor, target: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Grad-CAM (B, 1, x, y, z) on the feature grid, not normalised, and the class (B,) that it explains.

    A = relu(sum_c mean_v(d logit / d Z_c) Z_c). Needs no gradient of any parameter, so `head` may be frozen,
    and works where gradient tracking is off.

    Args:
        head: maps features to logits (B, classes), each case by itself.
        features: fused map Z (B, C, x, y, z).
        target: class indices (B,); None takes the most probable class of each case.
    """
    full_precision = torch.autocast(features.device.type, enabled=False)
    with torch.inference_mode(False), torch.enable_grad(), full_precision:
        z = features.detach().clone().float().requires_grad_()
        logits = head(z)
        chosen = logits.argmax(dim=1) if target is None else target.to(logits.device)
        (gradient,) = torch.autograd.grad(logits.gather(1, chosen[:, None]).sum(), z)
    weight = gradient.mean(dim=(2, 3, 4), keepdim=True)  # (B, C, 1, 1, 1)
    return (weight * z.detach()).sum(dim=1, keepdim=True).relu(), chosen


def explain(
    head: nn.Module,
    features: Tensor,
    regions: Tensor,
    target: Tensor | None = None,
    beta: float = BETA,
    n_regions: int = region_count(),
) -> Explanation:
    """Explain the class `target`, or the most probable one, by voxels and by regions.

    Topo Grad-CAM is the upsampled Grad-CAM times the smoothed relevance of the region that a voxel lies in:
    r_i = mean of A in region i, r' = (1 - beta) r + beta W r with W the positive cosines between the
    regions' features, rows summing to 1. A region that resembles no other keeps its own relevance.

    Args:
        head: maps features to logits (B, classes).
        features: fused map Z (B, C, x, y, z).
        regions: label map (B, 1, X, Y, Z) of RegionLabelsd on the network's grid; all zero where there are no
            masks, which leaves `topo` zero.
        target: class indices (B,).
        beta: between 0, no smoothing, and 1.
        n_regions: K, the number of region slots.

    Raises:
        ValueError: for a beta outside 0 ... 1, or labels outside 0 ... K.
    """
    if not 0 <= beta <= 1:
        raise ValueError(f"beta must lie in 0 ... 1, got {beta=}")
    activation, chosen = grad_cam(head, features, target)
    cam = F.interpolate(activation, size=regions.shape[2:], mode="trilinear", align_corners=False)
    share = occupancy(regions, activation.shape[2:], n_regions)
    nodes, present = region_nodes(features.detach(), share)
    edges = cosine_edges(nodes, present)
    relevance = region_nodes(activation, share)[0][..., 0]
    smoothed = (1 - beta) * relevance + beta * _neighbours(relevance, edges)
    topo = cam * _paint(_to_one(smoothed), regions)
    return Explanation(chosen, _to_one(cam), _to_one(topo), relevance, smoothed, edges)


def stream_spread(
    student: Student, image: Tensor, regions: Tensor, target: Tensor, beta: float = BETA
) -> Tensor:
    """Standard deviation (B, 1, X, Y, Z) of Topo Grad-CAM over both streams, CT alone and PET alone.

    It says where the explanation depends on what was scanned. `image` is (B, 3, X, Y, Z) = CT, FDG, ACT.
    """
    maps = []
    for streams in ((True, True), (True, False), (False, True)):
        available = torch.tensor(streams, device=image.device).expand(len(image), 2)
        with torch.no_grad():
            features = student.features(image, available)
        maps.append(explain(student.head, features, regions, target, beta).topo)
    return torch.stack(maps).std(dim=0, correction=0)


def predictive_entropy(probabilities: Tensor) -> Tensor:
    """Entropy (B,) in nats of class probabilities (B, K): 0 for certainty, log K for no idea."""
    return torch.special.entr(probabilities).sum(dim=-1)


def region_rows(
    explanation: Explanation, regions: ArrayLike, affine: ArrayLike, case: int = 0
) -> list[dict[str, Any]]:
    """One row per region of one case: type, component, centroid in mm, volume in mm^3, and both relevances.

    Args:
        explanation: of the batch that holds the case.
        regions: (X, Y, Z) label map of the case on the network's grid; centroid and volume are of it.
        affine: (4, 4) of that grid, voxel to world, mm.
        case: place of the case in the batch.
    """
    rows = region_table(regions, affine)
    for row in rows:
        slot = row["region"] - 1
        row["relevance"] = float(explanation.relevance[case, slot])
        row["relevance_smoothed"] = float(explanation.smoothed[case, slot])
    return rows


def _neighbours(relevance: Tensor, edges: Tensor) -> Tensor:
    """Relevance (B, K) as each region's neighbours have it, weighted by their positive cosines."""
    affinity = edges.relu()
    total = affinity.sum(dim=2)
    borrowed = (affinity @ relevance[..., None])[..., 0] / torch.where(total > 0, total, 1.0)
    return torch.where(total > 0, borrowed, relevance)


def _paint(values: Tensor, regions: Tensor) -> Tensor:
    """Give every voxel of the label map (B, 1, X, Y, Z) the value (B, K) of its region, 0 outside."""
    table = F.pad(values, (1, 0))  # label 0 is the background
    return table.gather(1, regions.flatten(1).long()).view(regions.shape)


def _to_one(values: Tensor) -> Tensor:
    """Scale each case of a non-negative (B, ...) to maximum 1; a case of zeros stays as it is."""
    peak = values.flatten(1).amax(dim=1).view(-1, *[1] * (values.ndim - 1))
    return values / torch.where(peak > 0, peak, 1.0)
