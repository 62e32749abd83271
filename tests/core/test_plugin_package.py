"""A bundle in a distribution of its own is found by its entry point, verified and run."""

import subprocess
import sys
from pathlib import Path

import pytest
from medbundles.cli import main
from medbundles.registry import discover, get
from medbundles.scaffold import scaffold

PYPROJECT = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
[project]
name = "acme-spheres"
version = "1.0"
[project.entry-points."medbundles.bundles"]
acme_spheres = "acme_spheres"
[tool.hatch.build.targets.wheel]
packages = ["acme_spheres"]
"""


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder in which pip installed the distribution acme-spheres, its configs inside the package."""
    bundle = scaffold("acme_spheres", tmp_path / "scaffold")
    project = tmp_path / "project"
    project.mkdir()
    (bundle / "acme_spheres").rename(project / "acme_spheres")
    (bundle / "models").rmdir()
    bundle.rename(project / "acme_spheres" / "bundle")
    (project / "pyproject.toml").write_text(PYPROJECT)
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--disable-pip-version-check"]
    target = tmp_path / "site"
    command = [sys.executable, "-m", "pip", "install", *options, "--target", str(target), str(project)]
    subprocess.run(command, check=True, capture_output=True)
    monkeypatch.setattr(sys, "path", [str(target), *sys.path])
    monkeypatch.setenv("MEDBUNDLES_CACHE", str(tmp_path / "cache"))
    return target


def test_an_installed_plugin_is_found_verified_run_and_exported(site, tmp_path, monkeypatch, capsys):
    info = get("acme_spheres")
    assert info.root == (site / "acme_spheres" / "bundle").resolve()
    assert info.source == "entry point of acme-spheres"
    assert "acme_spheres" not in sys.modules
    before = sorted(file for file in site.rglob("*") if "__pycache__" not in file.parts)

    main(["verify", "acme_spheres"])
    assert "acme_spheres: everything holds" in capsys.readouterr().out

    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    main(["run", "acme_spheres", "training", "--epochs", "1", "--dataset_dir#cases", "8"])
    assert (work / "acme_spheres" / "models" / "model.pt").is_file()
    main(["run", "acme_spheres", "evaluate", "--dataset_dir#cases", "8"])
    assert (work / "acme_spheres" / "eval" / "metrics.csv").is_file()
    assert sorted(file for file in site.rglob("*") if "__pycache__" not in file.parts) == before

    main(["export", "acme_spheres", str(tmp_path / "out")])
    copied = {
        str(file.relative_to(tmp_path / "out" / "acme_spheres")) for file in (tmp_path / "out").rglob("*")
    }
    assert {"LICENSE", "configs/train.json", "docs/README.md", "acme_spheres/networks.py"} <= copied
    assert "acme_spheres/bundle/configs/train.json" not in copied


def test_the_plugin_does_not_disturb_the_bundles_of_the_repository(site):
    names = {name for name, info in discover().items() if info.source == "repository" and not info.error}
    bundles = Path(__file__).resolve().parents[2] / "bundles"
    assert names == {file.parents[1].name for file in bundles.glob("*/configs/metadata.json")}
