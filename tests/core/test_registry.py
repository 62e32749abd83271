"""Finding bundles never imports them, isolates faults, and loading keeps bundles apart."""

import json
import os
import sys
from pathlib import Path

import pytest
from medbundles.bundle import make_importable, read_bundle, version_problems
from medbundles.registry import discover, get, load, locate
from medbundles.scaffold import scaffold
from medbundles.workflows import config_files, workflow_arguments


@pytest.fixture(autouse=True)
def separate(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("MEDBUNDLES_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("MEDBUNDLES_PATH", raising=False)


def edit(root: Path, **changes: object) -> None:
    file = root / "configs" / "metadata.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def write_entry_point(folder: Path, name: str, package: str) -> None:
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[medbundles.bundles]\n{name} = {package}\n")


def test_repository_bundles_are_the_folders_with_metadata():
    bundles = Path(__file__).resolve().parents[2] / "bundles"
    folders = {file.parents[1] for file in bundles.glob("*/configs/metadata.json")}
    assert {info.root for info in discover().values() if info.source == "repository"} == folders


def test_search_path_takes_bundles_and_folders_of_bundles(tmp_path, monkeypatch):
    one, two = scaffold("reg_one", tmp_path / "many"), scaffold("reg_two", tmp_path)
    monkeypatch.setenv("MEDBUNDLES_PATH", os.pathsep.join([str(tmp_path / "many"), str(two)]))
    found = discover()
    assert {found["reg_one"].root, found["reg_two"].root} == {one.resolve(), two.resolve()}
    assert found["reg_one"].trusted


def test_listing_imports_no_bundle_code(tmp_path, monkeypatch):
    root = scaffold("reg_bomb", tmp_path)
    (root / "reg_bomb" / "__init__.py").write_text("raise SystemExit('imported')")
    monkeypatch.setenv("MEDBUNDLES_PATH", str(tmp_path))
    assert discover()["reg_bomb"].error is None
    assert "reg_bomb" not in sys.modules


def test_a_broken_bundle_does_not_hide_the_others(tmp_path, monkeypatch):
    scaffold("reg_fine", tmp_path)
    (scaffold("reg_broken", tmp_path) / "configs" / "metadata.json").write_text("{")
    monkeypatch.setenv("MEDBUNDLES_PATH", str(tmp_path))
    found = discover()
    assert found["reg_fine"].error is None
    assert "no valid JSON" in (found["reg_broken"].error or "")
    with pytest.raises(ValueError, match="reg_broken cannot be used"):
        get("reg_broken")


def test_two_folders_of_one_name_are_an_error_naming_both(tmp_path, monkeypatch):
    places = [scaffold("reg_twin", tmp_path / side) for side in ("left", "right")]
    monkeypatch.setenv("MEDBUNDLES_PATH", os.pathsep.join(map(str, places)))
    with pytest.raises(ValueError, match="two bundles are called reg_twin") as caught:
        get("reg_twin")
    assert all(str(place.resolve()) in str(caught.value) for place in places)


def test_one_folder_found_twice_is_no_error(tmp_path, monkeypatch):
    root = scaffold("reg_same", tmp_path)
    (tmp_path / "link").symlink_to(root)
    monkeypatch.setenv("MEDBUNDLES_PATH", os.pathsep.join(map(str, [root, tmp_path, tmp_path / "link"])))
    assert get("reg_same").root == root.resolve()


def test_a_miss_names_the_nearest_bundle(tmp_path, monkeypatch):
    monkeypatch.setenv("MEDBUNDLES_PATH", str(scaffold("reg_nearest", tmp_path)))
    with pytest.raises(ValueError, match="did you mean 'reg_nearest'"):
        get("reg_neerest")


def test_names_that_cannot_be_packages_are_refused(tmp_path):
    root = scaffold("reg_name", tmp_path).rename(tmp_path / "Reg-Name")
    edit(root, name="Reg-Name")
    assert "must match" in (read_bundle(root, "path").error or "")


def test_entry_points_are_found_by_name_and_broken_ones_isolated(tmp_path, monkeypatch):
    scaffold("reg_plugin", tmp_path)
    write_entry_point(tmp_path / "site", "reg_plugin", "reg_plugin")
    write_entry_point(tmp_path / "site", "reg_gone", "reg_gone.inner")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.syspath_prepend(str(tmp_path / "reg_plugin"))
    found = discover()
    assert found["reg_plugin"].root == (tmp_path / "reg_plugin").resolve()
    assert found["reg_plugin"].source == "entry point of reg_plugin"
    assert "is not installed" in (found["reg_gone"].error or "")
    assert "reg_plugin" not in sys.modules


def test_a_bare_version_is_a_minimum():
    assert version_problems({"pytorch_version": "2.0", "required_packages_version": {"numpy": "<9"}}) == []
    wanted = {"monai_version": "99.0", "required_packages_version": {"no-such-thing": "1", "numpy": "new"}}
    assert len(version_problems(wanted)) == 3


def test_versions_are_checked_before_anything_is_imported(tmp_path, monkeypatch):
    root = scaffold("reg_future", tmp_path)
    edit(root, required_packages_version={"medbundles": "99.0"})
    monkeypatch.setenv("MEDBUNDLES_PATH", str(root))
    with pytest.raises(ValueError, match=r"medbundles 99\.0 is required"):
        load("reg_future")
    assert "reg_future" not in sys.modules


def test_two_bundles_in_one_process_keep_their_own_classes(tmp_path, monkeypatch):
    for name in ("reg_first", "reg_second"):
        scaffold(name, tmp_path / "bundles")
    monkeypatch.setenv("MEDBUNDLES_PATH", str(tmp_path / "bundles"))
    monkeypatch.chdir(tmp_path)
    modules = []
    for name in ("reg_first", "reg_second"):
        workflow = load(name, device="cpu", logging_file=False)
        workflow.initialize()
        modules.append(type(workflow.network_def).__module__)
    assert modules == ["reg_first.networks", "reg_second.networks"]


def test_a_package_loaded_from_elsewhere_is_refused(tmp_path):
    first, second = (scaffold("reg_loaded", tmp_path / side).resolve() for side in ("a", "b"))
    make_importable(read_bundle(first, "path"))
    import reg_loaded  # type: ignore[import-not-found]

    assert Path(reg_loaded.__file__).parent == first / "reg_loaded"
    with pytest.raises(ValueError, match="already loaded"):
        make_importable(read_bundle(second, "path"))


def test_a_folder_is_located_by_its_path(tmp_path):
    info = locate(scaffold("reg_folder", tmp_path))
    assert (info.name, info.trusted) == ("reg_folder", False)


def test_a_config_without_bundle_root_is_laid_over_train(tmp_path):
    info = locate(scaffold("reg_overlay", tmp_path))
    assert [file.stem for file in config_files(info, "training")] == ["train"]
    assert [file.stem for file in config_files(info, "evaluate")] == ["train", "evaluate"]
    assert [file.stem for file in config_files(info, "inference", ["evaluate"])] == ["inference", "evaluate"]
    with pytest.raises(ValueError, match="no config 'trian'; it has evaluate, inference, train"):
        config_files(info, "trian")


def test_overrides_of_unknown_ids_are_refused(tmp_path):
    info = locate(scaffold("reg_override", tmp_path))
    arguments = workflow_arguments(info, "training", epochs=1, **{"train#trainer#max_epochs": 2})
    assert (arguments["epochs"], arguments["run_id"]) == (1, "training")
    with pytest.raises(ValueError, match="did you mean 'epochs'"):
        workflow_arguments(info, "training", epoch=1)


def test_an_id_may_have_the_name_of_one_of_our_own_arguments(tmp_path):
    info = locate(scaffold("reg_same_name", tmp_path))
    config = info.root / "configs" / "inference.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"overlays": True, "info": 1}))
    arguments = workflow_arguments(info, "inference", overlays=False, info=2)
    assert (arguments["overlays"], arguments["info"]) == (False, 2)


def test_an_installed_bundle_writes_below_the_working_directory(tmp_path, monkeypatch):
    info = locate(scaffold("reg_site", tmp_path / "site"))
    monkeypatch.chdir(tmp_path)
    assert "ckpt_dir" not in workflow_arguments(info, "training")
    write_entry_point(info.root, "reg_site", "reg_site")
    arguments = workflow_arguments(info, "training", output_dir="mine")
    assert arguments["ckpt_dir"] == str(tmp_path / "reg_site" / "models")
    assert arguments["output_dir"] == "mine"
    (info.root / "models" / "model.pt").write_bytes(b"shipped")
    assert "ckpt_dir" not in workflow_arguments(info, "inference")
