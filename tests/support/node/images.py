"""Images for the pods of a test node, made without a registry: archives as `docker save` writes them.

What stands in for an image of somebody else has that one's name and tag, so that manifests run unedited, and of its
content what the tests need. It is made of programs that are here: those of `tests.tools.binaries`, or programs of this
machine with the libraries that they are linked to. Two builds of the same content are one image.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import io
import json
import os
import re
import shutil
import ssl
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import trustme

from tests.support.node.components import PAUSE_IMAGE
from tests.support.node.missing import program
from tests.tools import binaries

CURL_IMAGE = "docker.io/curlimages/curl:latest"
MODEL_IMAGE = "registry.k8s.io/hpa-example:latest"
REMOTE_IMAGE = "docker.io/beamlit-tests/remote:latest"
LOAD_IMAGE = "docker.io/beamlit-tests/load:latest"
COREDNS_IMAGE = "registry.k8s.io/coredns/coredns:v1.13.1"
METRICS_SERVER_IMAGE = "registry.k8s.io/metrics-server/metrics-server:v0.9.0"

_WEEK = 7 * 24 * 3600.0
_SHELL = ("sh", "cat", "cp", "date", "echo", "env", "grep", "head", "id", "ls", "mkdir", "rm", "sed", "sleep", "tail")
_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
_LINKED = re.compile(r"(?:=> )?(/\S+) \(0x")
_GLIBC = ("libc.so.6", "libm.so.6", "libdl.so.2", "librt.so.1", "libpthread.so.0", "libutil.so.1", "libresolv.so.2")
_EXPECTED = (*_GLIBC, "libgcc_s.so.1", "libstdc++.so.6", "libz.so.1", "libexpat.so.1")
"""The libraries that packages of Python expect of every system, PEP 600."""
_NOT_OF_PYTHON = {"__pycache__", "test", "tests", "idlelib", "tkinter", "turtledemo", "site-packages", "dist-packages"}


@dataclass(frozen=True)
class Image:
    """An image: which file of this machine is which file in it, and how it runs."""

    name: str
    files: Mapping[str, Path]
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    texts: Mapping[str, str] = field(default_factory=dict)
    """Files that are written here, by path."""
    links: Mapping[str, str] = field(default_factory=dict)
    """Symbolic links: where to, by path."""
    user: str = ""

    def save(self, folder: Path) -> Path:
        """Write its archive into a folder and return the file; what is there already is not made again."""
        layer = self._layer()
        diff = hashlib.sha256(layer).hexdigest()
        config = json.dumps(
            {
                "architecture": {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine],
                "os": "linux",
                "config": {
                    "Entrypoint": list(self.entrypoint),
                    "Cmd": list(self.command),
                    "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
                    "User": self.user,
                },
                "rootfs": {"type": "layers", "diff_ids": [f"sha256:{diff}"]},
                # buildah counts: one line for each layer.
                "history": [{"created_by": "tests/support/node/images.py"}],
            },
            sort_keys=True,
        ).encode()
        digest = hashlib.sha256(config).hexdigest()
        file = folder / f"{re.sub('[/:]', '-', self.name)}-{digest[:12]}.tar"
        if not file.exists():
            manifest = [{"Config": f"{digest}.json", "RepoTags": [self.name], "Layers": [f"{diff}/layer.tar"]}]
            unfinished = file.with_suffix(f".{os.getpid()}")
            with tarfile.open(unfinished, "w") as archive:
                _add(archive, f"{digest}.json", config)
                _add(archive, f"{diff}/layer.tar", layer)
                _add(archive, "manifest.json", json.dumps(manifest).encode())
            unfinished.rename(file)
        return file

    def _layer(self) -> bytes:
        written = io.BytesIO()
        with tarfile.open(fileobj=written, mode="w") as layer:
            paths = {*self.files, *self.texts, *self.links}
            folders = {str(parent) for path in paths for parent in Path(path).parents} | {"/tmp", "/etc"}
            for folder in sorted(folders - {"/"}):
                entry = tarfile.TarInfo(folder.lstrip("/"))
                entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if folder == "/tmp" else 0o755
                layer.addfile(entry)
            for path in sorted(paths):
                if path in self.links:
                    entry = tarfile.TarInfo(path.lstrip("/"))
                    entry.type, entry.linkname = tarfile.SYMTYPE, self.links[path]
                    layer.addfile(entry)
                elif path in self.texts:
                    text = self.texts[path]
                    _add(layer, path.lstrip("/"), text.encode(), 0o755 if text.startswith("#!") else 0o644)
                else:
                    source = self.files[path]
                    _add(layer, path.lstrip("/"), source.read_bytes(), 0o755 if os.access(source, os.X_OK) else 0o644)
        return written.getvalue()


def base_images() -> tuple[Image, ...]:
    """Everything that the pods of the node's own components, and of any test, are made of."""
    return (
        # The runtime ends it with SIGKILL, as it does every sandbox.
        Image(PAUSE_IMAGE, of_this_machine(("sleep",)), ("/bin/sleep", "infinity")),
        Image(COREDNS_IMAGE, {"/coredns": binaries.coredns()}, ("/coredns",)),
        Image(METRICS_SERVER_IMAGE, {"/metrics-server": binaries.metrics_server()}, ("/metrics-server",), user="65534"),
        Image(MODEL_IMAGE, {"/model": binaries.pod_model()}, ("/model",)),
        Image(REMOTE_IMAGE, {"/remote": binaries.pod_remote()}, ("/remote",)),
        Image(LOAD_IMAGE, {"/load": binaries.pod_load()}, ("/load",)),
        Image(
            CURL_IMAGE,
            of_this_machine((*_SHELL, "curl")),
            ("/entrypoint",),
            texts=_PEOPLE | {"/entrypoint": _RUN_OR_CURL},
            user="100",
        ),
    )


