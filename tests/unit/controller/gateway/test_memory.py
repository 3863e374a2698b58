"""How much memory a process may have, by its control groups."""

import os

import pytest

from controller.gateway.memory import memory_limit

HOST = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def limit(tmp_path, groups, **limits):
    """Read from a listing of groups, and the files in which they say their limits (`__` is a slash)."""
    (tmp_path / "cgroup").write_text(groups)
    for name, text in limits.items():
        path = tmp_path / "fs" / name.replace("__", "/").replace("_max", ".max").replace("_limit", ".limit_in_bytes")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return memory_limit(tmp_path / "cgroup", tmp_path / "fs")


@pytest.mark.parametrize(
    ("groups", "limits", "bytes_"),
    [
        ("0::/a/b\n", {"a__b__memory_max": "4096\n"}, 4096),
        ("0::/a/b\n", {"a__b__memory_max": "max\n", "a__memory_max": "8192\n"}, 8192),
        ("0::/a/b\n", {"a__b__memory_max": "8192\n", "a__memory_max": "4096\n"}, 4096),
        # In a container, the path is the host's and the group the root.
        ("0::/kubepods/pod1\n", {"memory_max": "4096\n"}, 4096),
        ("3:cpu,cpuacct:/a\n2:memory:/a\n0::/\n", {"memory__a__memory_limit": "4096\n"}, 4096),
        ("2:memory:/docker/1\n", {"memory__memory_limit": "4096\n"}, 4096),
        ("2:memory:/a\n", {"memory__a__memory_limit": "9223372036854771712\n"}, HOST),
        ("0::/\n", {"memory_max": "max\n"}, HOST),
        ("0::/a:b\n", {"a:b__memory_max": "4096\n"}, 4096),
        ("", {}, HOST),
    ],
)
def test_it_is_the_least_of_all_groups_or_what_the_host_has(tmp_path, groups, limits, bytes_):
    assert limit(tmp_path, groups, **limits) == bytes_


def test_without_control_groups_it_is_what_the_host_has(tmp_path):
    assert memory_limit(tmp_path / "cgroup", tmp_path) == HOST
