"""Two processes never have the same address, and one never has it twice."""

import socket
import subprocess
import sys
from contextlib import ExitStack

import pytest

from controller.api.resources.configuration import Configuration
from controller.frontend.ports import AllocatedPorts
from controller.programs.configuration import ports_of_programs
from tests.support.network import PORT_BLOCKS, Network, is_free, unused_port
from tests.support.processes import ROOT, ends_with_me

pytestmark = pytest.mark.long

COUNT = 300
PROGRAM = f"""
import sys
from tests.support.network import Network, unused_port
print(*(unused_port() for _ in range({COUNT})))
print(*(Network.unused().prefix for _ in range({COUNT})))
sys.stdin.read()
"""


def test_none_is_one_that_no_model_is_given():
    own = ports_of_programs(Configuration(), ())
    assert own
    assert not {port // 100 * 100 for port in own} & {*PORT_BLOCKS}


def test_none_is_one_that_the_first_models_are_given():
    first = AllocatedPorts().first
    assert not {first, first + 99} & {port for block in PORT_BLOCKS for port in range(block, block + 100)}


def test_a_port_is_taken_whichever_family_of_addresses_somebody_has_it_at():
    for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        port = unused_port()
        assert is_free(port)
        with socket.socket(family) as other:
            other.bind((address, port))
            other.listen()
            assert not is_free(port), address


def test_addresses_are_handed_out_once():
    ports, networks = list[str](), list[str]()
    command = [sys.executable, "-c", PROGRAM]
    with ExitStack() as stack:
        others = [
            stack.enter_context(
                subprocess.Popen(
                    ends_with_me(command), cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
                )
            )
            for _ in range(2)
        ]
        ports += (str(unused_port()) for _ in range(COUNT))
        networks += (Network.unused().prefix for _ in range(COUNT))
        for other in others:
            ports += other.stdout.readline().split()
            networks += other.stdout.readline().split()
    assert len(set(ports)) == len(ports) == 3 * COUNT
    assert len(set(networks)) == len(networks) == 3 * COUNT


def test_a_port_can_be_listened_on_at_every_address():
    with socket.create_server(("", unused_port())) as server, socket.create_connection(server.getsockname()):
        pass


def test_the_hosts_of_a_network_are_loopback():
    with socket.create_server((Network.unused().host(254), unused_port())) as server:
        assert server.getsockname()[0].startswith("127.")
