"""zelect: elects one controller among a fixed set of processes.

Importing this package imports nothing else, so that the command line starts at once.
"""

from __future__ import annotations

__all__ = ["__version__"]

__version__ = "0.1.0"
