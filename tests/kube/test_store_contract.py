"""The store over a real API server keeps the promises that the directory store keeps."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from controller.store.kube import KubeClient, KubeStore
from tests.kube.support.cluster import Cluster
from tests.kube.support.namespaces import fresh_namespace
from tests.kube.support.user import UserHand
from tests.store.contract import StoreContract


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
