"""One place that decides device, autocast dtype, gradient scaling and memory format: the AMP utilities."""

import logging
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

logger = logging.getLogger(__name__)
_LAYOUTS = {4: torch.channels_last, 5: torch.channels_last_3d}
_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "off": None}


def best_device() -> torch.device:
    """The CUDA device of this process (by LOCAL_RANK of torchrun) if there is one, otherwise the CPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    import ignite.distributed as idist

    return torch.device("cuda", idist.get_local_rank())


def native_bf16_cpu() -> bool:
    """Whether this CPU multiplies bf16 in hardware; emulated bf16 is slower than fp32."""
    return torch.backends.mkldnn.is_available() and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def auto_dtype(device: torch.device) -> torch.dtype | None:
    """bf16 on CUDA from Ampere on and on CPUs that have it, fp16 on older CUDA, else None (fp32)."""
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.get_device_capability(device) >= (8, 0) else torch.float16
    if device.type == "cpu" and native_bf16_cpu():
        return torch.bfloat16
    return None


class Precision:
    """Device, autocast dtype, gradient scaler and memory format of a run.

    Args:
        device: torch device or its name; None takes `best_device()`.
        amp: `auto` (see auto_dtype), `bf16`, `fp16` or `off`.
        channels_last: keep images, volumes and convolutions in channels_last (3-D ones are 1.2-1.5 times
            faster so on a CPU).

    Raises:
        ValueError: unknown `amp`; fp16 asked for on a CPU, where its gradients underflow without a scaler.
    """

    def __init__(
        self, device: torch.device | str | None = None, amp: str = "auto", channels_last: bool = True
    ) -> None:
        self.device = torch.device(device) if device is not None else best_device()
        if amp != "auto" and amp not in _DTYPES:
            raise ValueError(f"amp must be 'auto', 'bf16', 'fp16' or 'off', got {amp=}")
        if amp == "fp16" and self.device.type == "cpu":
            raise ValueError("amp='fp16' needs a CUDA device, got cpu; use 'bf16', 'auto' or 'off'")
        self.dtype = auto_dtype(self.device) if amp == "auto" else _DTYPES[amp]
        self.channels_last = channels_last
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.dtype == torch.float16)

    def __repr__(self) -> str:
        dtype = str(self.dtype or torch.float32).removeprefix("torch.")
        return f"Precision({self.device}, {dtype}, channels_last={self.channels_last})"

    def state_dict(self) -> dict[str, Any]:
        """State of the gradient scaler, for a resume; empty where gradients are not scaled."""
        return self.scaler.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the gradient scaler."""
        self.scaler.load_state_dict(dict(state))

    def autocast(self, windowed: bool = False) -> AbstractContextManager:
        """Autocast context; `windowed` marks Swin encoders, which lose more than bf16 gains on a CPU."""
        enabled = self.dtype is not None and not (windowed and self.device.type == "cpu")
        return torch.autocast(self.device.type, dtype=self.dtype or torch.bfloat16, enabled=enabled)

    def to(self, item: Tensor) -> Tensor:
        """Move a tensor to the device; floating images and volumes (4-D, 5-D) take the memory format."""
        item = item.to(self.device, non_blocking=True)
        if self.channels_last and item.ndim in _LAYOUTS and item.is_floating_point():
            item = item.contiguous(memory_format=_LAYOUTS[item.ndim])
        return item

    def batch(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """Move the tensors of a batch, without image metadata; anything else stays as it is."""
        plain = {
            key: value.as_tensor() if hasattr(value, "as_tensor") else value for key, value in data.items()
        }
        return {key: self.to(value) if isinstance(value, Tensor) else value for key, value in plain.items()}

    def prepare(self, module: nn.Module) -> nn.Module:
        """Move a module to the device, its convolutions in the memory format; returns the same module."""
        module.to(self.device)
        if self.channels_last:
            for part in module.modules():
                if isinstance(part, nn.modules.conv._ConvNd) and part.weight.ndim in _LAYOUTS:
                    part.to(memory_format=_LAYOUTS[part.weight.ndim])  # type: ignore[call-overload]
        return module

    def step(
        self,
        loss: Tensor,
        optimizer: torch.optim.Optimizer,
        parameters: Iterable[nn.Parameter] = (),
        clip: float | None = None,
        clip_by: str = "norm",
    ) -> Tensor | None:
        """Backward and one optimizer step through the scaler, with optional clipping of the gradient.

        `clip` bounds its norm, or with clip_by="value" every element. Returns the norm before clipping; when
        it is not finite the step is left out, so that the weights stay as they are.
        """
        self.scaler.scale(loss).backward()
        norm = None
        if clip is not None:
            self.scaler.unscale_(optimizer)
            trained = list(parameters)
            norm = nn.utils.clip_grad_norm_(trained, clip if clip_by == "norm" else float("inf"))
            if clip_by == "value":
                nn.utils.clip_grad_value_(trained, clip)
            # The scaler does the same, and lowers its factor.
            if not self.scaler.is_enabled() and not norm.isfinite():
                return norm
        self.scaler.step(optimizer)
        self.scaler.update()
        return norm
