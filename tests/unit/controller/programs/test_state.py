"""What survives a restart, and who may read it."""

import concurrent.futures
import stat

import pytest

from controller.programs.state import StateDirectory, default_state_directory


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_the_token_is_made_once_and_is_the_users_alone(tmp_path):
    state = StateDirectory(tmp_path / "beamlit")
    token = state.node_token()
    assert len(token) >= 32
    assert StateDirectory(tmp_path / "beamlit").node_token() == token
    assert mode(tmp_path / "beamlit") == 0o700
    assert mode(tmp_path / "beamlit" / "node-token") == 0o600
    assert [path.name for path in (tmp_path / "beamlit").iterdir()] == ["node-token"]


def test_who_comes_at_the_same_time_gets_the_same_token(tmp_path):
    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        tokens = list(threads.map(lambda _: StateDirectory(tmp_path).node_token(), range(40)))
    assert len(set(tokens)) == 1
    assert tokens[0]


def test_each_watched_folder_of_each_user_has_a_name_that_stays(tmp_path):
    state, other = StateDirectory(tmp_path / "state"), StateDirectory(tmp_path / "other")
    name = state.installation(tmp_path / "a")
    assert name == StateDirectory(tmp_path / "state").installation(tmp_path / "b" / ".." / "a")
    assert len({name, state.installation(tmp_path / "b"), other.installation(tmp_path / "a")}) == 3
    assert state.node_token() not in name


def test_each_watched_folder_has_its_own_place(tmp_path):
    state = StateDirectory(tmp_path / "state")
    one, other = tmp_path / "a" / "models", tmp_path / "b" / "models"
    assert state.objects_file(one) != state.objects_file(other)
    assert state.objects_file(one) == state.objects_file(tmp_path / "b" / ".." / "a" / "models")
    assert state.objects_file(one).name.startswith("models-")
    assert state.envoy_directory(one) != state.envoy_directory(other)


def test_nothing_is_kept_in_the_watched_folder(tmp_path):
    watched = tmp_path / "models"
    state = StateDirectory(tmp_path / "state")
    for path in (state.objects_file(watched), state.envoy_directory(watched)):
        assert path.is_relative_to(tmp_path / "state")


@pytest.mark.parametrize(
    ("environ", "where"),
    [
        ({}, "/home/me/.local/state/beamlit"),
        ({"XDG_STATE_HOME": "/state"}, "/state/beamlit"),
        ({"XDG_STATE_HOME": "/state", "BEAMLIT_STATE_DIR": "/chosen"}, "/chosen"),
    ],
)
def test_where_it_is(environ, where):
    assert str(default_state_directory({"HOME": "/home/me", **environ})) == where
