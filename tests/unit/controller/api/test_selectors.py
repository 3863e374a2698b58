"""Label selectors: what is written for the API server is read as it reads it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.api.kubernetes.selectors import Term, query_of, terms_of

KEYS = st.sampled_from(["app", "tier", "example.com/zone"])
VALUES = st.sampled_from(["", "a", "b.c-d_E"])
LABELS = st.dictionaries(KEYS, VALUES)
EXPRESSIONS = st.lists(
    st.tuples(
        KEYS, st.sampled_from(["In", "NotIn", "Exists", "DoesNotExist"]), st.lists(VALUES, min_size=1, max_size=3)
    ),
    max_size=3,
)


def holds(expression: tuple[str, str, Sequence[str]], labels: Mapping[str, str]) -> bool:
    """As the documentation of Kubernetes has it: NotIn also chooses what has no label of that key."""
    key, operator, values = expression
    return {
        "In": key in labels and labels[key] in values,
        "NotIn": key not in labels or labels[key] not in values,
        "Exists": key in labels,
        "DoesNotExist": key not in labels,
    }[operator]


@given(LABELS, EXPRESSIONS, LABELS)
def test_a_selector_chooses_what_its_labels_and_expressions_choose(
    equal: Mapping[str, str], expressions: Sequence[tuple[str, str, Sequence[str]]], labels: Mapping[str, str]
) -> None:
    query = query_of(equal, expressions)
    if not query:
        return
    terms = terms_of(query)
    assert terms is not None, query
    expected = equal.items() <= labels.items() and all(holds(one, labels) for one in expressions)
    assert all(term.holds(labels) for term in terms) == expected, query


def test_each_form_is_read() -> None:
    assert terms_of("!d,a=1,b in (x,y),c,e notin (z)") == (
        Term("d", "DoesNotExist"),
        Term("a", "In", ("1",)),
        Term("b", "In", ("x", "y")),
        Term("c", "Exists"),
        Term("e", "NotIn", ("z",)),
    )


@pytest.mark.parametrize("query", ["", "a=1,", ",a", "a==1", "a!=1", "a in x", "a in (x", "a b", "a=ü", "a=(x)", "a>1"])
def test_what_is_no_selector_of_ours_is_left_to_the_api_server(query: str) -> None:
    assert terms_of(query) is None
