"""ReCT-VLM and what it loses without each of its parts, simulated scans: `medbundles bench rect_vlm`."""

from rect_vlm.comparison.driver import main

__all__ = ["main"]
