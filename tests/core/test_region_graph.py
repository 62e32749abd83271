"""Region graphs: identity, relabelling, optimal plans, gradients, absent nodes."""

import numpy as np
import ot
import pytest
import torch
from medbundles.region_graph import (
    cosine_edges,
    gromov_wasserstein,
    region_graph_loss,
    region_nodes,
    transport_cost,
)
from torch import Tensor

F64 = torch.float64


def graphs(
    batch: int = 3, nodes: int = 6, width: int = 16, dtype: torch.dtype = F64
) -> tuple[Tensor, Tensor]:
    return torch.randn(batch, nodes, width, dtype=dtype), torch.ones(batch, nodes, dtype=torch.bool)


def distances(nodes: Tensor, present: Tensor) -> Tensor:
    off = present[:, :, None] & present[:, None] & ~torch.eye(nodes.shape[1], dtype=torch.bool)
    return torch.where(off, 1 - cosine_edges(nodes, present), 0.0)


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_identical_graphs_cost_exactly_nothing_and_pull_nowhere(dtype: torch.dtype) -> None:
    nodes, present = graphs(dtype=dtype)
    present[1, 4:] = False
    student = nodes.clone().requires_grad_()
    terms = region_graph_loss(student, nodes, present, present)
    sum(terms.values()).backward()
    assert [value.item() for value in terms.values()] == [0, 0, 0]
    assert student.grad is not None
    assert student.grad.abs().max() < 1e-10


@pytest.mark.parametrize("count", [2, 3, 6, 12])
def test_a_relabelled_copy_costs_nothing(count: int) -> None:
    nodes, present = graphs(nodes=count)
    order = torch.randperm(count)
    value, plan = gromov_wasserstein(
        distances(nodes, present), distances(nodes[:, order], present), present, present
    )
    assert value.max() < 1e-10
    torch.testing.assert_close(plan.sum(2), torch.full((3, count), 1 / count, dtype=F64))
    aligned = region_graph_loss(nodes, nodes[:, order], present, present, align=True)
    assert sum(aligned.values()) < 1e-10


def test_without_align_equal_slots_are_the_same_node() -> None:
    nodes, present = graphs()
    terms = region_graph_loss(nodes, nodes.roll(1, dims=1), present, present)
    assert terms["gw"] < 1e-10
    assert terms["node"] > 0.1
    assert terms["edge"] > 0.001


def test_a_copy_spread_over_other_slots_costs_nothing() -> None:
    nodes, present = graphs(nodes=4)
    wider, slots = torch.randn(3, 7, 16, dtype=F64), torch.tensor([6, 1, 4, 2])
    wider[:, slots] = nodes
    wider_present = torch.zeros(3, 7, dtype=torch.bool).index_fill(1, slots, True)
    for pair in ((nodes, wider, present, wider_present), (wider, nodes, wider_present, present)):
        assert sum(region_graph_loss(*pair).values()) < 1e-10


def test_terms_equal_their_closed_forms() -> None:
    (student, present), (teacher, _) = graphs(), graphs()
    terms = region_graph_loss(student, teacher, present, present, node=2.0, edge=3.0)
    cosine = torch.nn.functional.cosine_similarity(student, teacher, dim=2)
    torch.testing.assert_close(terms["node"], 2 * (1 - cosine).mean())
    difference = cosine_edges(student, present) - cosine_edges(teacher, present)
    torch.testing.assert_close(terms["edge"], 3 * difference.square().sum((1, 2)).mean() / 30)
    assert terms["gw"] <= 5 / 6 * terms["edge"] / 3 + 1e-9


@pytest.mark.parametrize(("n", "m"), [(5, 5), (6, 4), (3, 7)])
def test_value_is_the_brute_force_sum_over_its_plan(n: int, m: int) -> None:
    (student, rows), (teacher, columns) = graphs(nodes=n), graphs(nodes=m)
    d_s, d_t = distances(student, rows), distances(teacher, columns)
    value, plan = gromov_wasserstein(d_s, d_t, rows, columns)
    brute = (d_s[:, :, :, None, None] - d_t[:, None, None]).square()  # (B, i, j, k, l)
    torch.testing.assert_close(value, torch.einsum("bijkl,bik,bjl->b", brute, plan, plan))
    torch.testing.assert_close(plan.sum(1), torch.full((3, m), 1 / m, dtype=F64))


def test_value_and_gradient_agree_with_pot() -> None:
    d_s, d_t = (distances(*graphs()).requires_grad_() for _ in range(2))
    present = torch.ones(3, 6, dtype=torch.bool)
    value, plan = gromov_wasserstein(d_s, d_t, present, present)
    ours = torch.autograd.grad(value.sum(), (d_s, d_t))
    weight = torch.full((6,), 1 / 6, dtype=F64)
    pot = [ot.gromov.gromov_wasserstein2(d_s[b], d_t[b], weight, weight, G0=plan[b]) for b in range(3)]
    torch.testing.assert_close(value, torch.stack(pot))
    for mine, theirs in zip(ours, torch.autograd.grad(sum(pot), (d_s, d_t)), strict=True):
        torch.testing.assert_close(mine, theirs)


