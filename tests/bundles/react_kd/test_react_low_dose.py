"""Dose levels as MONAI transforms: deterministic, cacheable, on the CT's own grid."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from monai.data import CacheDataset, MetaTensor
from monai.transforms import Compose
from react_kd.low_dose import LowDoseLevelsd, RandPickDosed, simulate_dose_levels, simulate_low_dose
from react_kd.scanner import stable_seed

SHAPE, SPACING = (20, 24, 3), (9.0, 9.0, 5.0)


def case(scan_id: str = "scan-1") -> dict[str, Any]:
    volume = torch.full((1, *SHAPE), -1000.0)
    volume[:, 4:16, 6:18] = 50.0
    affine = torch.diag(torch.tensor([*SPACING, 1.0]))
    return {"image": MetaTensor(volume, affine=affine, meta={"filename_or_obj": scan_id}), "scan_id": scan_id}


def test_levels_are_stacked_on_the_grid_of_the_image() -> None:
    sample = case()
    result = LowDoseLevelsd(levels=(None, 1e4, 1e3))(sample)
    dose = result["dose"]
    assert isinstance(dose, MetaTensor)
    assert dose.shape == (3, *SHAPE)
    assert torch.equal(dose.affine, sample["image"].affine)
    assert dose.meta["filename_or_obj"] == "scan-1"
    assert torch.equal(dose[0].as_tensor(), sample["image"][0].as_tensor())
    assert dose[1].as_tensor()[8:12, 10:14].std() < dose[2].as_tensor()[8:12, 10:14].std()
    assert "dose" not in sample


def test_a_level_equals_the_function_with_the_spacing_of_the_affine() -> None:
    sample = case()
    dose = LowDoseLevelsd(levels=(5e3,), model="linear", seed=3)(sample)["dose"]
    seed = stable_seed(3, "scan-1", 5e3)
    plain = simulate_low_dose(sample["image"].as_tensor()[0], SPACING, 5e3, model="linear", seed=seed)
    assert torch.equal(dose[0].as_tensor(), plain)


def test_noise_follows_the_case_and_the_level_not_the_order() -> None:
    doses = {
        order: LowDoseLevelsd(levels=order)(case())["dose"].as_tensor()
        for order in [(1e4, 1e3), (1000, 10000)]
    }
    assert torch.equal(doses[(1e4, 1e3)], doses[(1000, 10000)].flip(0))
    other = LowDoseLevelsd(levels=(1e4, 1e3))(case("scan-2"))["dose"].as_tensor()
    assert not torch.allclose(doses[(1e4, 1e3)], other, atol=1)
    reseeded = LowDoseLevelsd(levels=(1e4, 1e3), seed=1)(case())["dose"].as_tensor()
    assert not torch.allclose(doses[(1e4, 1e3)], reseeded, atol=1)


def test_cached_levels_are_picked_anew_in_every_epoch() -> None:
    chain = Compose([LowDoseLevelsd(levels=(None, 1e4, 1e3)), RandPickDosed()])
    chain.set_random_state(0)
    dataset = CacheDataset([case("a"), case("b")], chain, num_workers=2, progress=False)
    levels = LowDoseLevelsd(levels=(None, 1e4, 1e3))(case("a"))["dose"]
    found = set()
    for _ in range(20):
        picked = dataset[0]["dose"]
        assert picked.shape == (1, *SHAPE)
        found |= {k for k in range(3) if torch.equal(picked[0].as_tensor(), levels[k].as_tensor())}
    assert found == {0, 1, 2}


def test_levels_are_picked_uniformly_and_alike_for_all_keys() -> None:
    pick = RandPickDosed(("dose", "other")).set_random_state(0)
    stack = torch.arange(4.0).reshape(4, 1, 1, 1)
    drawn = [pick({"dose": stack, "other": 10 * stack}) for _ in range(400)]
    assert all(sample["other"] == 10 * sample["dose"] for sample in drawn)
    counts = np.bincount([int(sample["dose"]) for sample in drawn], minlength=4)
    assert counts.min() > 70


def test_a_case_without_the_key_passes_where_allowed() -> None:
    sample = {"scan_id": "x"}
    assert LowDoseLevelsd(allow_missing_keys=True)(sample) == sample
    assert RandPickDosed(allow_missing_keys=True)(sample) == sample


def test_errors_name_the_key_and_the_case() -> None:
    broken = case("scan-7")
    broken["image"][0, 0, 0, 0] = float("nan")
    with pytest.raises(
        ValueError, match=r"'image' of scan_id 'scan-7': the volume must be finite, got 1 NaN"
    ):
        LowDoseLevelsd()(broken)
    with pytest.raises(ValueError, match=r"'image' of scan_id 'scan-8' must be a MetaTensor \(1, X, Y, Z\)"):
        LowDoseLevelsd()({"image": np.zeros((1, *SHAPE)), "scan_id": "scan-8"})
    with pytest.raises(KeyError, match="'scan_id' is required to seed the noise"):
        LowDoseLevelsd()({"image": case()["image"]})
    with pytest.raises(ValueError, match="one key and at least one level"):
        LowDoseLevelsd(("image", "dose"))
    with pytest.raises(ValueError, match="same number of levels"):
        RandPickDosed(("a", "b"))({"a": torch.zeros(2, 1, 1, 1), "b": torch.zeros(3, 1, 1, 1)})


def test_the_full_dose_is_a_copy() -> None:
    volume = case()["image"].numpy()[0]
    scan = simulate_low_dose(volume, SPACING, None)
    assert np.array_equal(scan, volume)
    assert not np.shares_memory(scan, volume)


def test_levels_together_equal_levels_apart() -> None:
    volume = case()["image"].as_tensor()[0]
    together = simulate_dose_levels(volume, SPACING, (1e4, None, 1e3), (1, 2, 3))
    assert torch.equal(together[0], simulate_low_dose(volume, SPACING, 1e4, seed=1))
    assert torch.equal(together[1], volume)
    assert torch.equal(together[2], simulate_low_dose(volume, SPACING, 1e3, seed=3))


def test_seeds_are_stable_and_distinct() -> None:
    assert stable_seed(0, "case-1", 50000.0) == stable_seed(0, "case-1", 50000.0)
    seeds = {stable_seed(a, b) for a in range(20) for b in range(20)}
    assert len(seeds) == 400
    assert all(0 <= seed < 2**63 for seed in seeds)
