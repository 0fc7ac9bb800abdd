"""A request is understood or refused in words: each problem with its key, value and expectation."""

import re
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import StringConstraints

from psannlm.config.parse import nearest, parse, read_parameters
from psannlm.config.schema import ConfigError, Strict
from psannlm.pages.throughput.config import ThroughputConfig

BASES = ("respsann", "sgrpsann", "waveresnet", "transformer")
REQUEST: dict[str, Any] = {
    "preset": "smoke",
    "vocab_size": 64,
    "context_length": 32,
    "d_model": 8,
    "n_layers": 2,
    "n_heads": 2,
    "d_mlp": 16,
    "base": ["respsann", "transformer"],
    "baseline": "transformer",
    "batch_tokens": [64, 128],
    "mode": "forward",
    "precision": "fp32",
    "compile": False,
    "device": "cpu",
    "n_repeats": 2,
    "min_seconds": 0.1,
    "min_steps": 2,
    "timeout_seconds": 60,
    "learning_rate": 1e-3,
    "seed": 0,
}


def read(**changes: Any) -> ThroughputConfig:
    return parse(ThroughputConfig, {**REQUEST, **changes}, source="a.yaml", bases=BASES)


def problems(**changes: Any) -> list[str]:
    """The lines of the refusal, the source's first."""
    with pytest.raises(ConfigError) as refusal:
        read(**changes)
    return str(refusal.value).splitlines()


REFUSALS: dict[str, tuple[dict[str, Any], str]] = {
    "unknown key, near": ({"d_modle": 8}, "d_modle: unknown, did you mean 'd_model'?"),
    "unknown key, far": ({"zzzzzz": 8}, "zzzzzz: unknown"),
    "text for a whole number": (
        {"d_model": "wide"},
        "d_model: expected a whole number, got 'wide'",
    ),
    "fraction for a whole number": (
        {"n_layers": 2.5},
        "n_layers: expected a whole number, got 2.5",
    ),
    "list for a whole number": ({"seed": [1]}, "seed: expected a whole number, got [1]"),
    "nothing for a whole number": ({"seed": None}, "seed: expected a whole number, got None"),
    "yes/no for a whole number": ({"d_model": True}, "d_model: expected a whole number, got True"),
    "yes/no for a number": ({"learning_rate": True}, "learning_rate: expected a number, got True"),
    "yes/no in a list of numbers": (
        {"batch_tokens": [64, True]},
        "batch_tokens: expected a list, each item a whole number, got [64, True]",
    ),
    "yes/no for a list of numbers": (
        {"batch_tokens": True},
        "batch_tokens: expected a list, each item a whole number, got True",
    ),
    "text for a number": (
        {"learning_rate": "fast"},
        "learning_rate: expected a number, got 'fast'",
    ),
    "infinity": ({"learning_rate": float("inf")}, "learning_rate: expected a number, got inf"),
    "not a number": ({"gate_strength": float("nan")}, "gate_strength: expected a number, got nan"),
    "text for yes/no": ({"compile": "maybe"}, "compile: expected true or false, got 'maybe'"),
    "number for yes/no": ({"compile": 2}, "compile: expected true or false, got 2"),
    "number for a name": ({"baseline": 3}, "baseline: expected a name, got 3"),
    "empty name": ({"baseline": ""}, "baseline: expected a name, got ''"),
    "number for a list of names": ({"base": 3}, "base: expected a list, each item a name, got 3"),
    "empty list": ({"base": []}, "base: must name at least one item, got []"),
    "choice, near": (
        {"device": "cudo"},
        "device: must be one of auto, cpu, cuda, did you mean 'cuda'?, got 'cudo'",
    ),
    "choice, far": ({"preset": "zzz"}, "preset: must be one of smoke, cpu, gpu, got 'zzz'"),
    "choice of a list": (
        {"mode": ["forward", "train"]},
        "mode: must be one of forward, train_step, did you mean 'train_step'?, "
        "got ['forward', 'train']",
    ),
    "number for a choice": ({"device": 1}, "device: expected one of auto, cpu, cuda, got 1"),
    "negative size": ({"d_model": -8}, "d_model: must be at least 1, got -8"),
    "zero size": ({"n_layers": 0}, "n_layers: must be at least 1, got 0"),
    "zero rate": ({"learning_rate": 0}, "learning_rate: must be more than 0, got 0"),
    "negative spread": ({"freq_init_std": -0.5}, "freq_init_std: must be at least 0, got -0.5"),
    "negative seed": ({"seed": -1}, "seed: must be at least 0, got -1"),
    "huge width": ({"d_model": 2**16 + 2}, "d_model: must be at most 65,536, got 65538"),
    "huge depth": ({"n_layers": 1025}, "n_layers: must be at most 1,024, got 1025"),
    "huge context": (
        {"context_length": 2**20 + 1},
        "context_length: must be at most 1,048,576, got 1048577",
    ),
    "huge vocabulary": (
        {"vocab_size": 2**22 + 1},
        "vocab_size: must be at most 4,194,304, got 4194305",
    ),
    "huge batch": (
        {"batch_tokens": 2**27},
        "batch_tokens: must be at most 67,108,864, got 134217728",
    ),
    "huge seed": ({"seed": 2**32}, "seed: must be at most 4,294,967,295, got 4294967296"),
    "number beyond any machine": (
        {"d_model": "9" * 30},
        f"d_model: must be at most 65,536, got '{'9' * 30}'",
    ),
    "gate too small": ({"gate_n_fft": 1}, "gate_n_fft: must be at least 2, got 1"),
    "name twice": (
        {"base": ["respsann", "respsann"]},
        "base: must not name an item twice, got ['respsann', 'respsann']",
    ),
    "number twice": (
        {"batch_tokens": [64, 64]},
        "batch_tokens: must not name an item twice, got [64, 64]",
    ),
    "number twice, as text": (
        {"batch_tokens": [64, "64"]},
        "batch_tokens: must not name an item twice, got [64, '64']",
    ),
    "number twice, as a fraction": (
        {"batch_tokens": [64, 64.0]},
        "batch_tokens: must not name an item twice, got [64, 64.0]",
    ),
    "part twice": (
        {"learnable": ["decay", "decay"]},
        "learnable: must not name an item twice, got ['decay', 'decay']",
    ),
    "heads that do not divide the width": (
        {"n_heads": 3},
        "d_model must be a multiple of n_heads, got 8 and 3",
    ),
    "rope on an odd head": (
        {"d_model": 6},
        "positions: rope needs an even head width, got d_model / n_heads = 6 / 2",
    ),
    "sinusoidal at an odd width": (
        {"positions": "sinusoidal", "d_model": 7, "n_heads": 1},
        "positions: sinusoidal needs an even d_model, got 7",
    ),
    "odd gate": ({"gate_n_fft": 5}, "gate_n_fft must be even, got 5"),
    "frequency at its floor": (
        {"sine_frequency": 1e-6},
        "sine_frequency must be more than 1e-5, got 1e-06",
    ),
    "batch that is no whole number of contexts": (
        {"batch_tokens": [64, 100]},
        "batch_tokens must be multiples of context_length, got 64, 100 and 32",
    ),
    "unknown base, near": (
        {"base": "respsan"},
        "base: unknown base 'respsan', did you mean 'respsann'? "
        "There are: respsann, sgrpsann, waveresnet, transformer",
    ),
    "unknown base, far": (
        {"base": ["respsann", "zzz"]},
        "base: unknown base 'zzz'. There are: respsann, sgrpsann, waveresnet, transformer",
    ),
    "unknown baseline": (
        {"baseline": "Transformer"},
        "baseline: unknown base 'Transformer', did you mean 'transformer'? "
        "There are: respsann, sgrpsann, waveresnet, transformer",
    ),
}