def test_search_ends_below_pot_from_its_own_start_on_noisy_copies() -> None:
    nodes, present = graphs(batch=20)
    d_s = distances(nodes, present)
    d_t = distances((nodes + 0.3 * torch.randn_like(nodes))[:, torch.randperm(6)], present)
    value, _ = gromov_wasserstein(d_s, d_t, present, present)
    pot = [ot.gromov.gromov_wasserstein2(s, t) for s, t in zip(d_s.numpy(), d_t.numpy(), strict=True)]
    assert value.mean() < np.mean(pot)


def test_gradcheck_with_the_plan_fixed() -> None:
    (student, present), (teacher, _) = graphs(batch=2, nodes=4, width=5), graphs(batch=2, nodes=4, width=5)
    _, plan = gromov_wasserstein(distances(student, present), distances(teacher, present), present, present)

    def loss(x: Tensor) -> Tensor:
        terms = region_graph_loss(x, teacher, present, present, gw=0.0)
        return (
            sum(terms.values())
            + transport_cost(distances(x, present), distances(teacher, present), plan).sum()
        )

    assert torch.autograd.gradcheck(loss, student.requires_grad_())


@pytest.mark.parametrize("nodes_present", [0, 1])
def test_small_graphs_are_left_out_of_the_mean(nodes_present: int) -> None:
    (student, present), (teacher, _) = graphs(), graphs()
    alone = region_graph_loss(student[:2], teacher[:2], present[:2], present[:2])
    fewer = present.clone()
    fewer[2, nodes_present:] = False
    for sides in ((fewer, fewer), (fewer, present), (present, fewer)):
        terms = region_graph_loss(student, teacher, *sides)
        for name, value in alone.items():
            torch.testing.assert_close(terms[name], value)


@pytest.mark.parametrize("gw", [0.0, 1.0])
def test_a_batch_without_graphs_gives_zero_with_a_graph(gw: float) -> None:
    (student, _), (teacher, _) = graphs(), graphs(nodes=5)
    student.requires_grad_()
    nothing = [torch.zeros(3, k, dtype=torch.bool) for k in (6, 5)]
    total = sum(region_graph_loss(student, teacher, *nothing, gw=gw).values())
    total.backward()
    assert total == 0
    assert student.grad is not None
    assert (student.grad == 0).all()


def test_zero_vectors_and_absent_nodes_keep_the_gradient_finite() -> None:
    (student, present), (teacher, _) = graphs(dtype=torch.float32), graphs(dtype=torch.float32)
    student[:, 0] = 0
    present[0, 5] = False
    student.requires_grad_()
    sum(region_graph_loss(student, teacher, present, present).values()).backward()
    assert student.grad is not None
    assert student.grad.isfinite().all()
    assert student.grad.abs().max() < 1e3
    assert (student.grad[0, 5] == 0).all()


def test_teacher_gets_no_gradient_and_nan_is_reported_as_nan() -> None:
    (student, present), (teacher, _) = graphs(), graphs()
    sum(
        region_graph_loss(student.requires_grad_(), teacher.requires_grad_(), present, present).values()
    ).backward()
    assert teacher.grad is None
    broken = student.detach().clone()
    broken[0, 0] = torch.nan
    assert region_graph_loss(broken, teacher, present, present)["gw"].isnan()


def test_autocast_changes_nothing() -> None:
    (student, present), (teacher, _) = graphs(dtype=torch.float32), graphs(dtype=torch.float32)
    expected = region_graph_loss(student, teacher, present, present)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        terms = region_graph_loss(student, teacher, present, present)
    for name, value in expected.items():
        assert torch.equal(terms[name], value)


def test_nodes_are_soft_means_and_absent_regions_are_zero() -> None:
    occupancy = torch.rand(2, 3, 2, 3, 4)
    occupancy[1, 2] = 0
    constant = torch.tensor([1.0, -2.0])[None, :, None, None, None].expand(2, 2, 2, 3, 4)
    nodes, present = region_nodes(constant, occupancy)
    assert present.tolist() == [[True] * 3, [True, True, False]]
    torch.testing.assert_close(nodes[present], torch.tensor([[1.0, -2.0]]).expand(5, 2))
    assert (nodes[~present] == 0).all()
    with pytest.raises(ValueError, match="features' grid"):
        region_nodes(constant, occupancy.mT)


def test_widths_must_match() -> None:
    (student, present), (teacher, _) = graphs(width=8), graphs(width=9)
    with pytest.raises(ValueError, match="batch and width"):
        region_graph_loss(student, teacher, present, present)
