"""What runs on a node, and how each program is told where it is: the flags of a small cluster made by hand.

Everybody is an administrator here, as a test node has no secrets from itself: components have the administrator's
kubeconfig, and the kubelet asks nobody. What the product may do is Kubernetes' to decide all the same: its service
accounts have the roles that it is installed with, and the API server's own access rules hold.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tests.support.kube import audit
from tests.support.node.missing import CNI_PLUGINS
from tests.support.node.namespaces import PODS, PODS6, SERVICES, SERVICES6, Namespaces
from tests.tools import binaries

ProxyMode = Literal["nftables", "iptables"]

NAME = "node"
DNS = "10.202.0.10"
API_SERVICE = "10.202.0.1"
"""The addresses of the Services `kube-dns` and `kubernetes`."""
DOMAIN = "cluster.local"
PAUSE_IMAGE = "registry.k8s.io/pause:3.10"
FRONT_PROXY = "front-proxy-client"
PORT = 6443
"""Of the API server."""

_CNI = {
    "cniVersion": "1.0.0",
    "name": "pods",
    "plugins": [
        # Point to point, not a bridge: then all that pods send passes through the node, as kube-proxy needs it.
        {
            "type": "ptp",
            "ipMasq": False,
            "ipam": {
                "type": "host-local",
                "ranges": [[{"subnet": PODS}], [{"subnet": PODS6}]],
                "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
            },
        },
    ],
}

_CONTAINERD = """\
version = 3
root = "{folder}/containerd/root"
state = "{folder}/containerd/state"
[grpc]
  address = "{folder}/containerd.sock"