@pytest.mark.parametrize(("changes", "message"), REFUSALS.values(), ids=REFUSALS)
def test_a_wrong_value_is_refused_in_one_line(changes: dict[str, Any], message: str) -> None:
    assert problems(**changes) == ["a.yaml:", f"  {message}"]


class Patterned(Strict):
    """Fields of kinds that no configuration of a notebook has."""

    pattern: re.Pattern[str] | None = None
    code: Annotated[str, StringConstraints(pattern="^[a-f]+$")] = "a"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"pattern": "("}, "pattern: expected a regular expression, got '('"),
        ({"pattern": 3}, "pattern: expected a regular expression, got 3"),
        ({"code": "x"}, "code: must have the form ^[a-f]+$, got 'x'"),
        ({"code": 3}, "code: expected a name, got 3"),
    ],
)
def test_a_wrong_pattern_or_form_is_refused_in_one_line(values: Any, message: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        parse(Patterned, values, source="a.yaml")

    assert str(refusal.value) == f"a.yaml:\n  {message}"


@pytest.mark.parametrize(
    "name", [name for name, field in ThroughputConfig.model_fields.items() if field.is_required()]
)
def test_a_missing_value_is_refused_by_its_name(name: str) -> None:
    data = {key: value for key, value in REQUEST.items() if key != name}

    with pytest.raises(ConfigError) as refusal:
        parse(ThroughputConfig, data, source="a.yaml")

    assert str(refusal.value) == f"a.yaml:\n  {name}: missing"


def test_all_problems_are_reported_together() -> None:
    found = problems(
        d_modle=8, d_model="wide", n_layers=0, batch_tokens=33, base="respsan", gate_n_fft=7
    )

    assert found == [
        "a.yaml:",
        "  d_modle: unknown, did you mean 'd_model'?",
        "  d_model: expected a whole number, got 'wide'",
        "  n_layers: must be at least 1, got 0",
        "  gate_n_fft must be even, got 7",
        "  batch_tokens must be multiples of context_length, got 33 and 32",
        "  base: unknown base 'respsan', did you mean 'respsann'? "
        "There are: respsann, sgrpsann, waveresnet, transformer",
    ]


def test_a_rule_between_fields_waits_until_each_is_valid() -> None:
    assert problems(d_model="wide", n_heads=3) == [
        "a.yaml:",
        "  d_model: expected a whole number, got 'wide'",
    ]


@pytest.mark.parametrize(
    ("name", "given", "understood"),
    [
        ("learning_rate", "1e-3", 1e-3),
        ("learning_rate", 1, 1.0),
        ("d_model", "16", 16),
        ("d_model", 16.0, 16),
        ("compile", "false", False),
        ("compile", "true", True),
        ("compile", 0, False),
        ("base", "respsann", ("respsann",)),
        ("base", ["respsann", "sgrpsann"], ("respsann", "sgrpsann")),
        ("batch_tokens", 64, (64,)),
        ("batch_tokens", "64", (64,)),
        ("mode", ["forward", "train_step"], ("forward", "train_step")),
        ("learnable", "decay", ("decay",)),
        ("learnable", [], ()),
    ],
)
def test_what_yaml_and_a_shell_write_is_understood(
    name: str, given: object, understood: object
) -> None:
    value = getattr(read(**{name: given}), name)

    assert value == understood
    assert type(value) is type(understood)


def test_any_base_passes_where_none_are_named() -> None:
    config = parse(ThroughputConfig, {**REQUEST, "base": "mine"}, source="a.yaml")

    assert config.base == ("mine",)


@pytest.mark.parametrize("positions", ["alibi", "sinusoidal"])
def test_an_odd_head_width_is_refused_for_rope_only(positions: str) -> None:
    assert read(d_model=6, positions=positions).d_head == 3


@pytest.mark.parametrize(
    ("name", "hint"),
    [("respsan", ", did you mean 'respsann'?"), ("RESPSANN", ""), ("", ""), ("zzz", "")],
)
def test_only_a_close_name_is_suggested(name: str, hint: str) -> None:
    assert nearest(name, BASES) == hint


def test_a_parameter_file_is_read_as_names_and_values(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("d_model: 8\nbase: [a, b]\n1: x\n", encoding="utf-8")

    assert read_parameters(path) == {"d_model": 8, "base": ["a", "b"], "1": "x"}


def test_a_missing_file_is_refused_with_those_beside_it(tmp_path: Path) -> None:
    for name in ("memory.yaml", "throughput.yaml", "notes.txt"):
        (tmp_path / name).write_text("a: 1", encoding="utf-8")

    with pytest.raises(ConfigError) as refusal:
        read_parameters(tmp_path / "thruput.yaml")

    assert str(refusal.value) == (
        f"{tmp_path / 'thruput.yaml'} does not exist; "
        "parameter files beside it: memory.yaml, throughput.yaml"
    )


def test_a_missing_file_in_a_missing_folder_has_none_beside_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"does not exist; parameter files beside it: none$"):
        read_parameters(tmp_path / "nowhere" / "a.yaml")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty; params/smoke/ has a file of each notebook to start from"),
        (b"# a remark\n", "is empty; params/smoke/ has a file of each notebook to start from"),
        (b"- 1\n- 2\n", "must map names to values, got list"),
        (b"respsann\n", "must map names to values, got str"),
        (b"a: [1, 2\n", "is not valid YAML: while parsing"),
        (b"a: 2024-13-45\n", "is not valid YAML: month must be in 1..12"),
        (b"a: !!python/object/apply:os.getcwd []\n", "is not valid YAML: could not determine"),
        (b"a: \xff\n", "cannot be read: 'utf-8' codec can't decode byte 0xff"),
    ],
    ids=["empty", "remarks", "list", "text", "open bracket", "no such date", "code", "bytes"],
)
def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes(content)

    with pytest.raises(ConfigError) as refusal:
        read_parameters(path)

    assert str(refusal.value).startswith(f"{path} {message}")


def test_a_folder_is_refused_as_unreadable(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: "):
        read_parameters(tmp_path)
