"""Quantities as numbers."""

from decimal import Decimal

import pytest

from controller.api.schema.scalars import number_of, text_of


@pytest.mark.parametrize(
    ("quantity", "number"),
    [
        (10, "10"),
        (0.5, "0.5"),
        ("500m", "0.5"),
        ("2Gi", "2147483648"),
        ("1.5Ki", "1536"),
        ("3k", "3000"),
        ("1E", "1000000000000000000"),
        ("1e3", "1000"),
        ("1E-2", "0.01"),
        ("2u", "0.000002"),
        ("2n", "0.000000002"),
        ("+.5", "0.5"),
        ("-1.", "-1"),
    ],
)
def test_a_quantity(quantity, number):
    assert number_of(quantity) == Decimal(number)


@pytest.mark.parametrize("quantity", ["9e999999", "-9e9999999999", f"{'9' * 50}e{'9' * 13}", 1e308])
def test_one_that_is_too_large_has_an_end(quantity):
    """Written out, an exponent of seven digits has millions of them."""
    assert 2**63 < abs(number_of(quantity)) < Decimal("1e310")
    assert len(text_of(number_of(quantity))) < 400


@pytest.mark.parametrize("quantity", ["1e-999999", "1e-9999999999"])
def test_one_that_is_too_small_is_next_to_nothing(quantity):
    assert 0 < number_of(quantity) < Decimal("1e-100")


@pytest.mark.parametrize(
    ("number", "text"), [("0", "0"), ("4.000", "4"), ("3.3333", "3.333"), ("10", "10"), ("0.0001", "0")]
)
def test_a_measured_number(number, text):
    assert text_of(Decimal(number)) == text
