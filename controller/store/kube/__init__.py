"""The object store over the Kubernetes API server, and the only code that knows its client library.

::

    access -> client -> objects -> reflector -> collection -> store -> watches
     I/O       I/O       I/O         I/O          pure       asyncio   asyncio

`access` says where the API server is and who we are, `client` asks it (raw JSON, time limits, retries), `answers` says
what the answers mean, `objects` reads and writes single objects, `reflector` keeps one kind up to date by list and
watch, `collection` decides what of all that is believed, `store` puts the kinds together. Importing this package does
not import the client library, which takes more than a second: `access` does, when a client is opened.
"""

from controller.store.kube.client import KubeClient
from controller.store.kube.store import KubeStore

__all__ = ["KubeClient", "KubeStore"]
