"""A measuring process puts what went wrong in words."""

from psannlm.bench import upkeep
from tests.standing_alone import foreign_imports


def test_a_reason_names_the_kind_of_error():
    assert upkeep.reason_of(ValueError("bad\nworse")) == "ValueError: bad"
    assert upkeep.reason_of(MemoryError("full")) == "out of memory: full"
    assert upkeep.reason_of(KeyboardInterrupt()) == "KeyboardInterrupt: "


def test_it_needs_torch_alone():
    assert foreign_imports(upkeep) == set()
