"""An API server that several processes share is there for the first, and ends with the last of them."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path

from tests.support.kube.api_server import servers_of
from tests.support.kube.shared import shared_cluster
from tests.support.processes import Child
from tests.support.waiting import until


class User(Child):
    """A process that uses the server of a folder, and has a folder of its own in it."""

    def __init__(self, folder: Path, name: str) -> None:
        self._own = folder / name
        self._own.mkdir()
        super().__init__(
            (sys.executable, "-m", "tests.kube.test_support_shared", folder, self._own),
            folder / f"{name}.log",
            says_ready=True,
        )

    @property
    def server(self) -> str:
        """Where its server is."""
        kubeconfig = json.loads((self._own / "admin.kubeconfig").read_text())
        (cluster,) = kubeconfig["clusters"]
        return str(cluster["cluster"]["server"])


async def test_it_ends_with_its_last_user_though_that_is_killed(tmp_path: Path) -> None:
    first = User(tmp_path, "first")
    second = User(tmp_path, "second")
    try:
        assert first.server == second.server
        first.kill()
        # The server does not go with who started it.
        assert len(servers_of(tmp_path)) == 2
    finally:
        first.kill()
        second.kill()

    async def ended() -> bool:
        return not servers_of(tmp_path)

    await until(ended, "etcd and kube-apiserver ended", within=30)
    # Who comes now has another one.
    late = User(tmp_path, "late")
    late.kill()
    assert late.server != first.server
    await until(ended, "etcd and kube-apiserver ended", within=30)


if __name__ == "__main__":
    with shared_cluster(Path(sys.argv[1]) / "shared", Path(sys.argv[2])):
        print("ready", flush=True)
        signal.pause()
