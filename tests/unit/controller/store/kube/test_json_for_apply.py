"""What is json_for_apply is read back as YAML, whatever characters are in it."""

import json

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from controller.store.kube.client import json_for_apply


@given(st.text())
def test_any_text(text):
    written = json_for_apply({"text": text, text: "key"})
    assert json.loads(written) == {"text": text, text: "key"}
    assert yaml.safe_load(written) == {"text": text, text: "key"}


@pytest.mark.parametrize(
    "character", ["\U0001f600", "\U0010ffff", "\x85", "\u2028", "\x7f", "\ufeff", "\\", '"', "\0", "\n"]
)
def test_what_yaml_reads_differently(character):
    for text in (character, f"a {character} b", f"\\{character}"):
        assert yaml.safe_load(json_for_apply({"text": text})) == {"text": text}
