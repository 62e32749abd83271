"""rect_vlm: attention with a bias per slice distance, against N x N biases, in time and in peak memory."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from rect_vlm.attention import SliceAwareAttention
from torch import Tensor

from benchmarks.timing import Row, interleaved, print_rows

ROOT = Path(__file__).resolve().parents[1]
WIDTH, HEADS, SLICES = 768, 12, 16
PATCHES = 2048
LINEAR = 2.4  # twice the patches: twice the memory, or four times with any N x N tensor


def rows() -> list[Row]:
    """CPU time of one layer, forward and backward; peak memory beyond what the process had before."""
    names = {"folded": "ours", "masked": "SDPA, N x N bias as mask", "dense": "dense form"}
    best = interleaved({name: _step(name, PATCHES) for name in names}, rounds=2)
    title = f"slice attention, {PATCHES} patches of width {WIDTH}, forward + backward"
    memory = f"the same at {2 * PATCHES} patches, peak MiB"
    double, single = _peak_in_new_process("folded", 2 * PATCHES), _peak_in_new_process("folded", PATCHES)
    growth = Row.cost(memory, double, f"{PATCHES} patches, MiB", single, at_most=LINEAR)
    dense = _peak_in_new_process("dense", 2 * PATCHES)
    return [
        Row.speedup(title, best["folded"], names["masked"], best["masked"], at_least=1.8),
        Row.speedup("the same", best["folded"], names["dense"], best["dense"]),
        replace(growth, gate=f"{growth.gate} (linear)"),
        Row.speedup(memory, double, f"{names['dense']}, MiB", dense),
    ]


def _step(form: str, patches: int) -> Callable[[], None]:
    torch.manual_seed(0)
    attention = SliceAwareAttention(WIDTH, HEADS, SLICES)
    forms: dict[str, Callable[..., torch.Tensor]] = {
        "folded": attention, "dense": attention.dense, "masked": lambda *a: _masked(attention, *a)
    }  # fmt: skip
    x = torch.randn(1, patches, WIDTH, requires_grad=True)
    slice_index = torch.arange(SLICES).repeat_interleave(patches // SLICES)

    def step() -> None:
        forms[form](x, slice_index).square().mean().backward()

    return step


def _masked(attention: SliceAwareAttention, x: Tensor, slice_index: Tensor) -> Tensor:
    """The peer: a fused kernel that is handed the bias of every pair."""
    assert attention.distance_bias is not None
    query, key, value = (
        part.unflatten(2, (HEADS, -1)).transpose(1, 2) for part in attention.qkv(x).chunk(3, dim=-1)
    )
    distance = (slice_index[:, None] - slice_index).abs()
    mask = (attention.weight * attention.distance_bias[:, distance])[None]  # (1, heads, N, N)
    found = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    return attention.out(found.transpose(1, 2).flatten(2))


def _peak_in_new_process(form: str, patches: int) -> float:
    """MiB that one step needs at its peak; a process of its own has no freed memory to reuse."""
    command = [sys.executable, "-m", "benchmarks.slice_attention", form, str(patches)]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    return float(done.stdout)


def _peak(form: str, patches: int) -> float:
    torch.set_num_threads(1)
    _step(form, SLICES)()  # the libraries' own buffers
    step = _step(form, patches)
    before = _resident("VmRSS")
    step()
    return _resident("VmHWM") - before


def _resident(field: str) -> float:
    """MiB of this process as Linux counts them: now (VmRSS) or at most so far (VmHWM)."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{field}:"))


if __name__ == "__main__":
    if len(sys.argv) == 3:
        print(_peak(sys.argv[1], int(sys.argv[2])))
    else:
        print_rows(rows())
