"""Image encoder: patch grid, torchvision weights, views, size of the published network."""

from pathlib import Path

import pytest
import torch
from kif_mrg.visual import VisualEncoder
from torch import nn


def test_published_size_gives_49_patches_of_2048_at_224_pixels() -> None:
    with torch.device("meta"):
        encoder = VisualEncoder("resnet101")
        patches, pooled = encoder(torch.empty(2, 3, 224, 224))
    assert patches.shape == (2, 49, 2048)
    assert pooled.shape == (2, 2048) == (2, encoder.width)
    # torchvision's resnet101 has 44 549 160 parameters, of which 1000 x 2048 + 1000 in fc
    assert sum(p.numel() for p in encoder.parameters()) == 44_549_160 - 2_049_000


def test_keys_are_those_of_torchvision() -> None:
    with torch.device("meta"):
        keys = set(VisualEncoder("resnet101").state_dict())
    norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    expected = {"conv1.weight", *(f"bn1.{name}" for name in norm)}
    for stage, blocks in enumerate((3, 4, 23, 3), start=1):
        for block in range(blocks):
            at = f"layer{stage}.{block}."
            expected |= {f"{at}conv{i}.weight" for i in (1, 2, 3)}
            expected |= {f"{at}bn{i}.{name}" for i in (1, 2, 3) for name in norm}
        expected |= {f"layer{stage}.0.downsample.0.weight"}
        expected |= {f"layer{stage}.0.downsample.1.{name}" for name in norm}
    assert keys == expected


def test_a_torchvision_file_with_its_head_and_without_batch_counters_loads(tmp_path: Path) -> None:
    source = VisualEncoder("small")
    # Plain dict, as in files older than the counters of batches; with the head of the classifier.
    state = {k: torch.rand_like(v) for k, v in source.state_dict().items() if "num_batches" not in k}
    torch.save(state | {"fc.weight": torch.zeros(1000, 96), "fc.bias": torch.zeros(1000)}, tmp_path / "r.pth")
    loaded = VisualEncoder("small", str(tmp_path / "r.pth")).state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in state.items())


@pytest.mark.parametrize("state", [{"conv1.weight": torch.zeros(16, 3, 7, 7)}, {"model": {"a": 1}}, [1, 2]])
def test_another_file_is_refused_by_name(tmp_path: Path, state: object) -> None:
    torch.save(state, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"state dict of small, .*other\.pth"):
        VisualEncoder("small", str(tmp_path / "other.pth"))


def test_patches_lie_row_by_row_and_their_mean_is_the_pooled_feature() -> None:
    encoder = VisualEncoder("small").eval()
    maps = []
    encoder.layer4.register_forward_hook(lambda module, args, output: maps.append(output))
    patches, pooled = encoder(torch.randn(2, 3, 64, 128))
    assert patches.shape == (2, 8, 96)
    torch.testing.assert_close(patches[:, 4], maps[0][:, :, 1, 0])
    torch.testing.assert_close(pooled, nn.AdaptiveAvgPool2d(1)(maps[0]).flatten(1))


def test_two_views_are_two_images_side_by_side() -> None:
    encoder = VisualEncoder("small").eval()
    views = torch.randn(2, 2, 3, 96, 96)
    patches, pooled = encoder(views)
    assert patches.shape == (2, 18, 96)
    first, second = (encoder(views[:, i]) for i in range(2))
    torch.testing.assert_close(patches, torch.cat([first[0], second[0]], dim=1))
    torch.testing.assert_close(pooled, (first[1] + second[1]) / 2)


def test_unknown_encoder_is_refused() -> None:
    with pytest.raises(ValueError, match="encoder must be one of"):
        VisualEncoder("resnet18")
