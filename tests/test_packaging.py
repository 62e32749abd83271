"""What is installed is what the repository holds: every bundle, one version, and no top-level `core`."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path
from typing import Any

import hatchling.build
import medbundles
import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
BUNDLES = sorted(file.parents[1].name for file in ROOT.glob("bundles/*/configs/metadata.json"))
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
HATCH = PROJECT["tool"]["hatch"]["build"]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built wheel, unpacked."""
    folder = tmp_path_factory.mktemp("wheel")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        wheel = folder / hatchling.build.build_wheel(str(folder))
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def test_every_bundle_is_installed_in_development_and_packed() -> None:
    assert BUNDLES
    assert set(HATCH["dev-mode-dirs"]) == {"core", *(f"bundles/{name}" for name in BUNDLES)}
    wheel = HATCH["targets"]["wheel"]
    assert set(wheel["packages"]) == {"core/medbundles", *(f"bundles/{name}/{name}" for name in BUNDLES)}
    assert wheel["force-include"] == {
        f"bundles/{name}/{part}": f"medbundles/bundles/{name}/{part}"
        for name in BUNDLES
        for part in ("configs", "docs", "LICENSE")
    }


def test_the_wheel_holds_the_packages_and_nothing_else_at_the_top(site: Path) -> None:
    (info,) = site.glob("*.dist-info")
    assert {path.name for path in site.iterdir()} == {"medbundles", *BUNDLES, info.name}
    packed = {path.relative_to(site).as_posix() for path in site.rglob("*") if path.is_file()}
    packages = {ROOT / "core" / "medbundles": Path("medbundles")}
    for name in BUNDLES:
        root = ROOT / "bundles" / name
        packages |= {root / name: Path(name), root / "configs": Path("medbundles/bundles") / name / "configs"}
    expected = {
        (target / path.relative_to(source)).as_posix()
        for source, target in packages.items()
        for path in source.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {"medbundles/bundles/react_kd/configs/train.json", "react_kd/networks.py"} <= expected
    assert expected - packed == set()
    assert not [
        name for name in packed if "test" in Path(name).stem.split("_") or name.endswith((".pt", ".pyc"))
    ]


def test_an_installed_wheel_finds_and_builds_its_bundles(site: Path, tmp_path: Path) -> None:
    code = """if True:
        import medbundles
        for name, info in medbundles.discover().items():
            workflow = medbundles.load(name, "inference")
            workflow.initialize()
            network = type(workflow.network_def)
            package = network.__module__.split(".")[0]
            print(name, info.source, info.installed, info.root, package, sep="|")
    """
    environment = {key: value for key, value in os.environ.items() if key != "MEDBUNDLES_PATH"}
    environment |= {"PYTHONPATH": str(site), "MEDBUNDLES_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    rows = [line.split("|") for line in done.stdout.splitlines() if line.count("|") == 4]
    assert rows == [
        [name, "distribution", "True", str(site / "medbundles" / "bundles" / name), name] for name in BUNDLES
    ]


def test_one_version_everywhere(site: Path) -> None:
    (info,) = site.glob("*.dist-info")
    metadata = Parser().parsestr((info / "METADATA").read_text())
    assert metadata["Version"] == PROJECT["project"]["version"] == medbundles.__version__
    released = re.findall(r"(?m)^## (\S+)", (ROOT / "CHANGELOG.md").read_text())
    assert released
    assert released[0] == medbundles.__version__
    assert (
        f"medbundles = {PROJECT['project']['scripts']['medbundles']}"
        in (info / "entry_points.txt").read_text()
    )
    assert (info / "licenses" / "LICENSE").is_file()


def test_every_make_target_that_is_named_exists() -> None:
    targets = set(re.findall(r"(?m)^([a-z]+):", (ROOT / "Makefile").read_text()))
    named = {
        name: {target for line in re.findall(r"(?m)(?:^|`)make ([a-z ]+)", text) for target in line.split()}
        for name in ("README.md", ".ci/run")
        for text in [(ROOT / name).read_text()]
    }
    assert {"train", "test"} <= named["README.md"] <= targets
    assert {"lint", "test"} <= named[".ci/run"] <= targets
