"""Commands of this bundle: `medbundles tool react_kd NAME`, with the arguments of the function behind it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from react_kd import low_dose_folder, phantom, real_cohort, real_ct_walkthrough
from react_kd.convert.hcc_tace_seg import convert_hcc_tace_seg
from react_kd.convert.hospital import convert_hospital
from react_kd.convert.lits17 import convert_lits17

COMMANDS: dict[str, Callable[..., Any]] = {
    "phantom": phantom.main,
    "real_cohort": real_cohort.main,
    "real_ct": real_ct_walkthrough.main,
    "low_dose": low_dose_folder.main,
    "convert_lits17": convert_lits17,
    "convert_hcc_tace_seg": convert_hcc_tace_seg,
    "convert_hospital": convert_hospital,
}
