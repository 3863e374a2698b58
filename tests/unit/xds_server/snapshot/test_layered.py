"""A mapping in layers is a mapping: it holds what a dictionary would, and its earlier versions stay what they were."""

from hypothesis import given
from hypothesis import strategies as st

from xds_server.snapshot.snapshot import Layered

names = st.sampled_from([f"n{number}" for number in range(12)])
changes = st.dictionaries(names, st.one_of(st.none(), st.integers()), max_size=3)


@given(st.dictionaries(st.text(max_size=3), st.integers(), max_size=60), st.lists(changes, max_size=30))
def test_it_is_what_a_dictionary_would_be(begun, steps):
    layered, expected, history = Layered[int](begun), dict(begun), []
    for step in steps:
        history.append((layered, dict(expected)))
        layered = layered.with_changes(step)
        expected.update({name: value for name, value in step.items() if value is not None})
        for name in (name for name, value in step.items() if value is None):
            expected.pop(name, None)
    for version, content in (*history, (layered, expected)):
        assert version == content
        assert len(version) == len(content)
        assert {name: version.get(name) for name in version} == content
        assert all(version.get(f"n{number}", "none") == content.get(f"n{number}", "none") for number in range(12))
        assert all((f"n{number}" in version) == (f"n{number}" in content) for number in range(12))


def test_it_is_not_the_dictionary_it_was_made_of():
    begun = {"a": 1}
    layered = Layered(begun)
    begun["b"] = 2
    assert dict(layered) == {"a": 1}
