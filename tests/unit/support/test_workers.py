"""Workers: when there are none. What becomes of their tests is shown by `tests/e2e/test_runner.py`."""

from types import SimpleNamespace

import pytest

from tests.support import workers


@pytest.mark.parametrize(
    ("options", "distributes"), [({"--workers": 2}, True), ({"--workers": 2, "usepdb": True}, False)]
)
def test_a_debugger_that_reads_from_the_terminal_has_no_workers(options, distributes):
    plugins = pytest.PytestPluginManager()
    workers.pytest_configure(SimpleNamespace(getoption=options.get, pluginmanager=plugins))
    assert plugins.has_plugin("distribution") is distributes
