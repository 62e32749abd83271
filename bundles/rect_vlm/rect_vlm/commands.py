"""Commands of this bundle: `medbundles tool rect_vlm NAME`, with the arguments of the function behind it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rect_vlm import phantom
from rect_vlm.cache_building import build_cache
from rect_vlm.cot_generation import generate_cot_data
from rect_vlm.demo import demo
from rect_vlm.dicom_conversion import convert_dicom
from rect_vlm.medsam2_conversion import prepare_ctrate_for_medsam2
from rect_vlm.memory import memory
from rect_vlm.rexgrounding import convert_rexgrounding

COMMANDS: dict[str, Callable[..., Any]] = {
    "phantom": phantom.main,
    "build_cache": build_cache,
    "convert_dicom": convert_dicom,
    "convert_rexgrounding": convert_rexgrounding,
    "prepare_ctrate_for_medsam2": prepare_ctrate_for_medsam2,
    "generate_cot_data": generate_cot_data,
    "memory": memory,
    "demo": demo,
}
