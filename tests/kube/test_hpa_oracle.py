"""The table of cases in tests/support/hpa_cases.py, put to the real HorizontalPodAutoscaler.

All cases are set up before the first is looked at: metrics-server needs twenty seconds to know the CPU of a pod, of one
as of a hundred.
"""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from tests.support.hpa_cases import CASES, Case, Says
from tests.support.kube.hpa import judged
from tests.support.kube.metrics_apis import MetricsApis


@pytest.fixture(scope="module")
def judgements(metrics_apis: MetricsApis) -> Mapping[str, Says]:
    """What the autoscaler says of each case, by its name."""
    return judged(metrics_apis, CASES)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_table_says_what_the_autoscaler_says(case: Case, judgements: Mapping[str, Says]) -> None:
    assert judgements[case.name] == case.says
