"""teepi: a caching proxy for Python package indexes that streams while it caches."""

__version__ = "0.1.0"
