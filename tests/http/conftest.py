"""Fixtures of the tests over HTTP."""

from tests.http.clock import clock

__all__ = ["clock"]
