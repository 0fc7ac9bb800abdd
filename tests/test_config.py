"""A request is understood, or refused with each problem's key, value and expectation."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from psannlm.config.network import ModelConfig
from psannlm.config.parse import nearest, parse, read_parameters
from psannlm.config.schema import ConfigError
from psannlm.config.training import TrainingSettings
from psannlm.pages.throughput.records import ThroughputConfig
from tests.networks import tiny
from tests.synthetic import throughput_config
from tests.synthetic_shootout import shootout_config

BASES = ("respsann", "sgrpsann", "waveresnet", "transformer")
REQUEST: dict[str, Any] = {
    **{"preset": "smoke", "base": ["respsann", "transformer"], "baseline": "transformer"},
    **{"vocab_size": 64, "context_length": 32, "d_model": 8, "n_layers": 2, "n_heads": 2},
    **{"d_mlp": 16, "batch_tokens": [64, 128], "mode": "forward", "precision": "fp32"},
    **{"compile": False, "device": "cpu", "n_repeats": 2, "min_seconds": 0.1, "min_steps": 2},
    **{"timeout_seconds": 60, "learning_rate": 1e-3, "seed": 0},
}


def read(**changes: Any) -> ThroughputConfig:
    return parse(ThroughputConfig, {**REQUEST, **changes}, source="a.yaml", bases=BASES)


def problems(**changes: Any) -> list[str]:
    """The lines of the refusal, the source's first."""
    with pytest.raises(ConfigError) as refusal:
        read(**changes)
    return str(refusal.value).splitlines()


WRONG_VALUES: list[tuple[str, Any, str]] = [
    ("d_model", "wide", "expected a whole number"),
    ("n_layers", 2.5, "expected a whole number"),
    ("d_model", True, "expected a whole number"),
    ("batch_tokens", [64, True], "expected a list, each item a whole number"),
    ("learning_rate", float("inf"), "expected a number"),
    ("gate_strength", float("nan"), "expected a number"),
    ("compile", "maybe", "expected true or false"),
    ("baseline", "", "expected a name"),
    ("base", 3, "expected a list, each item a name"),
    ("mode", [], "must name at least one item"),
    ("device", "cudo", "must be one of auto, cpu, cuda, did you mean 'cuda'?"),
    ("mode", ["train"], "must be one of forward, train_step, did you mean 'train_step'?"),
    ("device", 1, "expected one of auto, cpu, cuda"),
    ("n_layers", 0, "must be at least 1"),
    ("learning_rate", 0, "must be more than 0"),
    ("freq_init_std", -0.5, "must be at least 0"),
    ("d_model", 2**16 + 2, "must be at most 65,536"),
    ("n_layers", 1025, "must be at most 1,024"),
    ("context_length", 2**20 + 1, "must be at most 1,048,576"),
    ("vocab_size", 2**22 + 1, "must be at most 4,194,304"),
    ("batch_tokens", 2**27, "must be at most 67,108,864"),
    ("seed", 2**32, "must be at most 4,294,967,295"),
    ("d_model", "9" * 30, "must be at most 65,536"),
    ("gate_n_fft", 1, "must be at least 2"),
    ("base", ["respsann", "respsann"], "must not name an item twice"),
    ("batch_tokens", [64, "64"], "must not name an item twice"),
]


THERE_ARE = "There are: respsann, sgrpsann, waveresnet, transformer"
HEADS = "positions: rope needs an even head width, got d_model / n_heads = 6 / 2"
WAVES = {"positions": "sinusoidal", "d_model": 7, "n_heads": 1}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        *(({name: v}, f"{name}: {expected}, got {v!r}") for name, v, expected in WRONG_VALUES),
        ({"zzzzzz": 8}, "zzzzzz: unknown"),
        ({"d_model": 6}, HEADS),
        (WAVES, "positions: sinusoidal needs an even d_model, got 7"),
        ({"sine_frequency": 1e-6}, "sine_frequency must be more than 1e-5, got 1e-06"),
        ({"baseline": "zzz"}, f"baseline: unknown base 'zzz'. {THERE_ARE}"),
    ],
)
def test_a_wrong_value_an_unknown_name_and_a_broken_rule_are_refused_in_one_line(
    changes: dict[str, Any], message: str
) -> None:
    assert problems(**changes) == ["a.yaml:", f"  {message}"]


def test_missing_values_are_refused_by_their_names() -> None:
    required = [n for n, field in ThroughputConfig.model_fields.items() if field.is_required()]

    with pytest.raises(ConfigError) as refusal:
        parse(ThroughputConfig, {}, source="a.yaml")

    assert str(refusal.value).splitlines() == ["a.yaml:", *(f"  {n}: missing" for n in required)]


def test_all_problems_are_reported_together_and_a_rule_waits_until_its_fields_are_valid() -> None:
    changes = {"d_modle": 8, "d_model": "wide", "n_heads": 3, "n_layers": 0}

    assert problems(**changes, batch_tokens=[64, 33], base="respsan", gate_n_fft=7) == [
        "a.yaml:",
        "  d_modle: unknown, did you mean 'd_model'?",
        "  d_model: expected a whole number, got 'wide'",
        "  n_layers: must be at least 1, got 0",
        "  gate_n_fft must be even, got 7",
        "  batch_tokens must be multiples of context_length, got 64, 33 and 32",
        f"  base: unknown base 'respsan', did you mean 'respsann'? {THERE_ARE}",
    ]


