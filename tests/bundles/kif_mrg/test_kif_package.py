"""Importing the bundle: the package itself loads nothing, and no module draws a random number."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import importlib, pkgutil, random, sys
import kif_mrg
heavy = {"transformers", "tokenizers", "sklearn", "PIL", "pydicom", "matplotlib", "torch"} & set(sys.modules)
assert not heavy, heavy
import monai.networks.nets, numpy, torch, transformers

def state():
    return torch.get_rng_state().tolist(), numpy.random.get_state()[1].tolist(), random.getstate()

before = state()
names = [module.name for module in pkgutil.walk_packages(kif_mrg.__path__, "kif_mrg.")]
for name in names:
    importlib.import_module(name)
assert state() == before
print(len(names))
"""


def test_the_package_is_light_and_its_modules_leave_the_generators_alone() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) > 50
