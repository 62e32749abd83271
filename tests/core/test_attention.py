"""CBAM3D: gates, shapes, closed form, exportability."""

import io

import pytest
import torch
from medbundles.attention import CBAM3D


@pytest.mark.parametrize("grid", [(1, 1, 1), (2, 3, 4), (9, 8, 5)])
def test_any_grid_keeps_its_shape_and_gates_lie_in_the_unit_interval(grid: tuple[int, ...]) -> None:
    cbam, x = CBAM3D(16), torch.randn(2, 16, *grid)
    channel, spatial = cbam.gates(x)
    assert channel.shape == (2, 16, 1, 1, 1)
    assert spatial.shape == (2, 1, *grid)
    for gate in (channel, spatial):
        assert ((gate > 0) & (gate < 1)).all()
    torch.testing.assert_close(cbam(x), x * channel * spatial)


def test_zero_weights_give_half_gates() -> None:
    cbam, x = CBAM3D(4), torch.randn(2, 4, 3, 4, 5)
    with torch.no_grad():
        for parameter in cbam.parameters():
            parameter.zero_()
    torch.testing.assert_close(cbam(x), x / 4)


def test_channel_gate_equals_the_two_layer_form_on_pooled_vectors() -> None:
    cbam, x = CBAM3D(16, reduction=4), torch.randn(2, 16, 3, 4, 5)
    w1, w2 = (layer.weight.flatten(1) for layer in (cbam.channel[0], cbam.channel[2]))
    pooled = (x.flatten(2).mean(-1), x.flatten(2).max(-1).values)
    expected = torch.sigmoid(sum(torch.relu(v @ w1.T) @ w2.T for v in pooled))
    torch.testing.assert_close(cbam.gates(x)[0].flatten(1), expected)


def test_spatial_gate_sees_the_channel_gated_map() -> None:
    cbam, x = CBAM3D(8), torch.randn(2, 8, 3, 4, 5)
    gated = x * cbam.gates(x)[0]
    summary = torch.stack([gated.mean(1), gated.max(1).values], dim=1)
    torch.testing.assert_close(cbam.gates(x)[1], torch.sigmoid(cbam.spatial(summary)))


def test_narrow_maps_keep_one_hidden_channel() -> None:
    assert CBAM3D(4, reduction=8).channel[0].out_channels == 1


def test_even_kernel_is_rejected() -> None:
    with pytest.raises(ValueError, match="kernel_size must be odd"):
        CBAM3D(8, kernel_size=4)


def test_every_parameter_and_the_input_get_a_gradient() -> None:
    cbam, x = CBAM3D(16), torch.randn(2, 16, 4, 4, 4, requires_grad=True)
    cbam(x).square().sum().backward()
    for tensor in (x, *cbam.parameters()):
        assert tensor.grad is not None
        assert tensor.grad.isfinite().all()
        assert tensor.grad.abs().sum() > 0


def test_torchscript_survives_a_round_trip() -> None:
    cbam, x = CBAM3D(8).eval(), torch.randn(2, 8, 3, 4, 5)
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.script(cbam), buffer)
    buffer.seek(0)
    torch.testing.assert_close(torch.jit.load(buffer)(x), cbam(x))


def test_export_gives_the_same_map() -> None:
    cbam, x = CBAM3D(8).eval(), torch.randn(2, 8, 3, 4, 5)
    torch.testing.assert_close(torch.export.export(cbam, (x,)).module()(x), cbam(x))
