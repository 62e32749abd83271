"""The folder of a saved model.

config.json (numbers to build it from), model.safetensors (vision, classifier, localizer, projector, texts as
the text encoder gave them), adapter/ (LoRA, as peft writes it), labels.json and preprocessing.json (what its
outputs mean and what its input must be), thresholds.json where some were validated. The language model itself
stays where it is; only a tiny one, which nobody else has, comes along in language_model/.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import re
import shutil
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medbundles.atomic import replacing
from medbundles.folders import check_writable
from medbundles.tables import write_json
from torch import Tensor

from rect_vlm.findings import FINDING_OF_LESION, FINDINGS, LESIONS
from rect_vlm.geometry import Geometry
from rect_vlm.hu import HU_RANGE
from rect_vlm.model_build import full_config, read_geometry
from rect_vlm.model_weights import of_parts
from rect_vlm.regions import REGIONS
from rect_vlm.saved_llm import INSIDE, find_llm, keep_llm
from rect_vlm.thresholds import THRESHOLDS, write_thresholds

if TYPE_CHECKING:
    from rect_vlm.model_parts import ModelParts

CONFIG, WEIGHTS, ADAPTER = "config.json", "model.safetensors", "adapter"
LABELS, PREPROCESSING = "labels.json", "preprocessing.json"
SAVED_PARTS = ("projector",)  # of the generator; its LoRA is in the folder of the adapter
FORMAT = 1  # counts up when an older version of the code could not read the folder
FILES = (CONFIG, WEIGHTS, LABELS, PREPROCESSING, THRESHOLDS, f"{ADAPTER}/*", f"{INSIDE}/*")
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def model_folder(path: str | Path, local_files_only: bool = True) -> Path:
    """The local folder of a saved model.

    Args:
        path: a folder, or the id owner/name of a model on the Hugging Face hub.
        local_files_only: take a hub model from the local cache; False downloads it.

    Raises:
        FileNotFoundError: neither a folder with a config.json nor a hub model that can be had.
        ImportError: a hub id without the package huggingface_hub.
    """
    folder = Path(path).expanduser()
    if (folder / CONFIG).is_file():
        return folder
    if folder.exists() or not HUB_ID.fullmatch(str(path)):
        raise FileNotFoundError(
            f"a saved model is a folder with {CONFIG}, there is none in {folder.absolute()}"
        )
    return hub_folder(str(path), local_files_only, FILES)


def hub_folder(name: str, local_files_only: bool, files: Sequence[str] | None = None) -> Path:
    """The local copy of a hub model owner/name, all of it or the files of some patterns.

    Raises:
        FileNotFoundError: it is not there, or cannot be downloaded.
        ImportError: the package huggingface_hub is not installed.
    """
    if importlib.util.find_spec("huggingface_hub") is None:
        raise ImportError(f"{name} is no folder; a hub model needs: pip install 'medbundles[text]'")
    from huggingface_hub import snapshot_download

    try:
        return Path(
            snapshot_download(
                name, allow_patterns=list(files) if files else None, local_files_only=local_files_only
            )
        )
    except (OSError, ValueError) as error:  # of the hub's client: no network, no such model, not in the cache
        hint = "it is not in the local cache, local_files_only=False downloads it"
        reason = hint if local_files_only else str(error).splitlines()[0]
        raise FileNotFoundError(f"no folder {name}, and no hub model of that name: {reason}") from error


def read_config(folder: Path) -> dict[str, Any]:
    """The numbers of a saved model whose labels and preprocessing are those of this package.

    Raises:
        ValueError: a file that is no JSON, of another format, or says something else; names file and key.
    """
    config = _read_json(folder / CONFIG)
    if config.pop("format", None) != FORMAT:
        raise ValueError(
            f"{folder / CONFIG}: format must be {FORMAT}; written by another version of rect_vlm"
        )
    try:
        full = full_config(config)
    except ValueError as error:
        raise ValueError(f"{folder / CONFIG}: {error}") from error
    for name, meant in ((LABELS, labels()), (PREPROCESSING, preprocessing(read_geometry(full["geometry"])))):
        told = _read_json(folder / name)
        for key, value in meant.items():
            if told.get(key) != value:
                raise ValueError(f"{folder / name}: {key!r} must be {value}, got {told.get(key)}")
    return {**full, "llm_name": find_llm(folder, full["llm_name"])}


def labels() -> dict[str, Any]:
    """Names of the outputs: findings, lesions and the finding each of them implies; regions of the input."""
    return {
        "findings": list(FINDINGS),
        "lesions": list(LESIONS),
        "finding_of_lesion": dict(FINDING_OF_LESION),
        "regions": list(REGIONS),
    }


def preprocessing(geometry: Geometry) -> dict[str, Any]:
    """How a CT becomes the input: orientation, grid and values."""
    grid = {key: list(value) if value else None for key, value in dataclasses.asdict(geometry).items()}
    return {
        "axcodes": "SPL",
        **grid,
        "hu_range": [-HU_RANGE, HU_RANGE],
        "value_range": [-1.0, 1.0],
        "padding": -1.0,
    }


def read_tensors(folder: Path, parts: Collection[str]) -> dict[str, Tensor]:
    """Tensors of some parts of a saved model, by key with the part in front; nothing else is read.

    Raises:
        FileNotFoundError: no weights in the folder.
        ValueError: a file that is no safetensors.
    """
    from safetensors import SafetensorError, safe_open

    file = folder / WEIGHTS
    if not file.is_file():
        raise FileNotFoundError(f"a saved model holds its weights in {WEIGHTS}, there is none in {folder}")
    try:
        with safe_open(file, framework="pt") as stored:
            return {key: stored.get_tensor(key) for key in stored.keys() if key.split(".")[0] in parts}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{file} must be a safetensors file: {error}") from error


def save_model(model: ModelParts, path: str | Path) -> None:
    """Write a model to a folder; see `ReCTVLM.save_pretrained`.

    The config comes last and an old one goes first: a folder with a config is complete.
    """
    if model.config is None:
        raise ValueError("only a model that was built from numbers can be saved, see ReCTVLM.from_config")
    generator, config = model.generator, dict(model.config)
    trained = model.plan.saved if model.plan is not None else None  # by an earlier run, where not made again
    state = model.weights_state(list(model.heads()))
    if generator is not None:
        state |= of_parts(generator.trainable_state(), SAVED_PARTS)
    elif trained is not None:
        state |= read_tensors(trained, SAVED_PARTS)
    else:
        config["generator"] = None
    folder = check_writable(path)
    (folder / CONFIG).unlink(missing_ok=True)
    if model.plan is not None and config["generator"] is not None:
        config["llm_name"] = keep_llm(folder, model.plan.llm_name)
    _write_tensors(folder / WEIGHTS, state)
    if generator is not None:
        generator.save_adapter(folder / ADAPTER)
    elif trained is not None and trained.resolve() != folder.resolve():
        shutil.copytree(trained / ADAPTER, folder / ADAPTER, dirs_exist_ok=True)
    write_thresholds(folder, model.thresholds)
    write_json(folder / LABELS, labels())
    write_json(folder / PREPROCESSING, preprocessing(model.geometry))
    write_json(folder / CONFIG, {"format": FORMAT, **config})


def _write_tensors(file: Path, state: Mapping[str, Tensor]) -> None:
    from safetensors.torch import save_file

    plain = {key: tensor.detach().cpu().contiguous() for key, tensor in state.items()}
    with replacing(file) as temporary:
        save_file(plain, temporary, metadata={"format": "pt"})


def _read_json(file: Path) -> dict[str, Any]:
    if not file.is_file():
        raise FileNotFoundError(f"a saved model holds {file.name}, there is none in {file.parent}")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{file} must be JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{file} must hold a JSON object, got {type(content).__name__}")
    return content
