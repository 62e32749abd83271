"""Training step of a 3-D convolution network under `Precision` against plain fp32, and its share of peak."""

from __future__ import annotations

from collections.abc import Callable

import torch
from medbundles.precision import Precision, native_bf16_cpu
from monai.networks.nets import SegResNet
from torch import Tensor

from benchmarks.timing import Row, interleaved, print_rows

BATCH, SHAPE = 2, (32, 96, 96)
FORWARD_GFLOP = 10.4  # SegResNet with 8 filters on this shape, per sample


def rows() -> list[Row]:
    """CPU time per sample; gates (2 x fp32, a quarter of the matmul peak) hold where the CPU has bf16."""
    chosen = Precision("cpu")
    candidates = {
        "ours": _step(chosen, BATCH),
        "plain": _step(Precision("cpu", amp="off", channels_last=False), BATCH),
        "single": _step(Precision("cpu", amp="off", channels_last=False), 1),
        "matmul": _matmul(chosen.dtype or torch.float32),
    }
    best = interleaved(candidates, rounds=3)
    ours, plain = best["ours"] / BATCH, best["plain"] / BATCH
    peak = 2 * 2048**3 / 1e6 / best["matmul"]  # GFLOP per CPU second
    share = 3 * FORWARD_GFLOP * 1000 / ours / peak
    bf16 = native_bf16_cpu()
    what = "bf16 channels_last" if bf16 else "fp32 channels_last (this CPU has no bf16 arithmetic: no gate)"
    return [
        Row.speedup(f"SegResNet step per sample, {what}", ours, "fp32, batch 2", plain, 2.0 if bf16 else
        None), Row.speedup("the same against batch 1", ours, "fp32, batch 1", best["single"]),
        Row(
            "the same as share of the matmul peak", ours, f"{peak:.0f} GFLOP/s", best["matmul"], share,
            ">= 0.25" if bf16 else "", share >= 0.25 if bf16 else None,
        ),
    ]  # fmt: skip


def _step(precision: Precision, batch: int) -> Callable[[], None]:
    torch.manual_seed(0)
    network = precision.prepare(SegResNet(init_filters=8))
    optimizer = torch.optim.AdamW(network.parameters())
    image: Tensor = precision.to(torch.randn(batch, 1, *SHAPE))

    def step() -> None:
        with precision.autocast():
            loss = network(image).float().square().mean()
        optimizer.zero_grad()
        precision.step(loss, optimizer)

    return step


def _matmul(dtype: torch.dtype) -> Callable[[], Tensor]:
    a, b = torch.randn(2, 2048, 2048, dtype=dtype)
    return lambda: a @ b


if __name__ == "__main__":
    print_rows(rows())
