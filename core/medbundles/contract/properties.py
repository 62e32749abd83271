"""Checks that execute a bundle's configs: every `_target_` is found, and MONAI finds its properties."""

from __future__ import annotations

import logging
import pydoc
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from medbundles.bundle import BundleInfo, read_object
from medbundles.contract.configs import targets, workflow_configs
from medbundles.errors import one_line
from medbundles.workflows import config_files


def target_problems(info: BundleInfo) -> list[str]:
    """Every `_target_` of every config that names nothing callable."""
    from monai.bundle import ComponentLocator, ConfigComponent

    locator, found = ComponentLocator(), []
    for file in workflow_configs(info):
        try:
            content = read_object(file)
        except ValueError:  # named by the static checks
            continue
        for id, target in targets(content):
            name = ConfigComponent({"_target_": target}, locator=locator).resolve_module_name()
            try:
                component = pydoc.locate(name)
            except pydoc.ErrorDuringImport as problem:
                found.append(f"configs/{file.name}: {id}: {target} cannot be imported: {problem.value}")
                continue
            if not callable(component):
                found.append(f"configs/{file.name}: {id}: nothing callable is called {target}")
    return found


def property_problems(info: BundleInfo) -> list[str]:
    """Properties of the training and the inference workflow that MONAI cannot find or build."""
    with tempfile.TemporaryDirectory() as folder, _quiet():
        return [
            f"configs/{name}.json: {problem}"
            for name in ("train", "inference")
            if (info.root / "configs" / f"{name}.json").is_file()
            for problem in _workflow_problems(info, name, Path(folder))
        ]


@contextmanager
def _quiet() -> Iterator[None]:
    # MONAI logs what check_properties finds; here it is returned instead
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def _workflow_problems(info: BundleInfo, name: str, folder: Path) -> Iterator[str]:
    from monai.bundle import ConfigWorkflow
    from monai.utils import BundleProperty, BundlePropertyConfig

    # Folders of its own: handlers may create files when they are built, and verifying must leave no trace.
    folders = {"ckpt_dir": str(folder / "models"), "output_dir": str(folder / "eval")}
    try:
        files = [str(file) for file in config_files(info, name)]
        workflow = ConfigWorkflow(
            files, logging_file=False, workflow_type=name, bundle_root=str(info.root), **folders
        )
    except (OSError, ValueError) as problem:
        yield str(problem)
        return
    required = {key: value for key, value in workflow.properties.items() if value[BundleProperty.REQUIRED]}
    ids = {key: value[BundlePropertyConfig.ID] for key, value in required.items()}
    missing = {key for key, id in ids.items() if id not in workflow.parser}
    yield from (f"the id {ids[key]!r} is required for the property {key}" for key in sorted(missing))
    if missing:  # check_properties would stop at the first of them
        return
    try:
        workflow.initialize()
        wrong = workflow.check_properties()
    except Exception as problem:  # noqa: BLE001 - a bundle's factories may raise anything; it is reported
        yield f"cannot be built: {one_line(problem)}"
        return
    yield from (f"the property {key} is not reached by its id" for key in wrong or [])
