"""The version, where even the command line can read it without the rest of the package."""

__version__ = "0.1.0"
