"""The command `medbundles`: find, describe, run, verify, write and export bundles."""

from __future__ import annotations

import os
import sys
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import fire

from medbundles import commands
from medbundles.bundle import BundleInfo, read_bundle
from medbundles.errors import without_wrappers
from medbundles.registry import discover, locate, prepare
from medbundles.workflows import workflow_arguments


def list_bundles() -> None:
    """List every bundle with its version, who brought it and its task; broken ones with what is wrong."""
    for info in discover().values():
        version = info.metadata.get("version", "-")
        print(f"{info.name:16} {version:8} {info.source}: {info.error or info.metadata.get('task', '')}")


def info(name: str) -> None:
    """Describe a bundle (name or folder): where it lies, what it does, its workflows and its network."""
    bundle = locate(name)
    configs = sorted({file.stem for file in (bundle.root / "configs").glob("*.json")} - {"metadata"})
    rows: dict[str, Any] = {"root": bundle.root, "source": bundle.source}
    rows |= {key: bundle.metadata.get(key) for key in ("task", "description", "intended_use", "data_source")}
    rows["workflows"] = ", ".join(["training", *configs])
    for side, entries in bundle.metadata.get("network_data_format", {}).items():
        for key, entry in entries.items():
            rows[f"{side} {key}"] = _tensor(entry) if isinstance(entry, dict) else entry
    print(f"{bundle.name} {bundle.metadata.get('version', '')}")
    print("\n".join(f"  {key}: {value}" for key, value in rows.items() if value))


def _tensor(entry: dict[str, Any]) -> str:
    sizes = [entry.get("num_channels"), *entry.get("spatial_shape", [])]
    return f"{entry.get('dtype')} {' x '.join(map(str, sizes))}"


def run(
    name: str,
    workflow: str = "training",
    overlay: str | Sequence[str] = (),
    trust: bool = False,
    **overrides: Any,
) -> None:
    """Run a workflow of a bundle (name or folder) through monai.bundle.run, from any folder.

    WORKFLOW is training, or the name of a config: evaluate, inference, ... --overlay NAME,NAME lays further
    configs over it. Every other flag overrides an id of the configs, such as --epochs 3.
    """
    bundle = _executable(name, trust)
    overlays = overlay.split(",") if isinstance(overlay, str) else [str(item) for item in overlay]
    arguments = workflow_arguments(bundle, workflow, overlays, **overrides)
    import monai.bundle

    # MONAI's reminder to run trusted configs only: that was asked above
    warnings.filterwarnings("ignore", message="parsing config_file", category=UserWarning)
    monai.bundle.run(**arguments)


def verify(target: str, trust: bool = False) -> None:
    """Check a bundle (name, folder or zip) against the whole contract; exit status 1 if anything is wrong.

    A folder or zip that is not installed is executed only with --trust.
    """
    with tempfile.TemporaryDirectory() as work:
        if str(target).endswith(".zip"):
            from medbundles.export import unpack

            bundle = read_bundle(unpack(Path(target), Path(work)).resolve(), "path")
        else:
            bundle = locate(target)
        _verify(bundle, trust)


def _verify(bundle: BundleInfo, trust: bool) -> None:
    from medbundles import contract

    trusted = bundle.trusted or trust
    problems = contract.verify(bundle) if trusted else contract.static_problems(bundle)
    if problems:
        print(f"{bundle.name}: {len(problems)} wrong at {bundle.root}")
        print("\n".join(f"  {problem}" for problem in problems))
    if not trusted:
        _show_executed(bundle)
    if problems or not trusted:
        sys.exit(1 if problems else 2)
    print(f"{bundle.name}: everything holds at {bundle.root}")


def new(name: str, folder: str = ".") -> None:
    """Write the bundle NAME, complete and small, into FOLDER/NAME."""
    from medbundles.scaffold import scaffold

    root = scaffold(str(name), Path(folder))
    print(f"wrote {root}")
    print(f"  check it:   medbundles verify {root} --trust")
    print(f"  train it:   medbundles run {root} training --trust")
    print(f"  use by name: export MEDBUNDLES_PATH={root.resolve().parent}")


def export(name: str, folder: str, zip: bool = False) -> None:
    """Copy a bundle (name or folder) into FOLDER as a stand-alone folder, or with --zip as one file."""
    from medbundles.export import export as export_bundle

    print(f"wrote {export_bundle(locate(name), Path(folder), zipped=zip)}")


def list_samples() -> None:
    """List the samples of real data with size, licence and whether they are here."""
    from medbundles.samples import SAMPLES, sample_path

    for name, sample in SAMPLES.items():
        here = sample_path(name) or "not fetched"
        print(f"{name:16} {sample.size_mb:5} MB  {sample.title}; {sample.licence}; {here}")


def fetch_sample(name: str) -> None:
    """Bring a sample into the cache and print where it lies, its source and its licence."""
    from medbundles.samples import SAMPLES, SampleError, fetch

    try:
        folder = fetch(name)
    except SampleError as error:
        raise ValueError(str(error)) from error
    print(f"{folder}\n  source: {SAMPLES[name].source}\n  licence: {SAMPLES[name].licence}")


def bench(name: str, trust: bool = False, **options: Any) -> None:
    """Run a bundle's comparison of methods; further flags are those of its comparison.main."""
    bundle = _executable(name, trust)
    main = commands.comparison(bundle)
    if options.get("help"):
        commands.show_help(main, "bench", name)
    _print(commands.call(main, (), options))


def tool(name: str, command: str | None = None, *arguments: Any, trust: bool = False, **options: Any) -> None:
    """Run a command of a bundle, e.g. a converter; without COMMAND list what the bundle offers."""
    bundle = _executable(name, trust)
    offered = commands.commands(bundle)
    if command is None:
        print(commands.describe(offered))
    elif command not in offered:
        raise ValueError(f"{bundle.name} has no command {command!r}; it has {', '.join(offered)}")
    elif options.get("help"):
        commands.show_help(offered[command], "tool", name, command)
    else:
        _print(commands.call(offered[command], arguments, options))


def _print(result: Any) -> None:
    if result is not None:
        print(result)


def _executable(target: str, trust: bool) -> BundleInfo:
    bundle = locate(target)
    if bundle.error:
        raise ValueError(f"bundle {bundle.name} cannot be used: {bundle.error}")
    if not (bundle.trusted or trust):
        _show_executed(bundle)
        sys.exit(2)
    prepare(bundle)
    return bundle


def _show_executed(bundle: BundleInfo) -> None:
    from medbundles.contract.configs import executed

    print(f"{bundle.name} is neither installed nor in MEDBUNDLES_PATH. Its configs would execute:")
    print("\n".join(f"  {line}" for line in executed(bundle)))
    print("Nothing was executed. Repeat with --trust if you trust this code.")


COMMANDS = {
    "list": list_bundles,
    "info": info,
    "run": run,
    "verify": verify,
    "new": new,
    "export": export,
    "samples": {"list": list_samples, "fetch": fetch_sample},
    "bench": bench,
    "tool": tool,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point; the user's errors are one line and exit status 1, with MEDBUNDLES_DEBUG=1 a traceback."""
    try:
        fire.Fire(COMMANDS, command=arguments, name="medbundles")
    except Exception as error:
        cause = without_wrappers(error)
        if os.environ.get("MEDBUNDLES_DEBUG") or not isinstance(cause, ValueError | OSError | ImportError):
            raise
        sys.exit(f"medbundles: {' '.join(str(cause).split())}")
