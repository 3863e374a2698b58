"""What a machine needs for a node, and what of it is not there."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

CNI_PLUGINS = Path("/usr/lib/cni")
_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_PACKAGES = {
    "runc": "runc",
    "nft": "nftables",
    "iptables": "iptables",
    "conntrack": "conntrack",
    "buildah": "buildah",
    "ip": "iproute2",
    "unshare": "util-linux",
    "nsenter": "util-linux",
    "curl": "curl",
    "openssl": "openssl",
    "ldconfig": "libc-bin",
}
"""The Debian packages of the programs that a node calls. Everything else is built from source."""
_ELSEWHERE = "BEAMLIT_TEST_KUBECONFIG names the kubeconfig of a cluster to use instead"


def program(name: str) -> str:
    """The path of one of them; sbin counts, wherever PATH leads."""
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:{_SYSTEM_PATH}")
    assert found, f"{name} is not installed: {install_command((_PACKAGES[name],))}"
    return found


def missing() -> str:
    """What this machine lacks for a node of its own, and how to get it; empty when it lacks nothing."""
    if sys.platform != "linux":
        return f"a Kubernetes node runs on Linux, and this is {sys.platform}: {_ELSEWHERE}"
    if os.geteuid() != 0:
        return f"a Kubernetes node needs root (mounts, networks, cgroups): {_ELSEWHERE}"
    packages = missing_packages()
    return f"for a Kubernetes node, packages are missing here: {install_command(packages)}" if packages else ""


def missing_packages() -> tuple[str, ...]:
    """The Debian packages that are not installed."""
    path = f"{os.environ.get('PATH', '')}:{_SYSTEM_PATH}"
    lacking = {package for name, package in _PACKAGES.items() if not shutil.which(name, path=path)}
    if not (CNI_PLUGINS / "ptp").exists():
        lacking.add("containernetworking-plugins")
    return tuple(sorted(lacking))


def install_command(packages: tuple[str, ...]) -> str:
    """The one command that installs them."""
    return f"apt-get update && apt-get install --yes --no-install-recommends {' '.join(packages)}"


if __name__ == "__main__":
    print(" ".join(missing_packages()) if sys.argv[1:] == ["--packages"] else missing())
