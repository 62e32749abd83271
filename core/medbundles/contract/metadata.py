"""Checks of configs/metadata.json: our schema, the changelog, names and versions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from jsonschema import Draft201909Validator

from medbundles.bundle import BundleInfo, version_problems

SCHEMA = Path(__file__).parents[1] / "metadata_schema.json"


def metadata_problems(info: BundleInfo) -> list[str]:
    """Everything wrong with the metadata; needs neither network nor the bundle's code."""
    if not info.metadata:
        return [f"configs/metadata.json: {info.error or 'must not be empty'}"]
    found = [*schema_problems(info.metadata), *_consistency_problems(info)]
    found += version_problems(info.metadata)
    if info.error:
        found.append(info.error)
    return [f"configs/metadata.json: {problem}" for problem in found]


def schema_problems(metadata: dict[str, Any]) -> list[str]:
    """Where the metadata break our schema, which is at least as strict as MONAI's of 2024-07-25."""
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    errors = sorted(Draft201909Validator(schema).iter_errors(metadata), key=lambda error: error.json_path)
    # the same entry can be reached by name and by pattern
    return list(dict.fromkeys(f"{error.json_path.removeprefix('$.')}: {error.message}" for error in errors))


def _consistency_problems(info: BundleInfo) -> list[str]:
    metadata, found = info.metadata, []
    changelog = metadata.get("changelog")
    if isinstance(changelog, dict) and metadata.get("version") not in changelog:
        found.append(f"changelog must have an entry for version {metadata.get('version')!r}")
    if metadata.get("name") != info.name:
        found.append(f"name must be that of the bundle, {info.name!r}, got {metadata.get('name')!r}")
    network = metadata.get("network_data_format")
    for side, first in (("inputs", "image"), ("outputs", "pred")):
        entries = network.get(side) if isinstance(network, dict) else None
        if isinstance(entries, dict) and entries:
            key, entry = next(iter(entries.items()))
            if key != first:
                found.append(f"network_data_format.{side} must begin with {first!r}, got {key!r}")
            if isinstance(entry, dict) and "channel_def" not in entry:
                found.append(f"network_data_format.{side}.{key} must have a channel_def")
    return found
