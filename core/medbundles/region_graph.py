"""Region-graph distillation: node, edge and Gromov-Wasserstein terms between two graphs of image regions.

A graph has one node per region, the mean feature of the region, and a complete set of edges, the cosines
between nodes (region graphs for distillation: REACT-KD, arXiv 2508.02104).  Node sets correspond where the
two sides have the same slots present: slot i of the student is then slot i of the teacher.  Elsewhere, and
with ``align=True`` everywhere, the order carries no meaning, and nodes are matched by the
Gromov-Wasserstein plan.
"""

import torch
from torch import Tensor

from .distillation import full_precision
from .gromov import gromov_wasserstein, transport_cost

__all__ = ["cosine_edges", "gromov_wasserstein", "region_graph_loss", "region_nodes", "transport_cost"]

ZERO_NORM = 1e-8  # a node this short has no direction: its cosines are 0, its gradient is 0


@full_precision
def region_nodes(features: Tensor, occupancy: Tensor) -> tuple[Tensor, Tensor]:
    """Mean feature of every region, weighted by how much of each grid cell the region fills.

    Args:
        features: (B, C, *grid).
        occupancy: (B, K, *grid), non-negative shares.

    Returns:
        nodes (B, K, C), 0 for an absent region; present (B, K) bool, the regions with any share at all.

    Raises:
        ValueError: when the two grids or batches differ.
    """
    if features.shape[0] != occupancy.shape[0] or features.shape[2:] != occupancy.shape[2:]:
        raise ValueError(
            f"occupancy must lie on the features' grid, got {tuple(occupancy.shape)} for features "
            f"{tuple(features.shape)}"
        )
    share = occupancy.to(features.dtype).flatten(2)  # (B, K, N)
    total = share.sum(dim=2)
    present = total > 0
    mean = share / torch.where(present, total, 1.0)[..., None]
    return mean @ features.flatten(2).mT, present


@full_precision
def cosine_edges(nodes: Tensor, present: Tensor) -> Tensor:
    """Cosines (B, K, K) between the nodes (B, K, C); 0 on the diagonal and wherever a node is absent."""
    unit = _unit(nodes)
    return torch.where(_pairs(present), unit @ unit.mT, 0.0)


@full_precision
def region_graph_loss(
    student_nodes: Tensor,
    teacher_nodes: Tensor,
    student_present: Tensor,
    teacher_present: Tensor,
    *,
    node: float = 1.0,
    edge: float = 1.0,
    gw: float = 1.0,
    align: bool = False,
) -> dict[str, Tensor]:
    """Weighted terms ``node`` (1 - cosine), ``edge`` (squared cosine difference) and ``gw`` of two graphs.

    Where node sets do not correspond, the row-stochastic plan P carries the teacher's nodes t and cosines S
    to the student's nodes: ``P t`` and ``P S P^T``.  Where they do, GW is at most (N-1)/N times the edge
    term, and equal to that when the given order is the best match.

    Args:
        student_nodes: (B, K, C).
        teacher_nodes: (B, K', C); detached.
        student_present: (B, K) bool.
        teacher_present: (B, K') bool.
        node: weight of the node term.
        edge: weight of the edge term.
        gw: weight of the Gromov-Wasserstein term.
        align: match nodes instead of trusting equal slots; every term is then 0 on a relabelled copy.

    Returns:
        The three terms, each a mean over the samples with at least 2 nodes on both sides; without any such
        sample, zeros that have a graph.

    Raises:
        ValueError: when the node features differ in width or in batch.
    """
    if student_nodes.shape[0] != teacher_nodes.shape[0] or student_nodes.shape[2] != teacher_nodes.shape[2]:
        raise ValueError(
            f"student and teacher nodes must share batch and width, got {tuple(student_nodes.shape)} and "
            f"{tuple(teacher_nodes.shape)}"
        )
    teacher_nodes = teacher_nodes.detach().to(student_nodes.dtype)
    edges_s = cosine_edges(student_nodes, student_present)
    edges_t = cosine_edges(teacher_nodes, teacher_present)
    unit_s, similarity_t = _unit(student_nodes), edges_t + torch.diag_embed(teacher_present.to(edges_t.dtype))
    corresponding = _corresponding(student_present, teacher_present) & (not align)

    coupling, distance = torch.diag_embed(student_present.to(unit_s.dtype)), edges_s.sum(dim=(1, 2)) * 0
    if gw != 0 or not bool(corresponding.all()):
        cost = _matching_cost(unit_s.detach(), _unit(teacher_nodes), corresponding)
        distance, plan = gromov_wasserstein(
            _distances(edges_s, student_present),
            _distances(edges_t, teacher_present),
            student_present,
            teacher_present,
            cost=cost,
        )
        coupling = _coupling(plan.to(unit_s.dtype), coupling, corresponding)

    size_s, size_t = student_present.sum(dim=1), teacher_present.sum(dim=1)
    # Half the squared distance of unit vectors is 1 - cosine, and exactly 0 on equal ones.
    node_error = (unit_s - _unit(coupling @ teacher_nodes)).square().sum(dim=2) / 2  # (B, K)
    edge_error = (edges_s - coupling @ similarity_t @ coupling.mT).square()  # (B, K, K)
    node_error = (node_error * student_present).sum(dim=1) / size_s.clamp_min(1)
    edge_error = (edge_error * _pairs(student_present)).sum(dim=(1, 2)) / (size_s * (size_s - 1)).clamp_min(1)
    per_sample = {"node": node * node_error, "edge": edge * edge_error, "gw": gw * distance.to(unit_s.dtype)}
    valid = ((size_s > 1) & (size_t > 1)).to(unit_s.dtype)
    return {name: (value * valid).sum() / valid.sum().clamp_min(1) for name, value in per_sample.items()}


def _matching_cost(unit_s: Tensor, unit_t: Tensor, corresponding: Tensor) -> Tensor | None:
    """Node costs (B, K, K') for the first start: 1 - cosine, or the identity where slots correspond."""
    if bool(corresponding.all()):
        return None  # the search starts from the given order by itself
    cost = 1 - unit_s @ unit_t.mT
    if not bool(corresponding.any()):
        return cost
    return torch.where(corresponding[:, None, None], 1 - torch.eye(cost.shape[1]).to(cost), cost)


def _coupling(plan: Tensor, identity: Tensor, corresponding: Tensor) -> Tensor:
    """Row-stochastic plan (B, K, K'), the identity where slots correspond."""
    share = plan / plan.sum(dim=2, keepdim=True).clamp_min(torch.finfo(plan.dtype).tiny)
    return torch.where(corresponding[:, None, None], identity, share) if bool(corresponding.any()) else share


def _corresponding(student_present: Tensor, teacher_present: Tensor) -> Tensor:
    if student_present.shape != teacher_present.shape:
        return student_present.new_zeros(len(student_present))
    return (student_present == teacher_present).all(dim=1)


def _unit(nodes: Tensor) -> Tensor:
    norm = torch.linalg.vector_norm(nodes, dim=-1, keepdim=True)
    return torch.where(norm <= ZERO_NORM, 0.0, nodes / norm.clamp_min(ZERO_NORM))  # NaN stays NaN


def _pairs(present: Tensor) -> Tensor:
    """Bool (B, K, K): both nodes exist and are not the same."""
    return (
        present[:, :, None] & present[:, None, :] & ~torch.eye(present.shape[1], device=present.device).bool()
    )


def _distances(edges: Tensor, present: Tensor) -> Tensor:
    return torch.where(_pairs(present), 1 - edges, 0.0)