# As that of the original: what is no command are options of curl.
_RUN_OR_CURL = """\
#!/bin/sh
case "$1" in -* | *://*) exec curl "$@" ;; esac
exec "$@"
"""
_PEOPLE = {
    "/etc/passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n",
    "/etc/group": "root:x:0:\nnogroup:x:65534:\n",
}


def remove_old_archives(folder: Path) -> None:
    """Remove the archives that were made more than a week ago: what is still needed is made again."""
    for archive in folder.glob("*.tar"):
        if archive.stat().st_mtime < time.time() - _WEEK:
            archive.unlink(missing_ok=True)


def of_this_machine(programs: Iterable[str]) -> dict[str, Path]:
    """Programs of this machine below /bin, with the shared libraries that they are linked to."""
    found = {f"/bin/{name}": Path(shutil.which(name) or program(name)).resolve() for name in programs}
    return {**found, **libraries_of(found.values())}


def libraries_of(files: Iterable[Path]) -> dict[str, Path]:
    """The shared libraries of programs and libraries, each where the loader looks for it."""
    known: dict[str, Path] = {}
    for file in files:
        # It fails for what is linked statically.
        said = subprocess.run(["ldd", str(file)], capture_output=True, text=True, check=False).stdout
        known |= {path: Path(path).resolve() for path in _LINKED.findall(said)}
    return known


