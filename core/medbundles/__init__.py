"""Medical-imaging methods as MONAI Bundles on one thin shared core: find a bundle and load it.

>>> import medbundles
>>> workflow = medbundles.load("react_kd", "inference")
"""

__version__ = "0.1.0"

from medbundles.registry import discover, get, load

__all__ = ["__version__", "discover", "get", "load"]
