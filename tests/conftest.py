"""Options of the whole suite."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--rewrite-golden", action="store_true", help="write the expectations of tests/golden anew (make golden)"
    )


def pytest_configure(config: pytest.Config) -> None:
    # envoy-data-plane is generated with a form of validator that pydantic has since deprecated.
    config.addinivalue_line(
        "filterwarnings", "ignore:Using `@model_validator` with mode='after' on a classmethod:DeprecationWarning"
    )
