"""The version of this library, the same as that of its distribution."""

__version__ = "0.1.0"
