"""The API server of the tests is a real one, and can be broken in the ways that matter."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.kube.addresses import own_address
from tests.support.kube.api_server import ApiServer, servers_of
from tests.support.kube.existing import existing_cluster
from tests.support.kube.namespaces import fresh_namespace
from tests.support.processes import Child
from tests.support.waiting import until, until_now

READ_SECRETS = {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get", "list", "watch"]}


INGRESS = {
    "apiVersion": "networking.k8s.io/v1",
    "kind": "Ingress",
    "metadata": {"name": "held"},
    "spec": {"defaultBackend": {"service": {"name": "any", "port": {"number": 80}}}},
}


def config_map(name: str, **metadata: object) -> dict[str, object]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, **metadata}}


def test_it_is_ready_and_says_its_version(api_server):
    said = api_server.kubectl("version").stdout
    assert "Server Version: v1." in said
    assert "v0.0.0" not in said


def test_a_user_may_do_what_the_rules_say_and_nothing_else(api_server, namespace):
    reader = api_server.user(namespace, "reader", READ_SECRETS)
    api_server.until_granted(namespace, "reader", READ_SECRETS)
    api_server.kubectl("get", "secrets", f"--namespace={namespace}", user=reader)
    with pytest.raises(subprocess.CalledProcessError) as refused:
        api_server.kubectl("get", "secrets", "--namespace=default", user=reader)
    assert "Forbidden" in refused.value.stderr


def test_a_namespace_takes_what_it_holds_with_it(api_server):
    with fresh_namespace(api_server) as name:
        api_server.apply(config_map("held", finalizers=["beamlit.com/held"]), namespace=name)
        # It is called otherwise in etcd.
        api_server.apply(INGRESS, namespace=name)
    active = api_server.kubectl("get", "namespaces", "--field-selector=status.phase=Active", "--output=name").stdout
    assert f"namespace/{name}" not in active.split()
    with api_server.client() as client:
        assert client.get(f"/api/v1/namespaces/{name}/configmaps/held").status_code == 404
        ingresses = f"/apis/networking.k8s.io/v1/namespaces/{name}/ingresses"
        assert client.get(f"{ingresses}/held").status_code == 404


@pytest.fixture(scope="module")
def own_api_server(tmp_path_factory):
    """An API server that tests here break, and mend again."""
    with ApiServer.running(tmp_path_factory.mktemp("own_api_server")) as server:
        yield server


def test_objects_survive_a_restart_but_not_an_empty_etcd(own_api_server):
    own_api_server.apply(config_map("kept"))
    own_api_server.stop()
    assert not own_api_server.ready()
    own_api_server.start()
    own_api_server.kubectl("get", "configmap", "kept")

    own_api_server.stop()
    own_api_server.start(empty=True)
    with pytest.raises(subprocess.CalledProcessError) as missing:
        own_api_server.kubectl("get", "configmap", "kept")
    assert "NotFound" in missing.value.stderr


def test_while_it_is_paused_it_is_silent(own_api_server):
    own_api_server.pause()
    assert not own_api_server.ready()
    own_api_server.resume()
    # It may have other things to catch up with first.
    until_now(own_api_server.ready, "it answers again")


def test_an_existing_cluster_is_used_by_an_administrator_who_leaves_again(api_server, tmp_path):
    with existing_cluster(api_server.kubeconfig, tmp_path) as cluster:
        assert cluster.token != api_server.token
        with fresh_namespace(cluster) as name:
            cluster.apply(config_map("held"), namespace=name)
        who = json.loads(cluster.kubectl("auth", "whoami", "--output=json").stdout)["status"]["userInfo"]["username"]
        # Other runs may have their own.
        binding = f"clusterrolebinding.rbac.authorization.k8s.io/{who.split(':')[2]}"
        assert binding in cluster.kubectl("get", "clusterrolebindings", "--output=name").stdout.split()
    assert binding not in api_server.kubectl("get", "clusterrolebindings", "--output=name").stdout.split()


async def test_its_processes_end_with_the_test_run_that_is_killed(tmp_path):
    runner = Child((sys.executable, "-m", "tests.kube.test_support", tmp_path), tmp_path / "log", says_ready=True)
    try:
        started = servers_of(tmp_path)
        assert len(started) == 2, started
    finally:
        runner.kill()  # And its session, in which they are not.

    async def ended() -> bool:
        return not servers_of(tmp_path)

    await until(ended, "etcd and kube-apiserver ended")


def test_an_endpoint_slice_takes_the_address_of_this_machine(api_server, namespace):
    api_server.apply(
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {"name": "replica"},
            "addressType": "IPv4",
            "endpoints": [{"addresses": [own_address()]}],
            "ports": [{"port": 8000}],
        },
        namespace=namespace,
    )


if __name__ == "__main__":
    with ApiServer.running(Path(sys.argv[1])):
        print("ready", flush=True)
        signal.pause()
