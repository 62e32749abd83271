"""`python -m medbundles`: the same as the command `medbundles`."""

from medbundles.cli import main

main()
