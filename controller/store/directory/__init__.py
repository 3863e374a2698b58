"""An object store over a folder of YAML and JSON files, for use without Kubernetes.

::

    files -> settling -> checking -> arrangement -> identity -> watches
     I/O       pure        pure         pure          pure      asyncio

`files` lists and reads, `settling` says which files have come to rest, `checking` turns a text into objects or
problems, `arrangement` says which file holds an object that several claim, `identity` gives an object what the API
server would (uid, generation, resourceVersion). `state` keeps what must survive a restart; `store` is the one task that
runs all this.
"""

from controller.store.directory.store import DirectoryStore

__all__ = ["DirectoryStore"]
