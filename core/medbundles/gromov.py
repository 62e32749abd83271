"""Batched Gromov-Wasserstein distance between small graphs, differentiable through its optimal plan.

The distance is that of Memoli (Found. Comput. Math. 11, 2011).  The plan comes from POT's conditional
gradient on the host in float64; it is a constant of the loss (envelope theorem), and only the cost of that
plan is differentiated.  Conditional gradient stops in local minima, so every graph has several starting
plans, and the descent begins at the cheapest one.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from .distillation import full_precision

Array = NDArray[np.float64]
SOLVED = 1e-12  # a starting plan this cheap is the minimum: nothing is left to descend
EMPTY = 1e-12  # mass below which an entry of a plan is rounding


@full_precision
def gromov_wasserstein(
    student_distance: Tensor,
    teacher_distance: Tensor,
    student_present: Tensor,
    teacher_present: Tensor,
    *,
    cost: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Squared-loss Gromov-Wasserstein distance of graphs with uniform node weights.

    Args:
        student_distance: (B, K, K) symmetric.
        teacher_distance: (B, K', K') symmetric.
        student_present: (B, K) bool, the nodes that exist.
        teacher_present: (B, K') bool.
        cost: (B, K, K') cost of matching single nodes; its optimal transport plan becomes the first start.

    Returns:
        value (B,) float64, differentiable in both distances; plan (B, K, K') float64, constant. Both are 0
        where either graph has fewer than 2 nodes.
    """
    source, target = student_distance.double(), teacher_distance.double()
    plan = _plans(source, target, student_present, teacher_present, cost)
    return transport_cost(source, target, plan), plan


def transport_cost(source: Tensor, target: Tensor, plan: Tensor) -> Tensor:
    """``sum_ijkl (source_ij - target_kl)^2 plan_ik plan_jl`` of (B, K, K), (B, K', K') and a plan (B, K, K').

    Summed over pairs of the plan's support, which an optimal plan keeps near K entries: never negative, and
    exactly 0 on identical graphs, where the expanded square would leave rounding.
    """
    batch, row, column = torch.nonzero(plan.detach() > EMPTY, as_tuple=True)
    count = torch.bincount(batch, minlength=len(plan))
    slot = torch.arange(len(batch), device=plan.device) - (count.cumsum(0) - count)[batch]
    width = int(count.max()) if len(count) else 0
    i, k = (x.new_zeros(len(plan), width).index_put((batch, slot), x) for x in (row, column))  # (B, S)
    mass = plan.new_zeros(len(plan), width).index_put((batch, slot), plan[batch, row, column])
    b = torch.arange(len(plan), device=plan.device)[:, None, None]
    difference = (
        source[b, i[:, :, None], i[:, None, :]] - target[b, k[:, :, None], k[:, None, :]]
    )  # (B, S, S)
    pairs = mass[:, :, None] * mass[:, None, :]
    return (difference.square() * pairs).sum(dim=(1, 2))


@torch.no_grad()
def _plans(source: Tensor, target: Tensor, rows: Tensor, columns: Tensor, cost: Tensor | None) -> Tensor:
    distances_s, distances_t = source.cpu().numpy(), target.cpu().numpy()
    costs = None if cost is None else cost.double().cpu().numpy()
    present_s, present_t = rows.cpu().numpy(), columns.cpu().numpy()
    plans = np.zeros((len(distances_s), distances_s.shape[1], distances_t.shape[1]))
    for sample, plan in enumerate(plans):
        i, k = np.flatnonzero(present_s[sample]), np.flatnonzero(present_t[sample])
        if min(len(i), len(k)) < 2:
            continue
        graph_s, graph_t = distances_s[sample][np.ix_(i, i)], distances_t[sample][np.ix_(k, k)]
        guesses = [] if costs is None else [costs[sample][np.ix_(i, k)]]
        plan[np.ix_(i, k)] = _plan(graph_s, graph_t, guesses, np.array_equal(i, k))
    return torch.from_numpy(plans).to(source.device)


def _plan(source: Array, target: Array, guesses: list[Array], corresponding: bool) -> Array:
    """Plan (N, N') of two graphs; ``guesses`` are node costs, ``corresponding`` tries the given order."""
    n, m = len(source), len(target)
    if not (np.isfinite(source).all() and np.isfinite(target).all()):
        return np.full((n, m), 1 / (n * m))  # the value is then non-finite, which the training loop reports
    starts = [_transport(guess) for guess in guesses]
    if corresponding:
        starts.append(np.eye(n) / n)
    starts.append(_transport(_profile_cost(source, target)))
    values = np.array([_value(source, target, start) for start in starts])
    # The first start within rounding of the best: two nodes, say, cost the same in either order, and the
    # start that the caller trusts most comes first.
    best = int(np.argmax(values <= values.min() + SOLVED))
    return starts[best] if values[best] < SOLVED else _descend(source, target, starts[best])


def _transport(cost: Array) -> Array:
    """Optimal plan (N, N') between uniform weights; for N = N' an assignment, which has a faster solver."""
    n, m = cost.shape
    if n == m:
        plan = np.zeros((n, n))
        plan[linear_sum_assignment(cost)] = 1 / n
        return plan
    from ot import emd

    return emd(np.full(n, 1 / n), np.full(m, 1 / m), cost)


def _profile_cost(source: Array, target: Array) -> Array:
    """Squared 2-Wasserstein distance (N, N') between the nodes' distributions of distances.

    Its optimal plan is the coupling of Memoli's third lower bound; on a relabelled graph it is the
    relabelling, unless two nodes see the same distances.
    """
    n, m = len(source), len(target)
    edges = np.sort(np.concatenate([np.arange(n) / n, np.arange(1, m + 1) / m]))  # steps may be 0 wide
    middle, width = (edges[1:] + edges[:-1]) / 2, np.diff(edges)
    quantiles_s = np.sort(source, axis=1)[:, (middle * n).astype(int)]  # (N, S)
    quantiles_t = np.sort(target, axis=1)[:, (middle * m).astype(int)]  # (N', S)
    return (quantiles_s[:, None] - quantiles_t[None]) ** 2 @ width


def _value(source: Array, target: Array, plan: Array) -> float:
    i, k = np.nonzero(plan > EMPTY)
    mass = plan[i, k]
    return float(mass @ (source[i[:, None], i] - target[k[:, None], k]) ** 2 @ mass)


def _descend(source: Array, target: Array, start: Array) -> Array:
    """POT's conditional gradient from a plan, put together from its parts to take the linear solver above."""
    from ot.backend import NumpyBackend
    from ot.gromov import gwggrad, gwloss, init_matrix, solve_gromov_linesearch
    from ot.optim import generic_conditional_gradient

    p, q, backend = start.sum(axis=1), start.sum(axis=0), NumpyBackend()
    constant, h_s, h_t = init_matrix(source, target, p, q, "square_loss", backend)

    def line_search(
        _cost: object, plan: Array, step: Array, _linear: Array, value: float, *_: object
    ) -> tuple:
        return solve_gromov_linesearch(
            plan, step, value, h_s, h_t, M=0.0, reg=1.0, nx=backend, symmetric=True
        )

    return generic_conditional_gradient(
        p,
        q,
        0.0,
        lambda plan: gwloss(constant, h_s, h_t, plan, backend),
        lambda plan: gwggrad(constant, h_s, h_t, plan, backend),
        1.0,
        None,
        lambda _p, _q, cost: (_transport(cost), {}),
        line_search,
        start,
        nx=backend,
    )
