"""The state directory, which survives a restart, and the token by which an xDS server knows its Envoys."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from controller.api.contract.installation import installation_of


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
class StateDirectory:
    """A folder of the user's own (mode 0700), never the watched one.

    It holds a file of statuses and an Envoy for each watched folder, and the token that Envoys of this user carry.
    """

    path: Path

    def objects_file(self, watched: Path) -> Path:
        """Name the file with the statuses of the objects in one watched folder."""
        digest = hashlib.blake2b(str(watched.resolve()).encode(), digest_size=6).hexdigest()
        return self.path / "folders" / f"{watched.resolve().name}-{digest}.json"

    def envoy_directory(self, watched: Path) -> Path:
        """Name the folder of the Envoy that serves one watched folder."""
        return self.path / "envoy" / self.objects_file(watched).stem

    def installation(self, watched: Path) -> str:
        """Name the gateway of one watched folder, as long as the token of this user stays. Raises StateError."""
        return installation_of(self.node_token(), str(watched.resolve()))

    @contextlib.contextmanager
    def lock(self, watched: Path) -> Iterator[None]:
        """Let no other process use what belongs to one watched folder during the block.

        The lock ends with the process, however that ends. Raises StateError when another has it, or when a file or a
        folder cannot be made.
        """
        path = self.objects_file(watched).with_suffix(".lock")
        try:
            for folder in (path.parent, self.envoy_directory(watched)):
                folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            file = path.open("a")
        except OSError as error:
            raise StateError(f"--state-dir {self.path}: {error.filename}: {error.strerror}") from error
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise StateError(f"--state-dir {self.path}: another `beamlit run` serves {watched}") from None
            yield

    def node_token(self) -> str:
        """Read the token by which the xDS server knows an Envoy of this user; make it if there is none (mode 0600).

        Raises StateError.
        """
        try:
            return self._node_token()
        except OSError as error:
            raise StateError(f"--state-dir {self.path}: {error.strerror or error}") from error

    def _node_token(self) -> str:
        self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
        file = self.path / "node-token"
        try:
            # Complete under another name first: whoever finds the file finds all of it.
            fresh = file.with_name(f".node-token-{os.getpid()}-{secrets.token_hex(4)}")
            fresh.touch(mode=0o600)
            fresh.write_text(secrets.token_urlsafe(32) + "\n")
            os.link(fresh, file)
        except FileExistsError:
            pass
        finally:
            fresh.unlink(missing_ok=True)
        return file.read_text().strip()


class NodeTokenError(Exception):
    """The file with the token of the Envoys cannot be used; the message names it and the reason."""


def read_node_token(path: Path) -> str:
    """Read the token from a file, such as a mounted Secret, and strip white space. Raises NodeTokenError."""
    try:
        token = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise NodeTokenError(
            f"--node-token-file {path}: {getattr(error, 'strerror', None) or 'is not text'}"
        ) from error
    if not token:
        raise NodeTokenError(f"--node-token-file {path}: is empty")
    return token


def node_token(file: Path | None, state: StateDirectory) -> str:
    """Return the token that an Envoy carries: of the file, if one is named, else that of this user.

    Raises NodeTokenError or StateError.
    """
    return read_node_token(file) if file else state.node_token()
