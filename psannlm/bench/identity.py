"""Whether two runs were made on one machine, and what people call it."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, count
from typing import Any, NamedTuple


class Identity(NamedTuple):
    """What a machine must share with another to be the same; None is what a manifest lacks.

    In the order in which these facts tell machines of one name apart for people.
    """

    device: str | None  # what people call it
    instructions: tuple[str, ...] | None
    capability: str | None  # the instructions that torch uses
    family: str | None
    model: str | None
    stepping: str | None
    cores: float | None  # usable ones
    memory_mib: float | None  # usable
    mig: str | None
    power_limit_w: float | None
    gpu_memory_mib: float | None
    multiprocessors: int | None
    gpus: int | None
    kind: str | None  # cpu or cuda
    gpu: str | None
    processor: str | None
    vendor: str | None
    virtual: bool | None

    def differing(self, other: "Identity") -> list[str]:
        """Names of the facts that are known of both and are not the same."""
        facts = zip(self._fields, self, other, strict=True)
        return [name for name, here, there in facts if _differ(name, here, there)]

    def is_same(self, other: "Identity") -> bool:
        """Whether nothing that is known of both tells them apart."""
        return not self.differing(other)


WITHIN = {"memory_mib": 0.03, "gpu_memory_mib": 0.03, "power_limit_w": 0.01}
"""Share by which numbers of one machine differ: a kernel or driver keeps more memory or less."""

WORDS = {
    "capability": "limited to {}", "family": "family {}", "model": "model {}",
    "stepping": "stepping {}", "mig": "slice {}", "cores": "{:g} usable cores",
    "power_limit_w": "{:g} W", "gpus": "{} GPUs",
    "multiprocessors": "{} multiprocessors", "gpu_memory_mib": "{:,.0f} MiB of GPU memory",
    "memory_mib": "{:,.0f} MiB", "virtual": "virtual: {}",
}  # fmt: skip


def identity(environment: Mapping[str, Any]) -> Identity:
    """The machine of a run, by the `environment` of its manifest, whatever that lacks.

    Manifests without usable cores are of runs that had every core and all memory, as far as is
    known; and torch uses the best instructions that there are unless it is told not to.
    """
    cpu, gpu = environment.get("cpu") or {}, environment.get("gpu") or {}
    told = cpu.get("instructions")
    # Once no instructions were listed but those of x86, whose processors have a family.
    instructions = tuple(told) if told or (told is not None and cpu.get("family")) else None
    best = {"avx512f": "AVX512", "avx2": "AVX2"}
    used = next((name for flag, name in best.items() if flag in (instructions or ())), None)
    return Identity(
        device=environment.get("device"),
        kind=environment.get("device_type"),
        instructions=instructions,
        capability=cpu.get("capability", used),
        cores=cpu.get("usable_cores", cpu.get("cores")),
        memory_mib=cpu.get("memory_limit_mib", cpu.get("memory_mib")),
        processor=cpu.get("name"),
        gpu=gpu.get("name"),
        gpu_memory_mib=gpu.get("memory_mib"),
        gpus=gpu.get("count"),
        **{name: cpu.get(name) for name in ("family", "model", "stepping", "vendor", "virtual")},
        **{name: gpu.get(name) for name in ("mig", "power_limit_w", "multiprocessors")},
    )


def _differ(name: str, here: Any, there: Any) -> bool:
    if here is None or there is None:
        return False
    if share := WITHIN.get(name):
        return bool(abs(here - there) > share * max(here, there))
    return bool(here != there)


def labels(found: Sequence[Identity]) -> list[str]:
    """A name for people of the machine of each identity: one machine, one name, and no other's.

    Machines are the same where nothing tells them apart. One that lacks facts may be the same as
    two that differ; it is then neither, and stands alone. The first of each name has the plain one,
    whatever comes after it, and others say what tells them apart.
    """
    # Equal sets of those that it may be: then they may all be each other, too.
    near = {one: frozenset(other for other in found if one.is_same(other)) for one in found}
    names: dict[frozenset[Identity], str] = {}
    plain: dict[str, Identity] = {}
    for one in found:
        if near[one] not in names:
            said = one.device or "unknown"
            first = plain.setdefault(said, one)
            words = chain(_words(one, first), (f"machine {n}" for n in count(2)))
            while said in names.values():
                said += f", {next(words)}"
            names[near[one]] = said
    return [names[near[one]] for one in found]


def _words(one: Identity, first: Identity) -> Iterator[str]:
    """What tells a machine from another of its name, in words, the most telling first."""
    best, other = ((who.instructions or ("",))[-1] for who in (one, first))
    if best and best != other:
        yield best
    for name in one._fields[2:]:
        here, there = getattr(one, name), getattr(first, name)
        if here is not None and (there is None or _differ(name, here, there)):
            yield WORDS.get(name, "{}").format(here)
