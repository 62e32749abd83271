"""Check that `network_def` maps what the metadata promise as input to what they promise as output."""

from __future__ import annotations

from typing import Any

import torch

from medbundles.bundle import BundleInfo
from medbundles.errors import one_line
from medbundles.workflows import config_files

ANY_SIZE = 32  # stands for "*"
FREE_SIZES = {"n": 2, "p": 1}  # n = 1 would leave one voxel after the strides, which instance norm refuses


def network_problems(info: BundleInfo) -> list[str]:
    """What is wrong with the shape and dtype of `network_def`'s output for the declared `image`."""
    from monai.bundle import ConfigParser

    try:
        formats = info.metadata["network_data_format"]
        image, pred = formats["inputs"]["image"], formats["outputs"]["pred"]
        shape, wanted = tensor_shape(image), tensor_shape(pred)
        dtype, wanted_dtype = getattr(torch, image["dtype"]), getattr(torch, pred["dtype"])
    except (KeyError, TypeError, AttributeError, ValueError, SyntaxError) as problem:
        return [f"network_def: cannot be checked, the metadata lack its image and pred ({problem!r})"]
    try:
        parser = ConfigParser(
            ConfigParser.load_config_files([str(f) for f in config_files(info, "inference")])
        )
        parser["bundle_root"] = str(info.root)
        network = parser.get_parsed_content("network_def")
        if not isinstance(network, torch.nn.Module):
            return [f"network_def: must be a torch.nn.Module, got {type(network).__name__}"]
        with torch.inference_mode():
            output = network.eval()(torch.zeros(1, *shape, dtype=dtype))
    except Exception as problem:  # noqa: BLE001 - a bundle's network may raise anything; it is reported
        return [f"network_def: fails on image (1, {', '.join(map(str, shape))}): {one_line(problem)}"]
    return _output_problems(output, (1, *wanted), wanted_dtype)


def _output_problems(output: Any, shape: tuple[int, ...], dtype: torch.dtype) -> list[str]:
    if not isinstance(output, torch.Tensor):
        return [f"network_def: must return one tensor, got {type(output).__name__}"]
    problems = []
    if tuple(output.shape) != shape:
        problems.append(f"network_def: pred must have shape {shape}, got {tuple(output.shape)}")
    if output.dtype != dtype:
        problems.append(f"network_def: pred must be {dtype}, got {output.dtype}")
    return problems


def tensor_shape(entry: dict[str, Any]) -> tuple[int, ...]:
    """(C, *spatial) of a metadata entry, with 32 for "*", n = 2 in "16*n" and p = 1 in "32**p"."""
    from monai.utils.safeeval import safe_eval

    sizes = [
        ANY_SIZE if item == "*" else int(safe_eval(item, FREE_SIZES)) if isinstance(item, str) else item
        for item in entry["spatial_shape"]
    ]
    return (entry["num_channels"], *sizes)
