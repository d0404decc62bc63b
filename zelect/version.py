"""The release. Here alone: `setup.py` reads it, and a module inside can name it without the top package."""

__version__ = "0.1.0"
