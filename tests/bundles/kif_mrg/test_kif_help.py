"""Help on the commands of the bundle, as fire writes it, instead of a line about an unknown argument."""

from __future__ import annotations

import pytest
from medbundles import cli

SHOWN = {
    "tool kif_mrg pretrain_decoder": ("pre-train a decoder", "REPORTS", "OUTPUT"),
    "tool kif_mrg build_memory": ("build the report memory", "BACKEND", "ANNOTATION"),
    "bench kif_mrg": ("goes on where it stopped", "WORKERS", "FORM"),
}


@pytest.mark.parametrize("command", SHOWN)
def test_help_is_that_of_the_function_behind_it(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main([*command.split(), "--help"])
    assert ended.value.code == 0
    printed = capsys.readouterr()
    shown = printed.out + printed.err
    assert f"medbundles {command} -" in shown
    for text in SHOWN[command]:
        assert text.lower() in shown.lower()


def test_what_does_not_fit_is_still_one_line() -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["tool", "kif_mrg", "build_memory", "--halp"])
    assert "usage: build_memory(annotation, output" in str(ended.value.code)
