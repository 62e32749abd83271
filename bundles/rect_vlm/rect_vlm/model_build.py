"""Parts of the model from plain numbers, as a config or the config.json of a saved model holds them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any, TypeVar

from rect_vlm.classifier import MultiLabelClassifier
from rect_vlm.encoder import ThreeDVisionEncoder
from rect_vlm.geometry import GEOMETRIES, Geometry
from rect_vlm.localizer import LesionLocalizer
from rect_vlm.sizes import SIZES

Config = dict[str, Any]
Part = TypeVar("Part")

NUMBERS = ("geometry", "vision", "classifier", "localizer", "generator")
NAMES = ("llm_name", "text_model")


def full_config(config: Mapping[str, Any]) -> Config:
    """Every number of a model: those of `config` over those of its size.

    Args:
        config: `size`, the preset to start from (default: none, all entries are given); `geometry`, a name in
            GEOMETRIES or its fields; arguments of the parts by name: `vision`, `classifier`, `localizer`,
            `generator`, where None leaves the part out; `llm_name` and `text_model`, folder or hub id.

    Raises:
        ValueError: unknown size, geometry or entry, or one that is missing.
    """
    size = config.get("size")
    if size is not None and size not in SIZES:
        raise ValueError(f"size must be one of {list(SIZES)}, got {size!r}")
    full: Config = deepcopy(SIZES[size]) if size else {}
    for key, value in config.items():
        if key == "size":
            continue
        if key not in (*NUMBERS, *NAMES):
            raise ValueError(f"a model has the entries {[*NUMBERS, *NAMES]}, got {key!r}")
        both = isinstance(value, Mapping) and isinstance(full.get(key), Mapping)
        full[key] = {**full[key], **value} if both else deepcopy(value)
    if missing := [key for key in (*NUMBERS, *NAMES) if key not in full]:
        raise ValueError(f"config of a model lacks {missing}; give them, or a size of {list(SIZES)}")
    full["geometry"] = dataclasses.asdict(read_geometry(full["geometry"]))
    return full


def read_geometry(geometry: str | Mapping[str, Any]) -> Geometry:
    """A geometry by its name or from its fields.

    Raises:
        ValueError: unknown name or fields.
    """
    if isinstance(geometry, str):
        if geometry not in GEOMETRIES:
            raise ValueError(f"geometry must be one of {list(GEOMETRIES)} or its fields, got {geometry!r}")
        return GEOMETRIES[geometry]
    fields = {key: tuple(value) if isinstance(value, list) else value for key, value in geometry.items()}
    return _make("geometry", Geometry, fields)


def build_vision(config: Config) -> ThreeDVisionEncoder:
    """The encoder of a full config."""
    geometry = read_geometry(config["geometry"])
    shared = {"img_size": geometry.img_size, "patch_size": geometry.patch}
    return _make("vision", ThreeDVisionEncoder, config["vision"], shared)


def build_classifier(config: Config, vision: ThreeDVisionEncoder) -> MultiLabelClassifier | None:
    """The classifier of a full config, None where that leaves it out."""
    if config["classifier"] is None:
        return None
    return _make("classifier", MultiLabelClassifier, config["classifier"], {"embed_dim": vision.embed_dim})


def build_localizer(config: Config, vision: ThreeDVisionEncoder) -> LesionLocalizer | None:
    """The localizer of a full config, None where that leaves it out."""
    if config["localizer"] is None:
        return None
    shared = {"embed_dim": vision.embed_dim, "grid": vision.grid, "img_size": vision.img_size}
    return _make("localizer", LesionLocalizer, config["localizer"], shared)


def _make(
    part: str,
    factory: Callable[..., Part],
    arguments: Mapping[str, Any],
    shared: Mapping[str, Any] | None = None,
) -> Part:
    shared = shared or {}
    if not isinstance(arguments, Mapping) or (twice := sorted(set(arguments) & set(shared))):
        problem = f"{twice} follow from other entries" if isinstance(arguments, Mapping) else repr(arguments)
        raise ValueError(f"entry {part!r} of the config must hold its own arguments alone, got {problem}")
    try:
        return factory(**shared, **arguments)
    except TypeError as error:
        raise ValueError(f"entry {part!r} of the config does not fit {factory.__name__}: {error}") from error
