"""Checks of the bundle's Python package: its name, its import, and that nothing heavy comes with it."""

from __future__ import annotations

import subprocess
import sys

from medbundles.bundle import BundleInfo, make_importable

HEAVY = ("transformers", "peft", "gradio", "matplotlib", "sklearn")
# torch, MONAI and Ignite look for some of these themselves. The guard hides them all and reports what anyone
# else asks for; who asks shows in the stack of the import.
PROBE = """
import sys
heavy, package, folder = sys.argv[1].split(","), sys.argv[2], sys.argv[3]
asked = set()
class Guard:
    def find_spec(self, name, path=None, target=None):
        top = name.split(".")[0]
        if top not in heavy:
            return None
        frame, importers = sys._getframe(1), set()
        while frame:
            importers.add(frame.f_globals.get("__name__", "").split(".")[0])
            frame = frame.f_back
        if not importers & {"torch", "monai", "ignite"}:
            asked.add(top)
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Guard())
sys.path.insert(0, folder)
try:
    __import__(package)
except ModuleNotFoundError as error:
    if error.name is None or error.name.split(".")[0] not in heavy:
        raise
print("asked:" + ",".join(sorted(asked)))
"""


def code_problems(info: BundleInfo) -> list[str]:
    """Why the bundle's package cannot be used; imports it, here and in a process of its own."""
    if info.package.split(".")[-1] == "scripts":
        return ["package: must have the bundle's own name, 'scripts' is shared by every zoo bundle"]
    try:
        make_importable(info)
    except ValueError as problem:
        return [f"package: {problem}"]
    return heavy_imports(info)


def heavy_imports(info: BundleInfo) -> list[str]:
    """Large packages that `import <package>` pulls in beyond torch and MONAI, or why that import fails."""
    folder = info.package_dir.parents[info.package.count(".")]
    command = [sys.executable, "-W", "ignore", "-c", PROBE, ",".join(HEAVY), info.package, str(folder)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        reason = result.stderr.strip().splitlines()[-1] if result.stderr.strip() else "no message"
        return [f"package: import {info.package} fails: {reason}"]
    asked = result.stdout.rsplit("asked:", 1)[-1].strip()
    return [f"package: import {info.package} must not import {asked}"] if asked else []
