"""An object store over a folder of YAML and JSON files, for use without Kubernetes.

::

    files -> checking -> folder -> objects -> store -> watches
     I/O       pure       pure      pure      asyncio  asyncio

`files` lists and reads, and says which files are at rest; `checking` turns a text into objects or problems; `folder`
says which file defines an object that several claim; `objects` gives an object what the API server would (uid,
generation, resourceVersion) and holds what programs write, by the rules of `fields`. `state` keeps what must survive a
restart; `store` is the one task that runs all this.
"""

from controller.store.directory.store import DirectoryStore

__all__ = ["DirectoryStore"]
