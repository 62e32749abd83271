"""Four medical-imaging methods as MONAI Bundles on one thin shared core."""

__version__ = "0.1.0"
