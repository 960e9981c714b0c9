"""Every fault of the table, over every capture, family and lane that it names."""

import pytest

from tests.faults import closing, dialling, exhaustion, flowing, guarding, living  # noqa: F401 (they register their scenarios)
from tests.faults.case import SCENARIOS, Case, cases
from tests.faults.table import ROWS


def test_every_row_has_its_scenario() -> None:
    """A fault that is listed and not tried would look as if it were handled."""
    assert sorted(SCENARIOS) == sorted(row.id for row in ROWS)


@pytest.mark.parametrize("case", list(cases()), ids=str)
def test_fault(case: Case) -> None:
    """Whatever goes wrong, no byte is changed, each end is told truly, and the relay is as it was (see the row)."""
    SCENARIOS[case.row.id](case)
