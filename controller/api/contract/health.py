"""Whether a remote backend answers: one value from the check that finds it out to the status that shows it."""

from __future__ import annotations

from controller.api.schema.scalars import Time
from controller.api.schema.values import ForeignValue

HOST_REFUSED = "HostRefused"
"""The reason of a backend whose name leads to an address that nothing may be sent to."""


class RemoteHealth(ForeignValue):
    """Whether a remote backend answers, in one word why (`reason`), in a sentence (`message`), and since when.

    `healthy` is None while nobody knows; then `message` says why. Unknown is never the same as down. None with a
    `reason` says that it cannot be used: something that it needs, such as a credential, is not there, or its name
    leads where nothing may be sent, so that no request may leave for it.
    """

    healthy: bool | None = None
    reason: str = ""
    message: str = ""
    since: Time | None = None

    @property
    def usable(self) -> bool:
        """Whether requests may leave for it, as far as is known. What cannot be used is no remote backend."""
        return self.healthy is not None or not self.reason


def unknown(message: str) -> RemoteHealth:
    """Build the health of a backend of which nothing is known, for this reason."""
    return RemoteHealth(message=message)
