"""Whose a token is, as the API server says it."""

import pytest

from controller.programs.token_reviews import reviewed_by
from controller.store.protocol import ForbiddenError, UnavailableError
from xds_server.stream.callers import CannotTellError


class SilentApiServer:
    def __init__(self, error: Exception) -> None:
        self._error = error

    async def request(self, *_: object, **__: object) -> dict[str, object]:
        raise self._error


@pytest.mark.parametrize("error", [ForbiddenError("no right"), UnavailableError("away")])
async def test_that_tokens_cannot_be_looked_at_is_told_once_and_not_for_each_of_them(error, caplog):
    review = reviewed_by(SilentApiServer(error), "beamlit-xds")
    for _ in range(20):
        with pytest.raises(CannotTellError):
            await review("secret-token")
    (line,) = [one for one in caplog.records if one.message.startswith("tokens cannot be looked at")]
    assert "secret-token" not in str(line.__dict__)
