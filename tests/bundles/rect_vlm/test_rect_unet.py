"""Parts of the localizer: corruption only in training, attention, gates, grids of any size."""

import pytest
import torch
import torch.nn.functional as F
from rect_vlm.denoiser import Attention, DenoisingTransformer
from rect_vlm.unet import TextGate, TextGuidedUNet, conv_norm
from torch import nn


def test_corruption_happens_in_training_only_and_is_measured_against_clean_features() -> None:
    denoiser = DenoisingTransformer(24, 16, 2, 1, noise=0.1, mask_ratio=0.25)
    clean = 3 * torch.randn(4, 500, 16)
    corrupted = denoiser.corrupt(clean)
    replaced = (corrupted == denoiser.mask_token).all(2)
    assert 0.2 < replaced.float().mean() < 0.3
    noise = (corrupted - clean)[~replaced]
    torch.testing.assert_close(noise.std(), 0.1 * clean.std(), rtol=0.05, atol=0)
    denoiser.noise = denoiser.mask_ratio = 0.0
    assert torch.equal(denoiser.corrupt(clean), clean)
    nn.init.eye_(denoiser.restore.weight)
    nn.init.zeros_(denoiser.restore.bias)
    assert denoiser.restoration_error(F.layer_norm(clean, (16,)), clean) < 1e-10
    assert denoiser.restoration_error(torch.zeros_like(clean), clean).item() == pytest.approx(1, abs=1e-3)


def test_attention_agrees_with_torchs() -> None:
    ours, torchs = Attention(16, 4), nn.MultiheadAttention(16, 4, batch_first=True)
    parts = [ours.query, ours.key, ours.value]
    torchs.in_proj_weight.data = torch.cat([part.weight for part in parts])
    torchs.in_proj_bias.data = torch.cat([part.bias for part in parts])
    torchs.out_proj.load_state_dict(ours.out.state_dict())
    x, context, mask = torch.randn(2, 6, 16), torch.randn(2, 5, 16), torch.rand(2, 5) < 0.6
    mask[:, 0] = True
    expected, _ = torchs(x, context, context, key_padding_mask=~mask, need_weights=False)
    torch.testing.assert_close(ours(x, context, mask), expected)


@pytest.mark.parametrize("grid", [(1, 1, 1), (4, 4, 4), (3, 5, 7), (9, 6, 1)])
@pytest.mark.parametrize("levels", [1, 3])
def test_unet_takes_any_grid(grid: tuple[int, int, int], levels: int) -> None:
    unet = TextGuidedUNet(12, 8, levels, skip_channels=(8,))
    finer = tuple(2 * size + 1 for size in grid)
    coarse, fine = unet(torch.randn(2, 12, *grid), torch.randn(2, 12), [torch.randn(2, 8, *finer)])
    assert coarse.shape == (2, 8, *grid)
    assert fine.shape == (2, 8, *finer)
    assert fine.isfinite().all()


@pytest.mark.parametrize("kernel", [1, 3])
def test_the_fine_kernel_is_that_of_the_finer_stages_alone(kernel: int) -> None:
    unet = TextGuidedUNet(12, 16, 1, (8, 8), kernel)
    sizes = {
        name: {part.kernel_size[0] for part in stages.modules() if isinstance(part, nn.Conv3d)} - {1}
        for name, stages in unet.named_children()
    }  # the gates have kernels of 1
    assert sizes == {"down": {3}, "bottleneck": {3}, "film": set(), "up": {3}, "finer": {kernel} - {1}}
    grids = ((2, 3, 4), (4, 6, 8), (7, 12, 15))
    skips = [torch.randn(2, 8, *grid) for grid in grids[1:]]
    coarse, fine = unet(torch.randn(2, 12, *grids[0]), torch.randn(2, 12), skips)
    assert coarse.shape == (2, 16, *grids[0])
    assert fine.shape == (2, 8, *grids[2])


@pytest.mark.parametrize("channels", [8, 24])
def test_a_channel_keeps_its_strength_beside_the_others_of_its_group(channels: int) -> None:
    block, x = conv_norm(4, channels), torch.randn(2, 4, 3, 4, 5)
    before = block(x)
    with torch.no_grad():
        block.get_parameter("0.weight")[0] *= 10
    after = block(x)
    assert after[:, 0].norm() > 1.2 * before[:, 0].norm()
    assert after[:, 1:8].norm() < 0.8 * before[:, 1:8].norm()
    torch.testing.assert_close(after[:, 8:], before[:, 8:])


def test_batch_statistics_are_gathered_in_training_alone() -> None:
    unet, x, told = TextGuidedUNet(12, 8, 1, norm="batch"), torch.randn(3, 12, 2, 3, 4), torch.randn(3, 12)
    assert not any(isinstance(part, nn.GroupNorm) for part in unet.modules())
    before = unet.eval()(x, told)[0]
    assert unet(x[:1], told[:1])[0].sub(before[:1]).abs().max() < 1e-5  # whatever else is in the batch
    unet.train()(x, told)
    assert unet.eval()(x, told)[0].sub(before).abs().max() > 1e-3
    with pytest.raises(ValueError, match=r"norm must be one of \('group', 'batch'\), got 'layer'"):
        TextGuidedUNet(12, 8, 1, norm="layer")


def test_gates_lie_between_zero_and_one_and_hear_the_text() -> None:
    gate = TextGate(16, 8, 12)
    decoded, skip = 5 * torch.randn(2, 16, 3, 4, 5), 5 * torch.randn(2, 8, 3, 4, 5)
    one, other = gate(decoded, skip, torch.randn(2, 12)), gate(decoded, skip, torch.randn(2, 12))
    assert one.shape == (2, 1, 3, 4, 5)
    assert one.min() > 0
    assert one.max() < 1
    assert (one - other).abs().max() > 1e-3
