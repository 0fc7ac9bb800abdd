"""From what a user wrote to a configuration, or to the list of all that is wrong with it.

Each problem has its key, the value found, what was expected and, for a name, the nearest right one.
"""

import difflib
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import TypeAdapter, ValidationError

from psannlm.config.schema import ConfigError, Strict, broken_rules

ConfigT = TypeVar("ConfigT", bound=Strict)


def read_parameters(path: Path) -> dict[str, Any]:
    """The mapping in the YAML file at `path`; ConfigError if there is none, or no such file."""
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        beside = ", ".join(sorted(p.name for p in path.parent.glob("*.yaml"))) or "none"
        raise ConfigError(f"{path} does not exist; parameter files beside it: {beside}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date that there is not
        raise ConfigError(f"{path} is not valid YAML: {error}") from None
    if data is None:
        raise ConfigError(
            f"{path} is empty; params/smoke/ has a file of each notebook to start from"
        )
    if not isinstance(data, dict):
        raise ConfigError(f"{path} must map names to values, got {type(data).__name__}")
    return {str(name): value for name, value in data.items()}


def parse(
    cls: type[ConfigT], data: Mapping[str, Any], *, source: str, bases: Collection[str] = ()
) -> ConfigT:
    """Build a `cls` from names and values, as YAML, papermill or a notebook gave them.

    A ConfigError has a line for each problem, below the `source` of the values. If no `bases` are
    given, any name of one passes.
    """
    values: dict[str, Any] = {}
    problems = list(_field_problems(cls, data, values))
    problems += broken_rules(cls, values)
    problems += _unknown_bases(values, bases)
    if problems:
        raise ConfigError(f"{source}:\n" + "\n".join(f"  {problem}" for problem in problems))
    return cls(**values)


def nearest(name: str, names: Collection[str]) -> str:
    """', did you mean X?' with the closest of `names`, or nothing if none is close."""
    near = difflib.get_close_matches(name, list(names), n=1, cutoff=0.5)
    return f", did you mean {near[0]!r}?" if near else ""


def _field_problems(
    cls: type[Strict], data: Mapping[str, Any], values: dict[str, Any]
) -> Iterator[str]:
    """Problems of single fields; the valid ones are put into `values`."""
    for name in data:
        if name not in cls.model_fields:
            yield f"{name}: unknown{nearest(name, cls.model_fields)}"
    for name, field in cls.model_fields.items():
        if name not in data and field.is_required():
            yield f"{name}: missing"
            continue
        annotation = field.rebuild_annotation()
        try:
            values[name] = TypeAdapter(annotation).validate_python(data.get(name, field.default))
        except ValidationError as error:
            yield f"{name}: {_expectation(error, annotation)}, got {data[name]!r}"


def _unknown_bases(values: Mapping[str, Any], bases: Collection[str]) -> Iterator[str]:
    for field in ("base", "baseline") if bases else ():
        named = values.get(field, ())
        for name in (named,) if isinstance(named, str) else named:
            if name not in bases:
                near, known = nearest(name, bases) or ".", ", ".join(bases)
                yield f"{field}: unknown base {name!r}{near} There are: {known}"


def _expectation(error: ValidationError, annotation: Any) -> str:
    """What the field wants, in words; from pydantic's first complaint where that is clearest."""
    first = error.errors()[0]
    kind, context = first["type"], first.get("ctx", {})
    match kind:
        case "greater_than_equal" | "greater_than" | "less_than_equal" | "less_than":
            (sign, bound), *_ = context.items()
            words = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}
            return f"must be {words[sign]} {bound:,}"
        case "too_short":
            return "must name at least one item"
        case "value_error" if "twice" in first["msg"]:
            return "must not name an item twice"
        case "literal_error" if isinstance(first["input"], str):
            choices = _choices(annotation)
            return f"must be one of {', '.join(choices)}{nearest(first['input'], choices)}"
        case "string_pattern_mismatch":
            return f"must have the form {context['pattern']}"
    return f"expected {_describe(annotation)}"


def _choices(annotation: Any) -> tuple[str, ...]:
    if get_origin(annotation) is Literal:
        return get_args(annotation)
    return next(filter(None, map(_choices, get_args(annotation))), ())


def _describe(annotation: Any) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _describe(arguments[0])
    if origin is Literal:
        return "one of " + ", ".join(arguments)
    if origin is tuple:
        return f"a list, each item {_describe(arguments[0])}"
    if origin in (UnionType, Union):
        return " or ".join(_describe(kind) for kind in arguments if kind is not NoneType)
    if origin is re.Pattern:
        return "a regular expression"
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "a name"}
    words |= {Path: "a path"}
    return words[annotation]