[plugins.'io.containerd.cri.v1.runtime']
  restrict_oom_score_adj = true
  disable_apparmor = true
  [plugins.'io.containerd.cri.v1.runtime'.cni]
    bin_dirs = ["{plugins}"]
    conf_dir = "{folder}/cni"
  [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
[plugins.'io.containerd.cri.v1.images'.pinned_images]
  sandbox = "{pause}"
"""


@dataclass(frozen=True, slots=True)
class Components:
    """The programs of one node: each a command, to be run inside its namespaces."""

    folder: Path
    place: Namespaces
    kubeconfig: Path

    @property
    def socket(self) -> Path:
        """Where containerd listens."""
        return self.folder / "containerd.sock"

    @property
    def _etcd(self) -> str:
        return "http://127.0.0.1:2379"

    def etcd(self) -> tuple[object, ...]:
        """All objects. It does not wait for the disk: what it knows survives a kill, but not the machine's."""
        peers = "http://127.0.0.1:2380"
        return (
            binaries.etcd(),
            "--name=node",
            f"--data-dir={self.folder / 'etcd'}",
            "--unsafe-no-fsync",
            f"--listen-client-urls={self._etcd}",
            f"--advertise-client-urls={self._etcd}",
            f"--listen-peer-urls={peers}",
            f"--initial-advertise-peer-urls={peers}",
            f"--initial-cluster=node={peers}",
        )

    @property
    def audit_log(self) -> Path:
        """Where the API server writes what service accounts do."""
        return self.folder / "audit.log"

    def kube_apiserver(self) -> tuple[object, ...]:
        """The API server, with the aggregation layer."""
        pem, front = self.folder / "serving.pem", self.folder / "front.pem"
        (policy := self.folder / "audit-policy.json").write_text(json.dumps(audit.POLICY))
        return (
            binaries.kube_apiserver(),
            f"--etcd-servers={self._etcd}",
            "--bind-address=0.0.0.0",
            f"--advertise-address={self.place.address}",
            f"--secure-port={PORT}",
            f"--service-cluster-ip-range={SERVICES},{SERVICES6}",
            f"--tls-cert-file={pem}",
            f"--tls-private-key-file={pem}",
            f"--cert-dir={self.folder}",
            "--authorization-mode=Node,RBAC",
            f"--token-auth-file={self.folder / 'tokens.csv'}",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={pem}",
            f"--service-account-signing-key-file={pem}",
            "--allow-privileged=true",
            "--kubelet-preferred-address-types=InternalIP",
            "--enable-aggregator-routing=true",
            f"--requestheader-client-ca-file={self.folder / 'front-ca.pem'}",
            f"--requestheader-allowed-names={FRONT_PROXY}",
            "--requestheader-username-headers=X-Remote-User",
            "--requestheader-group-headers=X-Remote-Group",
            "--requestheader-extra-headers-prefix=X-Remote-Extra-",
            f"--proxy-client-cert-file={front}",
            f"--proxy-client-key-file={front}",
            f"--audit-policy-file={policy}",
            f"--audit-log-path={self.audit_log}",
        )

    def kube_controller_manager(self) -> tuple[object, ...]:
        """All its controllers; a node that is slow for two minutes, since others compile, is not given up."""
        return (
            binaries.kube_controller_manager(),
            f"--kubeconfig={self.kubeconfig}",
            f"--service-account-private-key-file={self.folder / 'serving.pem'}",
            f"--root-ca-file={self.folder / 'ca.pem'}",
            "--use-service-account-credentials=true",
            "--leader-elect=false",
            "--node-monitor-grace-period=2m",
            "--bind-address=127.0.0.1",
        )

    def kube_scheduler(self) -> tuple[object, ...]:
        """It has one node to choose from."""
        return (
            binaries.kube_scheduler(),
            f"--kubeconfig={self.kubeconfig}",
            "--leader-elect=false",
            "--bind-address=127.0.0.1",
        )

    def containerd(self) -> tuple[object, ...]:
        """The runtime of the pods. It finds its shim and runc by name."""
        programs = self.folder / "bin"
        programs.mkdir(exist_ok=True)
        _link(programs / "containerd-shim-runc-v2", binaries.containerd_shim())
        (self.folder / "cni").mkdir(exist_ok=True)
        cni = json.loads(json.dumps(_CNI))
        cni["plugins"][0]["ipam"]["dataDir"] = str(self.folder / "cni-state")
        self._write("cni/10-pods.conflist", cni)
        config = self.folder / "containerd.toml"
        config.write_text(_CONTAINERD.format(folder=self.folder, plugins=CNI_PLUGINS, pause=PAUSE_IMAGE))
        path = f"PATH={programs}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        return ("/usr/bin/env", path, binaries.containerd(), f"--config={config}")

    def kubelet(self) -> tuple[object, ...]:
        """What makes pods of objects. Without CAP_SYS_RESOURCE nobody may lower an OOM score: it leaves them alone."""
        (self.folder / "resolv.conf").write_text("")
        config = self._write(
            "kubelet.yaml",
            {
                "apiVersion": "kubelet.config.k8s.io/v1beta1",
                "kind": "KubeletConfiguration",
                "failCgroupV1": False,
                "failSwapOn": False,
                "cgroupDriver": "cgroupfs",
                "cgroupRoot": f"/{self.place.cgroup}",
                "oomScoreAdj": 0,
                "containerRuntimeEndpoint": f"unix://{self.socket}",
                "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
                "authorization": {"mode": "AlwaysAllow"},
                "clusterDNS": [DNS],
                "clusterDomain": DOMAIN,
                "resolvConf": str(self.folder / "resolv.conf"),
                # Signed by the cluster's authority, so that metrics-server need not be told to believe anybody.
                "tlsCertFile": str(self.folder / "kubelet.pem"),
                "tlsPrivateKeyFile": str(self.folder / "kubelet.pem"),
                # Other programs fill the disk of a developer's machine; that is no reason to evict pods.
                "evictionHard": {
                    "imagefs.available": "0%",
                    "memory.available": "0%",
                    "nodefs.available": "0%",
                    "nodefs.inodesFree": "0%",
                },
                "imageGCHighThresholdPercent": 100,
                "enforceNodeAllocatable": [],
                "podLogsDir": str(self.folder / "log" / "pods"),
            },
        )
        return (
            binaries.kubelet(),
            f"--config={config}",
            f"--kubeconfig={self.kubeconfig}",
            f"--node-ip={self.place.address},{self.place.address6}",
            f"--hostname-override={NAME}",
            f"--root-dir={self.folder / 'kubelet'}",
            f"--cert-dir={self.folder / 'kubelet-pki'}",
        )

    def kube_proxy(self, mode: ProxyMode) -> tuple[object, ...]:
        """What makes addresses of Services lead to pods. The machine's conntrack table keeps its size."""
        config = self._write(
            "kube-proxy.yaml",
            {
                "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
                "kind": "KubeProxyConfiguration",
                "mode": mode,
                "clientConnection": {"kubeconfig": str(self.kubeconfig)},
                "hostnameOverride": NAME,
                "oomScoreAdj": 0,
                "clusterCIDR": f"{PODS},{PODS6}",
                "conntrack": {
                    "maxPerCore": 0,
                    "min": 0,
                    "tcpEstablishedTimeout": "0s",
                    "tcpCloseWaitTimeout": "0s",
                },
            },
        )
        return (binaries.kube_proxy(), f"--config={config}")

    def _write(self, name: str, raw: Mapping[str, Any]) -> Path:
        file = self.folder / name
        file.write_text(json.dumps(raw, indent=1))
        return file


def _link(name: Path, program: Path) -> None:
    name.unlink(missing_ok=True)
    name.symlink_to(program)
