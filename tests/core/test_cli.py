"""The command line: what it prints, its exit status, and that errors of the user are one line."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from medbundles import cli
from medbundles.scaffold import scaffold

COMMANDS = '''
def double(value: int, times: int = 1) -> int:
    """Double a number."""
    return value * 2**times

COMMANDS = {"double": double}
'''
COMPARISON = """
def main(folds: int, out: str = "none") -> str:
    return f"compared on {folds} folds, {out}"
"""


@pytest.fixture(autouse=True)
def separate(tmp_path, monkeypatch):
    (tmp_path / "bundles").mkdir()
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("MEDBUNDLES_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("MEDBUNDLES_PATH", str(tmp_path / "bundles"))


def make(name: str, tmp_path: Path, where: str = "bundles") -> Path:
    return scaffold(name, tmp_path / where)


def failure(*arguments: str) -> str:
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    return str(caught.value.code)


def test_list_shows_bundles_and_what_is_wrong_with_broken_ones(tmp_path, capsys):
    make("cli_listed", tmp_path)
    (make("cli_broken", tmp_path) / "configs" / "metadata.json").write_text("[]")
    cli.main(["list"])
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert "0.1.0" in lines["cli_listed"]
    assert "must hold an object, got list" in lines["cli_broken"]


def test_info_describes_the_network(tmp_path, capsys):
    make("cli_info", tmp_path)
    cli.main(["info", "cli_info"])
    shown = capsys.readouterr().out
    assert "inputs image: float32 1 x 8*n x 8*n x 8*n" in shown
    assert "workflows: training, evaluate, inference, train" in shown


def test_errors_of_the_user_are_one_line(tmp_path):
    root = make("cli_errors", tmp_path)
    messages = [
        failure("info", "cli_erors"),
        failure("run", "cli_errors", "trainn"),
        failure("run", "cli_errors", "training", "--epoch", "3"),
        failure("run", "cli_errors", "training", "--overlay", "papr"),
        failure("new", "cli_errors", str(root.parent)),
        failure("export", "cli_errors", str(root.parent)),
        failure("verify", str(tmp_path / "none.zip")),
        failure("samples", "fetch", "cli_nothing"),
    ]
    assert all(message.startswith("medbundles: ") and "\n" not in message for message in messages)
    assert "did you mean 'cli_errors'" in messages[0]
    assert "did you mean 'epochs'" in messages[2]
    assert failure("frobnicate") == "2"


def test_debugging_shows_the_traceback(monkeypatch):
    monkeypatch.setenv("MEDBUNDLES_DEBUG", "1")
    with pytest.raises(ValueError, match="no bundle named"):
        cli.main(["info", "cli_nothing"])


def test_errors_inside_a_workflow_reach_the_user_without_wrappers(tmp_path):
    make("cli_inside", tmp_path)
    (tmp_path / "data").mkdir()
    message = failure("run", "cli_inside", "training", "--dataset_dir", str(tmp_path / "data"))
    assert message == f"medbundles: {tmp_path}/data/images must hold .nii.gz files, found none"


def test_verify_lists_everything_and_exits_with_1(tmp_path, capsys):
    root = make("cli_verify", tmp_path)
    (root / "LICENSE").unlink()
    (root / "docs" / "README.md").unlink()
    (root / "cli_verify" / "__init__.py").unlink()
    assert failure("verify", "cli_verify") == "1"
    shown = capsys.readouterr().out
    assert "cli_verify: 3 wrong" in shown
    assert "LICENSE: required" in shown
    assert "docs/README.md: required" in shown
    assert "__init__.py is missing" in shown


@pytest.mark.parametrize("arguments", [["verify"], ["run"], ["bench"], ["tool"]])
def test_a_folder_nobody_installed_is_shown_and_not_executed(tmp_path, capsys, arguments):
    root = make("cli_stranger", tmp_path, "elsewhere")
    (root / "cli_stranger" / "__init__.py").write_text("raise SystemExit('executed')")
    assert failure(*arguments, str(root)) == "2"
    shown = capsys.readouterr().out
    assert "cli_stranger.networks.GatedUNet" in shown
    assert "Repeat with --trust" in shown


def test_an_exported_zip_holds_the_bundle_without_leftovers_and_can_be_verified(tmp_path, capsys):
    root = make("cli_export", tmp_path)
    (root / "models" / "model.pt").write_bytes(b"weights")
    for leftover in ("eval", "cli_export/__pycache__"):
        (root / leftover).mkdir()
        (root / leftover / "file.pyc").touch()
    cli.main(["export", "cli_export", str(tmp_path / "out"), "--zip"])
    archive = tmp_path / "out" / "cli_export_v0.1.0.zip"
    names = [name for name in zipfile.ZipFile(archive).namelist() if not name.endswith("/")]
    assert {name.split("/")[0] for name in names} == {"cli_export"}
    assert {"cli_export/LICENSE", "cli_export/models/model.pt", "cli_export/cli_export/data.py"} <= set(names)
    assert not [name for name in names if "eval/" in name or ".pyc" in name]
    assert failure("verify", str(archive)) == "2"
    assert "GatedUNet" in capsys.readouterr().out


def test_a_zip_that_would_write_outside_is_refused(tmp_path):
    archive = tmp_path / "evil.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("evil/configs/metadata.json", "{}")
        file.writestr("../outside.txt", "x")
    assert "'..'" in failure("verify", str(archive))


def test_tools_of_a_bundle_are_listed_called_and_checked(tmp_path, capsys):
    root = make("cli_tools", tmp_path)
    (root / "cli_tools" / "commands.py").write_text(COMMANDS)
    cli.main(["tool", "cli_tools"])
    cli.main(["tool", "cli_tools", "double", "5", "--times", "2"])
    assert capsys.readouterr().out.splitlines() == [
        "double(value, times=1)",
        "    Double a number.",
        "20",
    ]
    assert "has no command 'halve'; it has double" in failure("tool", "cli_tools", "halve")
    assert "missing a required argument: 'value'; usage: double(value, times=1)" in failure(
        "tool", "cli_tools", "double"
    )
    assert "has no comparison" in failure("bench", "cli_tools")


def test_bench_calls_the_comparison(tmp_path, capsys):
    root = make("cli_bench", tmp_path)
    (root / "cli_bench" / "comparison.py").write_text(COMPARISON)
    cli.main(["bench", "cli_bench", "--folds", "3", "--out", "x"])
    assert capsys.readouterr().out == "compared on 3 folds, x\n"


def test_samples_are_listed_with_their_licence(capsys):
    cli.main(["samples", "list"])
    assert "chest_ct" in capsys.readouterr().out


def test_the_module_is_the_command(tmp_path):
    make("cli_module", tmp_path)
    command = [sys.executable, "-m", "medbundles", "list"]
    result = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ)
    assert "cli_module" in result.stdout
