"""Precision: dtype, scaler, memory format, a step that keeps non-finite gradients out of the weights."""

from __future__ import annotations

import pytest
import torch
from medbundles import precision as module
from medbundles.precision import Precision, auto_dtype, best_device
from torch import nn

CPU = torch.device("cpu")
CUDA = torch.device("cuda", 0)


def test_device_is_the_cpu_without_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert best_device() == CPU


def test_device_is_the_cuda_device_of_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr("ignite.distributed.get_local_rank", lambda: 3)
    assert best_device() == torch.device("cuda", 3)


@pytest.mark.parametrize(
    ("device", "capability", "native", "dtype"),
    [
        (CPU, None, True, torch.bfloat16),
        (CPU, None, False, None),
        (CUDA, (9, 0), False, torch.bfloat16),
        (CUDA, (8, 0), False, torch.bfloat16),
        (CUDA, (7, 5), True, torch.float16),
    ],
)
def test_automatic_dtype(
    device: torch.device,
    capability: tuple[int, int] | None,
    native: bool,
    dtype: torch.dtype | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    monkeypatch.setattr(module, "native_bf16_cpu", lambda: native)
    assert auto_dtype(device) is dtype


def test_unknown_amp() -> None:
    with pytest.raises(ValueError, match="amp must be 'auto', 'bf16', 'fp16' or 'off', got amp='fp8'"):
        Precision(CPU, "fp8")


def test_fp16_needs_cuda() -> None:
    with pytest.raises(ValueError, match="amp='fp16' needs a CUDA device, got cpu"):
        Precision("cpu", "fp16")


@pytest.mark.parametrize(
    ("amp", "windowed", "expected"),
    [("bf16", False, torch.bfloat16), ("bf16", True, torch.float32), ("off", False, torch.float32)],
)
def test_autocast_dtype_of_a_product(amp: str, windowed: bool, expected: torch.dtype) -> None:
    with Precision(CPU, amp).autocast(windowed):
        assert nn.Linear(3, 3)(torch.ones(2, 3)).dtype is expected


def test_module_and_images_take_the_memory_format() -> None:
    precision = Precision(CPU, "off")
    conv = precision.prepare(nn.Conv3d(2, 4, 3))
    assert conv.weight.is_contiguous(memory_format=torch.channels_last_3d)
    image = torch.rand(2, 3, 4, 5, 6)
    moved = precision.to(image)
    assert moved.is_contiguous(memory_format=torch.channels_last_3d)
    assert torch.equal(moved, image)
    label = torch.zeros(2, dtype=torch.int64)
    assert precision.to(label) is label
    mixed = precision.prepare(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv1d(4, 4, 3), nn.Linear(4, 2)))
    assert mixed[0].weight.is_contiguous(memory_format=torch.channels_last)  # type: ignore[union-attr]
    assert precision.to(torch.rand(2, 3, 5, 6)).is_contiguous(memory_format=torch.channels_last)
    plain = Precision(CPU, "off", channels_last=False)
    assert plain.to(image).is_contiguous()
    assert plain.prepare(nn.Conv3d(2, 4, 3)).weight.is_contiguous()


def test_step_equals_plain_training() -> None:
    networks = [nn.Linear(3, 2), nn.Linear(3, 2)]
    networks[1].load_state_dict(networks[0].state_dict())
    batch = torch.rand(4, 3)
    optimizers = [torch.optim.SGD(network.parameters(), lr=0.1) for network in networks]
    assert Precision(CPU, "off").step(networks[0](batch).square().mean(), optimizers[0]) is None
    networks[1](batch).square().mean().backward()
    optimizers[1].step()
    assert torch.equal(networks[0].weight, networks[1].weight)


def test_step_clips_the_gradient_norm() -> None:
    network = nn.Linear(3, 2)
    optimizer = torch.optim.SGD(network.parameters(), lr=1.0)
    before = torch.cat([p.detach().flatten() for p in network.parameters()])
    loss = 1e3 * network(torch.rand(4, 3)).square().sum()
    norm = Precision(CPU, "off").step(loss, optimizer, network.parameters(), clip=0.5)
    after = torch.cat([p.detach().flatten() for p in network.parameters()])
    assert norm is not None
    assert norm > 0.5
    torch.testing.assert_close((after - before).norm(), torch.tensor(0.5))


def test_step_clips_every_element_of_the_gradient() -> None:
    network = nn.Linear(3, 2)
    optimizer = torch.optim.SGD(network.parameters(), lr=1.0)
    before = network.weight.detach().clone()
    loss = 1e3 * network(torch.rand(4, 3)).square().sum()
    norm = Precision(CPU, "off").step(loss, optimizer, network.parameters(), clip=0.1, clip_by="value")
    assert norm is not None
    assert norm > 0.1
    torch.testing.assert_close((network.weight - before).abs(), torch.full((2, 3), 0.1))


def test_step_leaves_the_weights_when_the_gradient_is_not_finite() -> None:
    network = nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(network.parameters())
    before = network.weight.detach().clone()
    loss = (network(torch.zeros(4, 3)) - network.bias).abs().sqrt().sum()  # sqrt has no slope at 0
    norm = Precision(CPU, "off").step(loss, optimizer, network.parameters(), clip=1.0)
    assert norm is not None
    assert not norm.isfinite()
    assert torch.equal(network.weight, before)
