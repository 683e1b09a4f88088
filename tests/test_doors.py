"""A few of the seeded random inputs of benchmarks/robustness.py, for every door."""

import pytest

from benchmarks.doors import door_names
from benchmarks.robustness import try_door


@pytest.mark.parametrize("name", door_names())
def test_random_inputs_end_in_a_result_or_in_a_line(name):
    outcomes, _, _ = try_door(name, trials=100)
    assert sum(outcomes.values()) == 100 and outcomes.keys() <= {"read", "skipped", "refused"}
    assert outcomes["read"], f"{name}: nothing came through, so nothing was tried"
