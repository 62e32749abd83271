"""Grad-CAM is MONAI's, its smoothing is the formula, and maps keep to their case and regions."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from medbundles.engines import freeze
from monai.visualize import GradCAM
from react_kd.explain import explain, grad_cam, predictive_entropy, region_rows, stream_spread
from react_kd.networks import Student
from react_kd.regions import LIVER_PARTS, region_labels
from scipy.stats import entropy
from torch import Tensor, nn

SIZE = (16, 12, 8)


class OneStream(nn.Module):
    """A student of CT alone whose fused map passes a module of its own, for MONAI's hooks."""

    def __init__(self, student: Student) -> None:
        super().__init__()
        self.student, self.fused = student, nn.Identity()

    def forward(self, image: Tensor) -> Tensor:
        return self.student.head(self.fused(self.student.features(image)))


@pytest.fixture
def student() -> Student:
    return Student(3, 8, "segresnet", {"init_filters": 4, "blocks_down": [1, 1]}, "avgmax").eval()


def _masks(tumours: int = 2) -> tuple[np.ndarray, np.ndarray]:
    liver, mass = np.zeros(SIZE, dtype=np.uint8), np.zeros(SIZE, dtype=np.uint8)
    liver[2:14, 2:10, 1:7] = 1
    mass[3:6, 3:6, 2:5] = 1
    if tumours > 1:
        mass[9:12, 6:9, 3:6] = 1
    return liver, mass


@pytest.fixture
def regions() -> Tensor:
    """Label maps (2, 1, X, Y, Z) of a case with two tumours and one with one."""
    return torch.stack([torch.from_numpy(region_labels(*_masks(n)))[None] for n in (2, 1)])


def test_grad_cam_agrees_with_monai(student: Student) -> None:
    image = torch.randn(2, 1, *SIZE)
    oracle = GradCAM(OneStream(student), target_layers="fused", postprocessing=lambda x: x)
    for target in (0, 2):
        wanted = torch.as_tensor(oracle(image, class_idx=target))
        cam, chosen = grad_cam(student.head, student.features(image), torch.full((2,), target))
        assert chosen.tolist() == [target, target]
        mine = F.interpolate(cam, size=SIZE, mode="trilinear", align_corners=False)
        assert wanted.max() > 0
        torch.testing.assert_close(mine, wanted)


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_a_frozen_network_without_gradient_tracking_gives_the_same_maps(student, regions, context) -> None:
    image = torch.randn(2, 1, *SIZE)
    wanted = explain(student.head, student.features(image), regions)
    frozen = freeze(copy.deepcopy(student))
    with context():
        found = explain(frozen.head, frozen.features(image), regions)
    torch.testing.assert_close(found.topo, wanted.topo)
    assert all(parameter.grad is None for parameter in (*student.parameters(), *frozen.parameters()))


def test_the_most_probable_class_is_explained_and_cases_do_not_mix(student: Student, regions: Tensor) -> None:
    image = torch.randn(2, 1, *SIZE)
    features = student.features(image)
    both = explain(student.head, features, regions)
    assert both.target.tolist() == student.head(features).argmax(dim=1).tolist()
    for case in range(2):
        alone = explain(student.head, features[case : case + 1], regions[case : case + 1])
        torch.testing.assert_close(alone.topo[0], both.topo[case])
        torch.testing.assert_close(alone.smoothed[0], both.smoothed[case])


def test_maps_reach_one_and_topo_is_zero_outside_the_regions(student: Student, regions: Tensor) -> None:
    found = explain(student.head, student.features(torch.randn(2, 1, *SIZE)), regions)
    for volume in (found.cam, found.topo):
        assert volume.shape == (2, 1, *SIZE)
        assert volume.min() >= 0
        assert volume.amax(dim=(1, 2, 3, 4)).tolist() == pytest.approx([1, 1])
    assert not found.topo[regions == 0].any()
    assert found.cam[regions == 0].any()


