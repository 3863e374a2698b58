"""The store over a real API server keeps the promises that the directory store keeps."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from controller.store.kube import KubeClient, KubeStore
from tests.support.kube.cluster import Cluster
from tests.support.kube.namespaces import fresh_namespace
from tests.support.kube.user import UserHand
from tests.support.store_contract import StoreContract


class ServerStage(UserHand):
    def __init__(self, cluster: Cluster, store: KubeStore, home: str, away: str) -> None:
        super().__init__(cluster)
        self.store = store
        self.home = home
        self.away = away


@pytest.mark.usefixtures("crds")
class TestKubeStore(StoreContract):
    @pytest.fixture
    async def stage(self, api_server: Cluster, namespace: str) -> AsyncIterator[ServerStage]:
        with fresh_namespace(api_server) as away:
            async with (
                KubeClient.from_environment(api_server.kubeconfig) as client,
                KubeStore(client, ("ModelDeployment", "Secret"), (namespace, away)) as store,
            ):
                yield ServerStage(api_server, store, namespace, away)
