"""Fixtures of the command line tests."""

from cli_runner import clip, coded, large, run

__all__ = ["clip", "coded", "large", "run"]
