"""Every flag of every config is read by `flag`: `--resume false` on a command line is a text."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

BUNDLES = Path(__file__).parents[2] / "bundles"
CONFIGS = sorted(path for path in BUNDLES.glob("*/configs/*.json") if path.name != "metadata.json")


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: f"{path.parts[-3]}-{path.stem}")
def test_every_flag_is_read_as_one(path: Path) -> None:
    files = [path] if path.stem == "inference" else [path.with_name("train.json"), path]
    ids = {key: value for file in files for key, value in json.loads(file.read_text()).items()}
    text = path.read_text()
    for name in (key for key, value in ids.items() if isinstance(value, bool)):
        unread = re.sub(rf"flag\('{name}', @{name}\)", "", text)
        assert not re.search(rf"@{name}\b", unread), f"{path}: @{name} must be $flag('{name}', @{name})"
