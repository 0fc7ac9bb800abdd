"""A finding of the validation page again: the same status, its measure within its bound."""

from psannlm.checks.findings import Finding, Measure
from psannlm.evidence.page import Quantity, Repeat

RULES = (
    "status: the same",
    "a measure: within the bound that the check sets before it measures, as far as it was when "
    "published; how many come out the same to the last digit is shown and not judged",
)


def compared(old: Finding, new: Finding) -> Repeat:
    """What the new finding says of the published one."""
    said, here = (f"{f.status}: {f.reason}" if f.reason else f.status for f in (old, new))
    quantities = [Quantity("status", said, old.status, here, old.status == new.status)]
    known = {measure.name: measure for measure in new.measures}
    quantities += [_measure(measure, known.get(measure.name)) for measure in old.measures]
    equal = sum(m.name in known and known[m.name].value == m.value for m in old.measures)
    if old.measures:
        shown = f"{equal} of {len(old.measures)}"
        every = f"{len(old.measures)} of {len(old.measures)}"
        quantities.append(Quantity("the same to the digit", every, "shown only", shown, None))
    return Repeat(tuple(quantities), RULES)


def _measure(old: Measure, new: Measure | None) -> Quantity:
    if new is None:
        return Quantity(old.name, f"{old.value:.6g}", "the same", "not measured", False)
    expected = f"{'at most' if new.upper else 'at least'} {new.bound:.4g}"
    if not old.passed:
        expected = f"not {expected}, as published"
    inside = new.passed == old.passed
    return Quantity(old.name, f"{old.value:.6g}", expected, f"{new.value:.6g}", inside)
