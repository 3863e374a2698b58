"""Options of the whole suite."""

import pytest
from hypothesis import HealthCheck, settings

# How long an example takes says more of the machine and its other work than of the code.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--rewrite-golden", action="store_true", help="write the expectations of tests/golden anew (make golden)"
    )
