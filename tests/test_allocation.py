"""The peak is that of a step whose every allocation is known."""

import torch

from psannlm.bench.allocation import MARK, _peak, peak_of_second_step


def test_the_peak_counts_what_was_built_what_is_kept_and_what_lives_at_one_time():
    def make():
        built, kept = torch.zeros(1000), []
        torch.zeros(10**6)  # dropped before the step

        def step():
            if not kept:
                kept.append(torch.zeros(70))
                torch.zeros(10**6)  # of the first step alone
            a = torch.zeros(2000)
            b = torch.zeros(3000)
            del a
            c = torch.zeros(2500)
            del b, c
            return built

        return step

    # The largest pair is 3000 with 2500, not 2000 with 3000.
    assert peak_of_second_step(make) == 4 * (1000 + 70 + 3000 + 2500)


def test_what_was_there_before_counts_neither_held_nor_freed():
    before = [torch.zeros(5000)]

    def make():
        def step():
            before.clear()
            return torch.zeros(100)

        return step

    assert peak_of_second_step(make) == 4 * 100


def test_a_peak_that_stands_when_the_step_begins_counts():
    def make():
        held = [torch.zeros(600)]

        def step():
            if len(held) == 2:
                held.clear()  # the second step only gives back
            else:
                held.append(torch.zeros(400))

        return step

    assert peak_of_second_step(make) == 4 * 1000


def test_memory_of_a_backward_pass_is_seen():
    def make():
        x = torch.zeros(1000, requires_grad=True)

        def step():
            x.grad = None
            y = x.exp()  # kept for backward
            y.backward(torch.ones(()).expand(1000))

        return step

    # The parameter, the result, and the gradient by it, which is there before the old one is.
    assert peak_of_second_step(make) == 4 * 3000 + 4


def test_only_the_step_counts_and_frees_only_what_was_given_out_on_record():
    def memory(ts: float, address: int, size: int) -> dict[str, object]:
        return {"name": "[memory]", "ts": ts, "args": {"Addr": address, "Bytes": size}}

    mark = {"name": MARK, "cat": "user_annotation", "ts": 10.0, "dur": 10.0}
    events = [
        memory(1, 1, 100),
        memory(2, 7, -5000),  # from before the record
        memory(3, 2, 900),
        memory(4, 2, -900),
        mark,
        memory(12, 3, 40),
        memory(15, 3, -40),
        memory(25, 4, 700),
    ]

    assert _peak(events) == 140
