"""Loaders: batches that mix graded and ungraded cases, the same in every run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from monai.transforms import Compose
from react_case_files import write_case
from react_kd.data import eval_loader, make_dataset, train_loader
from react_kd.sampling import MixedSampler
from react_kd.transforms import augmentation, preprocessing

SIZE = (12, 10, 8)
GRADES = [0, 1, 2, 0, 1, 2, 0, -1, -1, -1, -1, -1, -1]


def test_loader_mixes_and_repeats(tmp_path: Path) -> None:
    rows = [write_case(tmp_path, f"s{k}", label=k if k < 3 else None) for k in range(5)]
    transform = Compose([preprocessing(size=SIZE), augmentation()])

    def epoch(number: int, **options: Any) -> list[dict]:
        loader = train_loader(make_dataset(rows, transform), 2, 0.5, seed=1, **options)
        loader.sampler.set_epoch(number)
        return list(loader)

    first = epoch(3)
    assert len(first) == 3
    assert all(sorted((batch["label"] < 0).tolist()) == [False, True] for batch in first)
    assert {int(batch["label"].max()) for batch in first} == {0, 1, 2}
    # A resumed run, or one with other workers, sees the same augmented images; the next epoch sees others.
    for again in (epoch(3), epoch(3, num_workers=1)):
        for a, b in zip(first, again, strict=True):
            assert a["scan_id"] == b["scan_id"]
            torch.testing.assert_close(a["image"], b["image"], atol=0, rtol=0)
    assert any(not torch.equal(a["image"], b["image"]) for a, b in zip(first, epoch(4), strict=True))


def test_eval_loader_keeps_order(tmp_path: Path) -> None:
    rows = [write_case(tmp_path, f"s{k}") for k in range(3)]
    dataset = make_dataset(rows, preprocessing(size=SIZE), cache="none")
    assert [b["scan_id"] for b in eval_loader(dataset, 2)] == [["s0", "s1"], ["s2"]]


@pytest.mark.parametrize(("ratio", "ungraded"), [(0.0, 0), (0.25, 1), (0.5, 2), (0.75, 3)])
def test_every_batch_has_the_ratio(ratio: float, ungraded: int) -> None:
    sampler = MixedSampler(GRADES, 4, ratio, seed=5)
    draws = [index for index, _ in sampler]
    batches = [draws[i : i + 4] for i in range(0, len(draws), 4)]
    assert len(draws) == len(sampler)
    assert all(sum(GRADES[i] < 0 for i in batch) == ungraded for batch in batches)
    assert {i for i in draws if GRADES[i] >= 0} == set(range(7))


def test_ungraded_cases_take_turns_over_epochs() -> None:
    sampler = MixedSampler(GRADES, 4, 0.25, seed=5)
    seen = []
    for epoch in range(6):
        sampler.set_epoch(epoch)
        seen += [i for i, _ in sampler if GRADES[i] < 0]
    counts = [seen.count(i) for i in range(7, 13)]
    assert max(counts) - min(counts) <= 1


def test_ranks_share_one_epoch() -> None:
    alone = MixedSampler(GRADES, 2, 0.5, seed=5, rank=0, world_size=1)
    ranks = [list(MixedSampler(GRADES, 2, 0.5, seed=5, rank=r, world_size=2)) for r in range(2)]
    assert len(ranks[0]) == len(ranks[1])
    assert {i for rank in ranks for i, _ in rank if GRADES[i] >= 0} == set(range(7))
    seeds = [seed for rank in ranks for _, seed in rank]
    assert len(set(seeds)) == len(seeds)
    interleaved = [ranks[k // 2 % 2][k % 2 + k // 4 * 2] for k in range(len(alone))]
    assert interleaved == list(alone)


@pytest.mark.parametrize("labels", [[-1] * 5, [0, 1, 2, 0, 1], [0]])
def test_no_batch_of_another_size(labels: list[int]) -> None:
    sampler = MixedSampler(labels, 2, 0.5)
    assert len(list(sampler)) % 2 == 0
    assert {i for i, _ in sampler} == set(range(len(labels)))


@pytest.mark.parametrize(
    ("labels", "batch_size", "ratio", "message"),
    [
        (GRADES, 1, 0.5, "batch_size must be at least 2, got 1"),
        (GRADES, 4, 1.5, "ungraded_ratio must be in 0..1, got 1.5"),
        (GRADES, 4, 0.9, "no place for a graded case in batch_size=4"),
        ([], 2, 0.5, "at least one case"),
    ],
)
def test_sampler_settings(labels: list[int], batch_size: int, ratio: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MixedSampler(labels, batch_size, ratio)
