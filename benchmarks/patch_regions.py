"""rect_vlm: which regions a patch lies in, counted at once, against loops and against one-hot volumes."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from rect_vlm.patches import into_patches
from rect_vlm.regions import REGIONS, patch_to_region
from torch import Tensor

from benchmarks.timing import Row, interleaved, print_rows

GRID, PATCH = (8, 8, 8), (4, 16, 16)
COLUMNS = len(REGIONS) + 1


def rows() -> list[Row]:
    """CPU time per volume; the gate holds only if all three give the same shares."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randint(0, COLUMNS, (1, 1, *GRID), generator=generator, dtype=torch.uint8)
    # Blocks as large as a patch and shifted by half of one: patches of one region and of several.
    size = [g * p for g, p in zip(GRID, PATCH, strict=True)]
    blocks = F.interpolate(coarse, size=size, mode="nearest")
    ids = blocks.roll([p // 2 for p in PATCH], dims=(2, 3, 4)).contiguous()
    candidates = {
        "ours": lambda: patch_to_region(ids, PATCH, len(REGIONS), 1, GRID),
        "loops": lambda: _loops(ids),
        "one-hot": lambda: _one_hot(ids),
    }
    best = interleaved(candidates, rounds=5)
    shares = candidates["ours"]()
    same = all(torch.allclose(call(), shares, atol=1e-6) for call in candidates.values())
    row = Row.speedup(
        f"patch-to-region shares, {shares.shape[1]} patches of {PATCH}", best["ours"],
        "loops over patches and regions", best["loops"], at_least=50.0,
    )  # fmt: skip
    return [
        replace(row, gate=f"{row.gate}, equal shares", passed=bool(row.passed) and same),
        Row.speedup("the same", best["ours"], "one-hot volume, average pool", best["one-hot"]),
    ]


def _loops(ids: Tensor) -> Tensor:
    patches = into_patches(ids, PATCH)[0]
    shares = torch.zeros(1, len(patches), COLUMNS)
    for n, patch in enumerate(patches):
        for region in range(COLUMNS):
            shares[0, n, region] = (patch == region).float().mean()
    return shares


def _one_hot(ids: Tensor) -> Tensor:
    volumes = F.one_hot(ids[:, 0].long(), COLUMNS).permute(0, 4, 1, 2, 3).float()
    return F.avg_pool3d(volumes, PATCH).flatten(2).mT


if __name__ == "__main__":
    print_rows(rows())
