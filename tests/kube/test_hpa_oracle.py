"""The table of cases in tests/support/hpa_table.py, put to the real HorizontalPodAutoscaler and to us.

Both ask the same API server, metrics-server and adapter. All cases are set up before the first is looked at:
metrics-server needs twenty seconds to know the CPU of a pod, of one as of a hundred.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest

from controller.decision.facts import Signal
from controller.store.kube import KubeClient
from tests.support.hpa_cases import Case, Says
from tests.support.hpa_signals import disagreements, signals_of
from tests.support.hpa_table import CASES
from tests.support.kube.hpa import Stage
from tests.support.kube.metrics_apis import MetricsApis

pytestmark = pytest.mark.timeout(600)  # the first test sets up all cases

Signals = tuple[Signal, ...]


@pytest.fixture(scope="module")
def stage(metrics_apis: MetricsApis) -> Stage:
    """All cases, measured."""
    return Stage.of(metrics_apis, CASES)


@pytest.fixture(scope="module")
def judgements(stage: Stage) -> Mapping[str, Says]:
    """What the autoscaler says of each case, by its name."""
    return stage.judge(CASES)


@pytest.fixture(scope="module")
def signals(stage: Stage) -> Mapping[str, Signals]:
    """What we make of each case, by its name."""

    async def measure() -> Mapping[str, Signals]:
        # Pods are as young as they were when they were written, however long it took to measure them.
        async with KubeClient.from_environment(stage.apis.server.kubeconfig) as client:
            return {
                case.name: await signals_of(case, client, stage.places[case.name], lambda: stage.at) for case in CASES
            }

    return asyncio.run(measure())


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_table_says_what_the_autoscaler_says(case: Case, judgements: Mapping[str, Says]) -> None:
    assert judgements[case.name] == case.says


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_our_signals_agree_with_the_autoscaler(
    case: Case, judgements: Mapping[str, Says], signals: Mapping[str, Signals]
) -> None:
    assert disagreements(signals[case.name], judgements[case.name], case.tolerance) == []
