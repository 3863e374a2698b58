"""Two authorities that know nothing of each other."""

from __future__ import annotations

import pytest

from tests.support.checked_servers import Authority


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture(scope="module")
def another() -> Authority:
    return Authority()
