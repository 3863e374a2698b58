"""A trap is tested twice: with the setting that avoids it, and without, where the trouble must really be there."""

from __future__ import annotations

import pytest

from tests.support.data_plane.mutation import Change, nothing


def with_and_without(removed: Change, name: str = "") -> pytest.MarkDecorator:
    """Parametrise a test with `change` and `held`: whether the setting is there, so that the trouble is not."""
    suffix = f" {name}" if name else ""
    return pytest.mark.parametrize(
        ("change", "held"),
        [pytest.param(nothing, True, id=f"with{suffix}"), pytest.param(removed, False, id=f"without{suffix}")],
    )
