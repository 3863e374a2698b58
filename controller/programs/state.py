"""Where `beamlit` keeps what must survive a restart: a folder of the user's own, never the watched one."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path


class StateError(Exception):
    """The state folder cannot be used; the message says which and why."""


def default_state_directory(environ: Mapping[str, str] = os.environ) -> Path:
    """Return `$BEAMLIT_STATE_DIR`, or the place the XDG base directory specification gives to state."""
    if chosen := environ.get("BEAMLIT_STATE_DIR"):
        return Path(chosen)
    if base := environ.get("XDG_STATE_HOME"):
        return Path(base) / "beamlit"
    return Path(environ.get("HOME") or Path.home()) / ".local" / "state" / "beamlit"


@dataclass(frozen=True, slots=True)
class State:
    """The state folder (mode 0700): statuses by watched folder, and the token that Envoys of this user carry."""

    directory: Path

    def objects_of(self, watched: Path) -> Path:
        """Name the file that keeps the statuses of the objects in one watched folder."""
        digest = hashlib.blake2b(str(watched.resolve()).encode(), digest_size=6).hexdigest()
        return self.directory / "folders" / f"{watched.resolve().name}-{digest}.json"

    def envoy_of(self, watched: Path) -> Path:
        """Name the folder of the Envoy that serves one watched folder."""
        return self.directory / "envoy" / self.objects_of(watched).stem

    @contextlib.contextmanager
    def held(self, watched: Path) -> Iterator[None]:
        """Keep what belongs to one watched folder to this process during the block.

        The lock ends with the process, however that ends. Raises StateError when another has it, or when a file or a
        folder cannot be made.
        """
        path = self.objects_of(watched).with_suffix(".lock")
        try:
            for folder in (path.parent, self.envoy_of(watched)):
                folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            file = path.open("a")
        except OSError as error:
            raise StateError(f"--state-dir {self.directory}: {error.filename}: {error.strerror}") from error
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise StateError(f"--state-dir {self.directory}: another `beamlit run` serves {watched}") from None
            yield

    def node_token(self) -> str:
        """Read the token by which the xDS server knows an Envoy of this user; make it if there is none (mode 0600).

        Raises StateError.
        """
        try:
            return self._node_token()
        except OSError as error:
            raise StateError(f"--state-dir {self.directory}: {error.strerror or error}") from error

    def _node_token(self) -> str:
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = self.directory / "node-token"
        try:
            # Complete under another name first: whoever finds the file finds all of it.
            fresh = path.with_name(f".node-token-{os.getpid()}-{secrets.token_hex(4)}")
            fresh.touch(mode=0o600)
            fresh.write_text(secrets.token_urlsafe(32) + "\n")
            os.link(fresh, path)
        except FileExistsError:
            pass
        finally:
            fresh.unlink(missing_ok=True)
        return path.read_text().strip()
