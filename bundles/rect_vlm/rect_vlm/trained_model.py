"""The trained model of a checkpoint folder, and what a config needs to know of it before it is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from medbundles.contract.weights import sha256
from medbundles.fingerprint import file_stamp
from monai.transforms import Compose

from rect_vlm.localization_net import LocalizationNet
from rect_vlm.model import ReCTVLM
from rect_vlm.model_build import full_config, read_geometry
from rect_vlm.model_files import CONFIG, read_config
from rect_vlm.transforms import eval_transform

TRAIN_COMMAND = "python -m monai.bundle run training --config_file bundles/rect_vlm/configs/train.json"
NEEDED = ("classifier", "localizer")


def model_numbers(folder: str | Path, size: str = "cpu") -> dict[str, Any]:
    """The config of the model saved in a folder; that of a size where none has been saved yet.

    Raises:
        ValueError: the saved config cannot be used, or the size is unknown.
    """
    place = Path(folder).expanduser()
    return read_config(place) if (place / CONFIG).is_file() else full_config({"size": size})


def localization_net(config: Mapping[str, Any]) -> LocalizationNet:
    """The deployed network of a config, with fresh weights."""
    return ReCTVLM.from_config({**config, "classifier": None, "generator": None}).localization_net


def preprocessing(config: Mapping[str, Any]) -> Compose:
    """`eval_transform` on the grid of a config, with the affines that bring masks back."""
    return eval_transform(read_geometry(config["geometry"]))


def load_trained(
    folder: str | Path,
    device: torch.device | str | None = None,
    report: bool = True,
    llm: str | None = None,
    load_in_4bit: bool = False,
    local_files_only: bool = True,
) -> ReCTVLM:
    """Load a trained model that finds and outlines and, if asked for, writes.

    Args:
        folder: of `ReCTVLM.save_pretrained`.
        device: where to.
        report: load the language model as well.
        llm, load_in_4bit, local_files_only: of the language model, see `ReCTVLM.from_pretrained`.

    Raises:
        FileNotFoundError: no trained model; says which command trains one.
        ValueError: files that do not fit, a model without classifier, localizer or, if asked for, generator,
            or a flag that is no bool.
        ImportError: reports need the extra `text`.
    """
    check_flags(report=report, load_in_4bit=load_in_4bit, local_files_only=local_files_only)
    place = Path(folder).expanduser().absolute()
    if not (place / CONFIG).is_file():
        raise FileNotFoundError(
            f"no trained model in {place}: train one with `{TRAIN_COMMAND}` (phase 2 writes it), "
            "or name the folder of another with --ckpt_dir or --model_dir"
        )
    model = ReCTVLM.from_pretrained(
        place, llm=llm, device=device, load_in_4bit=load_in_4bit, local_files_only=local_files_only
    )
    for part in NEEDED:
        model.require(part)
    if report and model.plan is None:
        raise ValueError(f"{place} was saved without a report generator; go on without by --report False")
    if report:
        model.load_generator()
    return model


def check_flags(**flags: bool) -> None:
    """ValueError for a flag that is no bool: the text "false" would be true."""
    for name, value in flags.items():
        if not isinstance(value, bool):
            raise ValueError(f"{name} must be True or False, got {value!r}")


def checkpoint_sums(folder: str | Path, model: ReCTVLM) -> list[Any]:
    """What a prediction depends on: SHA-256 of every file of the model, and its language model."""
    place = Path(folder).expanduser()
    files = sorted(file for file in place.rglob("*") if file.is_file())
    sums: list[Any] = [[file.relative_to(place).as_posix(), sha256(file)] for file in files]
    if (plan := model.plan) is not None:
        sums.append([plan.llm_name, plan.load_in_4bit])
        sums += [file_stamp(plan.llm_name)] if Path(plan.llm_name).is_dir() else []
    return sums
