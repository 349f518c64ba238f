"""Numbers as a person reads them."""

import pytest

from router.cli.status import figure


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.0, "0"), (1373.4, "1,373"), (320.0, "320"), (58.97, "59"), (55.42, "55.4"), (2.54, "2.54"), (20.0, "20"),
     (0.05352, "0.0535"), (-0.7, "-0.7"), (1e-9, "0")],
)  # fmt: skip
def test_three_digits_and_never_an_exponent(value: float, shown: str) -> None:
    assert figure(value) == shown
