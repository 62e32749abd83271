"""Region-graph loss of a batch, forward and backward, against a loop of POT's differentiable distance."""

from __future__ import annotations

from dataclasses import replace

import torch
from medbundles.region_graph import cosine_edges, region_graph_loss
from torch import Tensor

from benchmarks.timing import Row, interleaved, print_rows

GRAPHS, NODES, WIDTH = 8, 8, 32


def rows() -> list[Row]:
    """CPU time of the whole loss (node, edge and Gromov-Wasserstein) against POT's distance alone."""
    from ot.gromov import gromov_wasserstein2

    generator = torch.Generator().manual_seed(0)
    teacher = torch.randn(GRAPHS, NODES, WIDTH, generator=generator)
    student = (teacher + 0.7 * torch.randn(teacher.shape, generator=generator)).requires_grad_()
    present = torch.ones(GRAPHS, NODES, dtype=torch.bool)
    uniform = torch.full((NODES,), 1 / NODES, dtype=torch.float64)
    off_diagonal = 1 - torch.eye(NODES, dtype=torch.float64)

    def distances(nodes: Tensor) -> Tensor:
        return (1 - cosine_edges(nodes, present).double()) * off_diagonal

    def ours() -> None:
        torch.stack(list(region_graph_loss(student, teacher, present, present).values())).sum().backward()

    def pot() -> None:
        pairs = zip(distances(student), distances(teacher), strict=True)
        values = [gromov_wasserstein2(source, target, uniform, uniform) for source, target in pairs]
        torch.stack(values).mean().backward()

    best = interleaved({"ours": ours, "POT": pot}, rounds=40)
    title = f"graph loss, {GRAPHS} graphs of {NODES} nodes, forward + backward"
    row = Row.speedup(title, best["ours"], "POT loop, GW alone", best["POT"], at_least=1.2)
    same = region_graph_loss(teacher, teacher, present, present)
    exact = all(value == 0 for value in same.values())
    return [replace(row, gate=f"{row.gate}, 0 on equal graphs", passed=bool(row.passed) and exact)]


if __name__ == "__main__":
    print_rows(rows())
