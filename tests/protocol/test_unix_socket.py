"""A socket file instead of a port: a real Envoy joins there, and no server takes the file of another that runs."""

import contextlib
import shutil
import socket
import stat
import tempfile
from pathlib import Path

import pytest

from controller.gateway.bootstrap import UnixSocket
from tests.support.envoy import Envoy
from tests.support.network import unused_port
from tests.support.protocol.envoy_resources import answers, model, upstream
from tests.support.protocol.xds_client import TOKEN, Served
from tests.support.waiting import until
from xds_server.stream.server.server import AddressInUseError


@pytest.fixture
def path():
    # The folders that pytest makes have longer names than a socket may have.
    folder = Path(tempfile.mkdtemp(prefix="beamlit-"))
    yield folder / "xds.sock"
    shutil.rmtree(folder)


@contextlib.asynccontextmanager
async def serving(path: Path):
    served = await Served.start(f"unix:{path}")
    try:
        yield served
    finally:
        await served.stop()


async def test_an_envoy_joins_at_a_socket_file_that_its_user_and_group_may_open(path, tmp_path):
    port = unused_port()
    async with upstream() as backend, serving(path) as served:
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        served.publish(*model("ns/m", port, backend))
        envoy = Envoy.joining("envoy-1", TOKEN, UnixSocket(path), tmp_path, workers=1)
        try:
            await envoy.started()
            await until(lambda: answers(port), "the model answers")
            (client,) = served.server.clients()
            assert (client.node_id, client.authorised) == ("envoy-1", True)
        finally:
            await envoy.stop()


async def test_the_file_of_a_server_that_is_gone_is_taken_and_that_of_one_that_runs_is_not(path):
    with socket.socket(socket.AF_UNIX) as gone:
        gone.bind(str(path))
    async with serving(path) as first:
        first.publish(*model("ns/m", 8080, 9090))
        with pytest.raises(AddressInUseError, match="another program listens at"):
            await Served.start(f"unix:{path}")
        # It was not taken away from the one that has it.
        with socket.socket(socket.AF_UNIX) as asking:
            asking.connect(str(path))
    async with serving(path):
        pass


async def test_what_is_no_socket_is_left_alone(path):
    path.write_text("somebody's notes")
    with pytest.raises(AddressInUseError, match="is there, and is no socket"):
        await Served.start(f"unix:{path}")
    assert path.read_text() == "somebody's notes"


async def test_a_folder_that_is_not_there_is_told(path):
    with pytest.raises(AddressInUseError, match="gone is no folder in which this program may make it"):
        await Served.start(f"unix:{path.parent}/gone/xds.sock")