@pytest.mark.parametrize("beta", [0.0, 0.3, 1.0])
def test_smoothing_is_the_formula(student: Student, regions: Tensor, beta: float) -> None:
    features = student.features(torch.randn(2, 1, *SIZE)).detach()
    found = explain(student.head, features, regions, beta=beta)
    activation = grad_cam(student.head, features)[0][0, 0].double().numpy()
    step = [s // f for s, f in zip(SIZE, activation.shape, strict=True)]
    shape = np.stack([activation.shape, step], axis=1).ravel()
    names = range(1, LIVER_PARTS + 3)  # four parts and two tumours
    shares = [(regions[0, 0].numpy() == k).reshape(shape).mean(axis=(1, 3, 5)) for k in names]
    r = np.array([(share * activation).sum() / share.sum() for share in shares])
    fused = features[0].double().numpy()
    nodes = np.array([(share * fused).sum(axis=(1, 2, 3)) / share.sum() for share in shares])
    nodes /= np.linalg.norm(nodes, axis=1, keepdims=True)
    weight = np.maximum(nodes @ nodes.T, 0) * (1 - np.eye(len(r)))
    weight /= weight.sum(axis=1, keepdims=True)
    smoothed = (1 - beta) * r + beta * weight @ r
    assert r.max() > 0
    np.testing.assert_allclose(found.relevance[0, : len(r)], r, rtol=1e-4)
    np.testing.assert_allclose(found.smoothed[0, : len(r)], smoothed, rtol=1e-4)
    assert not found.smoothed[0, len(r) :].any()
    up = F.interpolate(torch.from_numpy(activation)[None, None], size=SIZE, mode="trilinear")[0, 0].numpy()
    topo = up * np.array([0, *smoothed])[regions[0, 0].numpy()]
    np.testing.assert_allclose(found.topo[0, 0], topo / topo.max(), atol=1e-5)


def test_one_lonely_region_keeps_its_relevance(student: Student) -> None:
    regions = torch.zeros(1, 1, *SIZE)
    regions[..., 4:8, 4:8, 2:6] = LIVER_PARTS + 1
    found = explain(student.head, student.features(torch.randn(1, 1, *SIZE)), regions)
    torch.testing.assert_close(found.smoothed, found.relevance)


def test_without_masks_only_grad_cam_is_left(student: Student) -> None:
    found = explain(student.head, student.features(torch.randn(1, 1, *SIZE)), torch.zeros(1, 1, *SIZE))
    assert found.cam.max() == 1
    assert not found.topo.any()
    assert not found.smoothed.any()


def test_a_beta_outside_its_range_is_an_error(student: Student, regions: Tensor) -> None:
    with pytest.raises(ValueError, match=r"beta must lie in 0 ... 1, got beta=1.5"):
        explain(student.head, student.features(torch.randn(2, 1, *SIZE)), regions, beta=1.5)


def test_spread_over_streams_is_the_deviation_of_three_maps(student: Student, regions: Tensor) -> None:
    image, target = torch.randn(2, 3, *SIZE), torch.tensor([1, 2])
    found = stream_spread(student, image, regions, target)
    maps = []
    for streams in ([True, True], [True, False], [False, True]):
        features = student.features(image, torch.tensor([streams, streams]))
        maps.append(explain(student.head, features, regions, target).topo.numpy())
    np.testing.assert_allclose(found, np.std(maps, axis=0), atol=1e-6)
    assert found.max() > 0
    assert not found[regions == 0].any()


def test_entropy_in_nats() -> None:
    chances = torch.tensor([[1.0, 0.0, 0.0], [1 / 3, 1 / 3, 1 / 3], [0.7, 0.2, 0.1]])
    found = predictive_entropy(chances)
    assert found[:2].tolist() == pytest.approx([0.0, math.log(3)])
    np.testing.assert_allclose(found, entropy(chances.numpy(), axis=1), atol=1e-6)


def test_region_rows_say_where_how_large_and_how_relevant(student: Student, regions: Tensor) -> None:
    found = explain(student.head, student.features(torch.randn(2, 1, *SIZE)), regions)
    affine = np.array([[-2.0, 0, 0, 50], [0, 1.5, 0, -30], [0, 0, 5, -40], [0, 0, 0, 1]])
    rows = region_rows(found, regions[1, 0], affine, case=1)
    assert [row["type"] for row in rows] == ["liver"] * LIVER_PARTS + ["tumour"]
    tumour = rows[-1]
    assert tumour["volume_mm3"] == pytest.approx(27 * 15)
    assert tumour["centroid_mm"] == pytest.approx([50 - 2 * 4, -30 + 1.5 * 4, -40 + 5 * 3])
    assert tumour["relevance"] == pytest.approx(float(found.relevance[1, LIVER_PARTS]))
    assert tumour["relevance_smoothed"] == pytest.approx(float(found.smoothed[1, LIVER_PARTS]))
