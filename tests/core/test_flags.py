"""Flags as a command line gives them."""

from __future__ import annotations

from typing import Any

import pytest
from medbundles.flags import flag
from monai.bundle import ConfigParser


@pytest.mark.parametrize(
    ("value", "meant"), [(True, True), (False, False), ("false", False), ("False", False), ("TRUE", True)]
)
def test_a_text_means_what_it_says(value: Any, meant: bool) -> None:
    assert flag("resume", value) is meant


@pytest.mark.parametrize("value", ["no", "", 0, 1, None, []])
def test_what_is_no_flag_is_refused_by_name(value: Any) -> None:
    with pytest.raises(ValueError, match="resume must be true or false, got"):
        flag("resume", value)


def test_a_config_reads_the_text_of_the_command_line() -> None:
    config = {
        "imports": ["$from medbundles.flags import flag"],
        "resume": True,
        "handler": {"_target_": "builtins.dict", "resume": "$flag('resume', @resume)"},
    }
    parser = ConfigParser(config)
    parser.update({"resume": "false"})
    parser.parse()
    assert parser.get_parsed_content("imports") is not None
    assert parser.get_parsed_content("handler") == {"resume": False}