def python_base(name: str, more: Mapping[str, Path] | None = None) -> Image:
    """A stand-in for an image of Python: the one that runs the tests, as /usr/local/bin/python3, with pip and a shell.

    pip is told of this machine's settings, which know where packages come from. It also believes `authority`.
    """
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    home = Path(sys.base_prefix)
    executable = Path(sys.executable).resolve()
    library = home / "lib" / f"python{version}"
    files: dict[str, Path] = {f"/usr/local/bin/python{version}": executable}
    files |= {f"/usr/local/lib/python{version}/{path.relative_to(library)}": path for path in _python_files(library)}
    packages = Path(str(importlib.metadata.distribution("pip").locate_file("")))
    files |= {
        f"/usr/local/lib/python{version}/site-packages/{path.relative_to(packages)}": path
        for path in _python_files(packages / "pip")
    }
    links = {"/usr/local/bin/python3": f"python{version}", "/usr/local/bin/python": f"python{version}"}
    for shared in home.glob("lib/libpython3*.so*"):
        files[f"/usr/local/lib/{shared.name}"] = shared.resolve()
    files |= of_this_machine(("bash", *_SHELL, "chmod", "chown", "ln", "mv", "touch", "tr", "uname", "which", "curl"))
    files |= _system_libraries(_EXPECTED)
    files |= libraries_of(path for path in files.values() if ".so" in path.name or path == executable)
    files |= dict(more or {})
    # Where OpenSSL looks is a choice of who built it.
    links[str(ssl.get_default_verify_paths().openssl_cafile)] = "/etc/ssl/certs/ca-certificates.crt"
    trusted = _CERTIFICATES.read_text() + authority().cert_pem.bytes().decode()
    texts = {
        **_PEOPLE,
        "/etc/pip.conf": pip_settings(),
        "/etc/ssl/certs/ca-certificates.crt": trusted,
        "/usr/local/bin/pip": _PIP,
    }
    return Image(name, files, (), ("/usr/local/bin/python3",), texts, links)


_PIP = '#!/bin/sh\nexec python3 -m pip "$@"\n'


def _system_libraries(names: Iterable[str]) -> dict[str, Path]:
    """Libraries by their names, where the loader of this machine finds them."""
    known = subprocess.run([program("ldconfig"), "-p"], capture_output=True, text=True, check=True).stdout
    found = (re.search(rf"^\s*{re.escape(name)} .*=> (/\S+)$", known, re.MULTILINE) for name in names)
    return {one[1]: Path(one[1]).resolve() for one in found if one}


def authority() -> trustme.CA:
    """Who signs for the platform's names on a test node (see `platform`). Images believe it, so it stays the same.

    It lies in this user's cache, and nothing but these images believes it.
    """
    file = binaries.cache() / "images" / "authority.pem"
    file.parent.mkdir(exist_ok=True)
    if not file.exists():
        made = trustme.CA(organization_name="beamlit-controller tests")
        unfinished = file.with_suffix(f".{os.getpid()}")
        unfinished.touch(mode=0o600)
        unfinished.write_bytes(made.private_key_pem.bytes() + made.cert_pem.bytes())
        # Of two who make one at a time, one is kept.
        with contextlib.suppress(FileExistsError):
            os.link(unfinished, file)
        unfinished.unlink()
    pem = file.read_bytes()
    begin = pem.index(b"-----BEGIN CERTIFICATE")
    return trustme.CA.from_pem(pem[begin:], pem[:begin])


def pip_settings() -> str:
    """What pip is told on this machine, as a file of settings."""
    said = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True
    ).stdout
    settings = dict(re.findall(r"^(?:global|user|site|install|:env:)\.([a-z-]+)='(.*)'$", said, re.MULTILINE))
    return "".join(["[global]\n", *(f"{key} = {value}\n" for key, value in settings.items() if key != "find-links")])


def _python_files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            if path.name not in _NOT_OF_PYTHON and not path.name.startswith("config-"):
                yield from _python_files(path)
        elif path.suffix != ".a":
            yield path


def _add(archive: tarfile.TarFile, path: str, content: bytes, mode: int = 0o644) -> None:
    entry = tarfile.TarInfo(path)
    entry.size, entry.mode = len(content), mode
    archive.addfile(entry, io.BytesIO(content))


if __name__ == "__main__":
    into = Path(sys.argv[1])
    into.mkdir(parents=True, exist_ok=True)
    for image in base_images():
        print(image.save(into))
