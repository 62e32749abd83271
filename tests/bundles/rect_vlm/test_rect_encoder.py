"""Vision encoder: outputs, regions, gradients, checkpointing, sizes, deployment."""

from __future__ import annotations

import copy
import io
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from rect_vlm.encoder import ThreeDVisionEncoder
from rect_vlm.geometry import GEOMETRIES
from rect_vlm.patches import AxisPositions, PatchEmbedding, into_patches
from torch import Tensor

SIZE, PATCH = (8, 8, 12), (2, 4, 4)  # grid 4 x 2 x 3


def _encoder(**numbers: Any) -> ThreeDVisionEncoder:
    return ThreeDVisionEncoder(SIZE, PATCH, **{"embed_dim": 32, "depth": 2, "num_heads": 4, **numbers})


def _image(batch: int = 2) -> Tensor:
    return torch.rand(batch, 1, *SIZE) * 2 - 1


def _regions(batch: int = 2) -> Tensor:
    return torch.randint(0, 21, (batch, 1, *SIZE), dtype=torch.uint8)


def _assert_same(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    for key, value in one.items():
        torch.testing.assert_close(other[key], value, msg=lambda text, key=key: f"{key}: {text}")


def test_outputs_have_their_shapes() -> None:
    encoder, regions = _encoder().eval(), _regions()
    regions[regions == 5] = 0
    out = encoder(_image(), regions)
    assert {key: tuple(value.shape) for key, value in out.items()} == {
        "global_features": (2, 32), "local_features": (2, 24, 32), "region_features": (2, 20, 32),
        "region_present": (2, 20), "patch_to_region": (2, 24, 21),
    }  # fmt: skip
    assert encoder.grid == (4, 2, 3)
    assert out["region_present"].dtype == torch.bool
    assert not out["region_present"][:, 4].any()
    assert out["region_present"].sum() == 38


@pytest.mark.parametrize("off", [{}, {"region_attention": False}, {"slice_bias": False}])
def test_every_parameter_gets_a_gradient(off: dict[str, bool]) -> None:
    encoder = _encoder(**off, region_drop=0.0)
    out = encoder(_image(), _regions())
    torch.stack([out[key].square().mean() for key in out if key.endswith("features")]).sum().backward()
    without = [n for n, p in encoder.named_parameters() if p.grad is None or p.grad.abs().max() == 0]
    assert without == []


def test_regions_are_optional_and_matter() -> None:
    encoder, image = _encoder().eval(), _image()
    alone = encoder(image)
    _assert_same(alone, encoder(image, torch.zeros(2, 1, *SIZE, dtype=torch.uint8)))
    assert not alone["region_present"].any()
    one, other = encoder(image, _regions()), encoder(image, _regions())
    for key in ("global_features", "local_features", "region_features"):
        assert (one[key] - alone[key]).abs().max() > 1e-3
        assert (one[key] - other[key]).abs().max() > 1e-3


def test_without_region_attention_patches_do_not_see_the_regions() -> None:
    encoder, image = _encoder(region_attention=False).eval(), _image()
    one, alone = encoder(image, _regions()), encoder(image)
    torch.testing.assert_close(one["local_features"], alone["local_features"])
    assert (one["region_features"] - alone["region_features"]).abs().max() > 1e-3


def test_a_region_is_the_mean_of_its_patches_plus_its_token() -> None:
    encoder, regions, seen = _encoder().eval(), _regions(), {}
    for name in ("norm", "region_tokens", "region_head"):
        encoder.get_submodule(name).register_forward_hook(
            lambda module, args, output, name=name: seen.update({name: (args[0], output)})
        )
    shares = encoder(_image(), regions)["patch_to_region"]
    patches, tokens, pooled = seen["norm"][1], seen["region_tokens"][1], seen["region_head"][0]
    for b, region in [(0, 0), (1, 7), (1, 19)]:
        weight = shares[b, :, region + 1]
        mean = sum(w * patch for w, patch in zip(weight, patches[b], strict=True)) / weight.sum()
        torch.testing.assert_close(pooled[b, region], mean + tokens[b, region + 1])


def test_regions_are_hidden_in_training_alone() -> None:
    encoder, image, regions = _encoder(region_drop=1.0), _image(), _regions()
    _assert_same(encoder(image, regions), encoder(image))
    assert encoder.eval()(image, regions)["region_present"].any()
    half = _encoder(region_drop=0.5)(_image(64), _regions(64))["patch_to_region"][..., 0]
    assert 16 < (half == 1).all(dim=1).sum() < 48  # whole samples, each by itself


def test_checkpointing_changes_no_gradient() -> None:
    plain = _encoder(dropout=0.1, region_drop=0.5)
    saving = copy.deepcopy(plain)
    saving.checkpointing = True
    image, regions = _image(), _regions()
    recomputed = []
    saving.blocks[0].register_forward_pre_hook(lambda *_: recomputed.append(1))
    for encoder in (plain, saving):
        torch.manual_seed(1)
        encoder(image, regions)["local_features"].square().mean().backward()
    assert len(recomputed) == 2
    for one, other in zip(plain.parameters(), saving.parameters(), strict=True):
        assert (one.grad is None) == (other.grad is None)
        if one.grad is not None:
            assert torch.equal(one.grad, other.grad)


def test_a_trace_of_the_image_alone_gives_the_same_for_any_batch() -> None:
    encoder, buffer = _encoder().eval(), io.BytesIO()
    torch.jit.save(torch.jit.trace(encoder, (_image(1),), strict=False), buffer)
    buffer.seek(0)
    image = _image(3)
    _assert_same(encoder(image), torch.jit.load(buffer)(image))


def test_an_export_of_the_image_alone_gives_the_same_for_any_batch() -> None:
    encoder = _encoder().eval()
    batch = torch.export.Dim("batch", min=1, max=8)
    program = torch.export.export(encoder, (_image(2),), dynamic_shapes=({0: batch},))
    image = _image(3)
    _assert_same(encoder(image), program.module()(image))


def test_patches_are_those_of_a_convolution() -> None:
    embedding, image = PatchEmbedding(2, PATCH, 16), torch.randn(2, 2, *SIZE)
    kernel = embedding.projection.weight.view(16, 2, *PATCH)
    expected = F.conv3d(image, kernel, embedding.projection.bias, stride=PATCH)
    torch.testing.assert_close(embedding(image), expected.flatten(2).mT, atol=1e-5, rtol=0)
    assert into_patches(image, PATCH).shape == (2, 24, 64)


def test_positions_are_sums_over_axes_and_stretch_to_another_grid() -> None:
    positions = AxisPositions((4, 2, 3), 8)
    d, h, w = positions.axes
    torch.testing.assert_close(positions((4, 2, 3))[(3 * 2 + 1) * 3 + 2], d[3] + h[1] + w[2])
    stretched = positions((8, 2, 3)).view(8, 2, 3, 8)
    # Of twice the patches the second lies a quarter of the way from the first old center to the next.
    torch.testing.assert_close(stretched[1, 0, 0], 0.75 * d[0] + 0.25 * d[1] + h[0] + w[0])


def test_a_volume_of_another_size_passes() -> None:
    out = _encoder().eval()(torch.randn(2, 1, 16, 4, 8), torch.randint(0, 21, (2, 1, 16, 4, 8)))
    assert out["local_features"].shape == (2, 16, 32)
    assert out["local_features"].isfinite().all()


@pytest.mark.parametrize(("name", "millions"), [("ctrate", 120.7), ("seed", 118.4)])
def test_published_sizes_have_their_parameters(name: str, millions: float) -> None:
    geometry = GEOMETRIES[name]
    with torch.device("meta"):
        encoder = ThreeDVisionEncoder(geometry.img_size, geometry.patch)
    assert encoder.grid == geometry.grid
    assert sum(p.numel() for p in encoder.parameters()) / 1e6 == pytest.approx(millions, abs=0.05)


def test_half_precision_stays_near() -> None:
    encoder, image, regions = _encoder().eval(), _image(), _regions()
    with torch.autocast("cpu", torch.bfloat16):
        half = encoder(image, regions)
    for key, value in encoder(image, regions).items():
        torch.testing.assert_close(half[key].to(value.dtype), value, atol=0.1, rtol=0)


@pytest.mark.parametrize("shape", [(2, 3, 8, 8, 12), (2, 8, 8, 12), (2, 1, 8, 8, 10), (2, 1, 0, 8, 12)])
def test_images_that_do_not_fit_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"must (be \(B, 1, D, H, W\)|have sides that are multiples)"):
        _encoder()(torch.zeros(shape))


def test_the_patch_must_divide_the_volume() -> None:
    with pytest.raises(ValueError, match=r"multiples of the patch \(2, 4, 5\), got \(8, 8, 12\)"):
        ThreeDVisionEncoder(SIZE, (2, 4, 5))
