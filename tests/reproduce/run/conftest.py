"""The marker of tests that start Ray."""

import pytest


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "sweep: starts Ray, and takes minutes")
