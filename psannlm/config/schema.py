"""How a configuration is written: strict types, rules between fields, and the error they raise."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, NamedTuple, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, StringConstraints


class ConfigError(ValueError):
    """A request that cannot be met as written; its text is all that a reader needs."""

    def _render_traceback_(self) -> list[str]:
        """Lets a notebook show the message alone: the stack says nothing about the request."""
        return [f"{type(self).__name__}: {self}"]


def _refuse_bool(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("a yes/no value is no number")
    return value


def _as_list(value: object) -> object:
    return [value] if isinstance(value, str | int | float) else value


def _unique(value: tuple[Any, ...]) -> tuple[Any, ...]:
    if len(set(value)) < len(value):
        raise ValueError("names an item twice")
    return value


Number = Annotated[float, BeforeValidator(_refuse_bool), Field(allow_inf_nan=False)]
Positive = Annotated[Number, Field(gt=0)]
NotNegative = Annotated[Number, Field(ge=0)]
Fraction = Annotated[Number, Field(ge=0, le=1)]
Share = Annotated[Number, Field(gt=0, le=1)]
Momentum = Annotated[Number, Field(ge=0, lt=1)]
Whole = Annotated[int, BeforeValidator(_refuse_bool)]
Count = Annotated[Whole, Field(ge=1, le=10**6)]
Width = Annotated[Whole, Field(ge=1, le=2**16)]
Depth = Annotated[Whole, Field(ge=1, le=2**10)]
Length = Annotated[Whole, Field(ge=1, le=2**20)]
Vocabulary = Annotated[Whole, Field(ge=1, le=2**22)]
Tokens = Annotated[Whole, Field(ge=1, le=2**26)]
Processes = Annotated[Whole, Field(ge=0, le=256)]
NGramOrder = Annotated[Whole, Field(ge=1, le=8)]
Seed = Annotated[Whole, Field(ge=0, le=2**32 - 1)]
Text = Annotated[str, StringConstraints(min_length=1)]
FILE = "names a file"  # mark of a field: of a path, absolute or from the project's folder
File = Annotated[Text, FILE]
OptionalFile = Annotated[str, FILE]  # none if empty
ItemT = TypeVar("ItemT")
OneOrMore = Annotated[
    tuple[ItemT, ...], AfterValidator(_unique), BeforeValidator(_as_list), Field(min_length=1)
]
AnyOf = Annotated[tuple[ItemT, ...], AfterValidator(_unique), BeforeValidator(_as_list)]


class Rule(NamedTuple):
    """A condition between fields: checked once all its fields are valid by themselves."""

    fields: tuple[str, ...]
    holds: Any  # the fields' values, in order -> bool
    message: str


def multiple_of(name: str, of: str) -> Rule:
    """That one field is a multiple of another."""
    message = f"{name} must be a multiple of {of}, got {{}} and {{}}"
    return Rule((name, of), lambda value, unit: value % unit == 0, message)


class Strict(BaseModel):
    """A frozen set of named values; nothing else is let in."""

    model_config = {"extra": "forbid", "frozen": True}
    rules: ClassVar[tuple[Rule, ...]] = ()

    def model_post_init(self, _: object) -> None:
        if broken := list(broken_rules(type(self), dict(self))):
            raise ConfigError("\n".join(broken))


def broken_rules(cls: type[Strict], values: Mapping[str, Any]) -> Iterator[str]:
    """Messages of the rules that `values` break; a rule waits until all its fields are there."""
    for rule in cls.rules:
        if all(name in values for name in rule.fields):
            given = [values[name] for name in rule.fields]
            if not rule.holds(*given):
                listed = [", ".join(map(str, v)) if isinstance(v, tuple) else v for v in given]
                yield rule.message.format(*listed)