@pytest.mark.parametrize(
    ("name", "given", "understood"),
    [
        ("learning_rate", "1e-3", 1e-3),
        ("d_model", "16", 16),
        ("d_model", 16.0, 16),
        ("compile", "false", False),
        ("compile", "true", True),
        ("base", "respsann", ("respsann",)),
        ("batch_tokens", 64, (64,)),
        ("mode", ["forward", "train_step"], ("forward", "train_step")),
        ("learnable", [], ()),
    ],
)
def test_what_yaml_and_a_shell_write_is_understood(
    name: str, given: object, understood: object
) -> None:
    value = getattr(read(**{name: given}), name)

    assert value == understood
    assert type(value) is type(understood)


def test_any_base_passes_where_none_are_named_and_only_a_close_name_is_suggested() -> None:
    hints = [nearest(name, BASES) for name in ("respsan", "RESPSANN", "", "zzz")]

    assert hints == [", did you mean 'respsann'?", "", "", ""]
    assert parse(ThroughputConfig, {**REQUEST, "base": "mine"}, source="a.yaml").base == ("mine",)
    assert read(d_model=6, positions="alibi").d_head == 3


def test_a_parameter_file_is_read_and_a_missing_one_is_refused_with_those_beside_it(
    tmp_path: Path,
) -> None:
    path = tmp_path / "a.yaml"
    with pytest.raises(ConfigError, match=r"not exist; parameter files beside it: none$"):
        read_parameters(path)
    path.write_text("d_model: 8\nbase: [a, b]\n1: x\n", encoding="utf-8")
    (tmp_path / "notes.txt").touch()

    assert read_parameters(path) == {"d_model": 8, "base": ["a", "b"], "1": "x"}
    with pytest.raises(ConfigError, match=r"parameter files beside it: a\.yaml$"):
        read_parameters(tmp_path / "b.yaml")
    with pytest.raises(ConfigError, match="cannot be read: "):
        read_parameters(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty; params/smoke/ has a file of each notebook to start from"),
        (b"- 1\n- 2\n", "must map names to values, got list"),
        (b"respsann\n", "must map names to values, got str"),
        (b"a: [1, 2\n", "is not valid YAML: while parsing"),
        (b"a: 2024-13-45\n", "is not valid YAML: month must be in 1..12"),
        (b"a: !!python/object/apply:os.getcwd []\n", "is not valid YAML: could not determine"),
        (b"a: \xff\n", "cannot be read: 'utf-8' codec can't decode byte 0xff"),
    ],
)
def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes(content)

    with pytest.raises(ConfigError) as refusal:
        read_parameters(path)

    assert str(refusal.value).startswith(f"{path} {message}")


SOUND = shootout_config().model_dump(include=set(TrainingSettings.model_fields))
GPT2 = {"tokenizer": "gpt2", "tokenizer_file": "ranks", "vocab_size": 50257}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pass_tokens": 768}, "multiple of pass_tokens, got 1024 and 768"),
        ({"batch_tokens": 1000, "pass_tokens": 1000}, "multiple of context_length, got 1000 and"),
        ({"tokenizer": "bytes"}, r"tokenizer bytes has a vocab_size of its own \(bytes 257"),
        (GPT2 | {"vocab_size": 257}, "tokenizer gpt2 has a vocab_size of its own .*, got 257"),
        (GPT2 | {"tokenizer_file": ""}, "gpt2 needs the file of its ranks"),
        ({"tokenizer_file": "ranks"}, "tokenizer bpe and tokenizer_file 'ranks': .*others none"),
        ({"warmup_fraction": 0.6, "decay_fraction": 0.5}, "at most 1 together, got 0.6 and 0.5"),
        ({"n_heads": 3}, "d_model must be a multiple of n_heads, got 16 and 3"),
    ],
)
def test_settings_of_a_training_that_do_not_fit_together_are_refused(
    changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        parse(TrainingSettings, SOUND | changes, source="here")


def test_settings_of_a_training_that_fit_together_are_taken() -> None:
    by_bytes = {"tokenizer": "bytes", "vocab_size": 257, "batch_tokens": 4096}
    for changes in (by_bytes, GPT2 | {"warmup_fraction": 0.5, "decay_fraction": 0.5}):
        assert dict(parse(TrainingSettings, SOUND | changes, source="here")) == SOUND | changes


def test_a_configuration_made_by_hand_is_held_to_the_same_rules_and_cannot_be_changed() -> None:
    assert ConfigError("no")._render_traceback_() == ["ConfigError: no"], "in a notebook"
    with pytest.raises(ValueError, match="d_model must be a multiple of n_heads, got 9 and 2"):
        tiny(d_model=9)
    with pytest.raises(ValidationError, match="d_modle"):
        tiny(d_modle=8)
    with pytest.raises(ValidationError, match="frozen"):
        tiny().d_model = 16  # type: ignore[misc]


def test_a_run_hands_its_shape_and_options_to_each_network() -> None:
    config = throughput_config(d_mlp=24, positions="alibi", learnable=("decay",), sine_decay=0.5)

    network = config.network_of("sgrpsann")

    assert network.base == "sgrpsann"
    shared = set(ModelConfig.model_fields) - {"base"}
    assert network.model_dump(include=shared) == config.model_dump(include=shared)
