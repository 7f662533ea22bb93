"""Plain data (YAML, JSON) into frozen dataclasses and back, refusing whatever the dataclasses do not name."""

from __future__ import annotations

import contextlib
import difflib
import math
import types
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints


class SpecError(ValueError):
    """A specification that cannot be met.

    The text is one sentence naming the full dotted key, the value it holds and what would mend it.
    """

    def __init__(self, problem: str, *, key: str = "") -> None:
        """Name the ``key`` (dotted, may be empty) and its ``problem`` (the rest of the sentence)."""
        super().__init__(f"{key} {problem}".strip())
        self.problem = problem
        self.key = key

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle by key and problem, so that the error survives the way back from a worker process."""
        return _spec_error, (self.problem, self.key)

    def under(self, parent: str) -> SpecError:
        """Return the same error with its key placed below ``parent``."""
        return SpecError(self.problem, key=join(parent, self.key))


def _spec_error(problem: str, key: str) -> SpecError:
    return SpecError(problem, key=key)


def join(parent: str, key: str) -> str:
    """Return the dotted key ``parent.key``, leaving out empty parts."""
    return ".".join(part for part in (parent, key) if part)


def require(condition: bool, key: str, value: object, rule: str) -> None:
    """Check one rule of a specification.

    Raises:
        SpecError: ``key`` holds ``value`` but ``rule`` does not hold.
    """
    if not condition:
        raise SpecError(f"is {plain_text(value)} but must {rule}", key=key)


def plain_text(value: object) -> str:
    """Return ``value`` as a user would have written it in YAML."""
    return repr(list(value)) if isinstance(value, tuple) else repr(value)


def unknown(key: str, where: str, allowed: Iterable[str]) -> SpecError:
    """Return the error for a ``key`` below ``where`` that is not among ``allowed``."""
    names = sorted(allowed)
    near = difflib.get_close_matches(key, names, n=1)
    advice = f"did you mean {near[0]}?" if near else f"known here: {', '.join(names)}"
    return SpecError(f"is not a known key; {advice}", key=join(where, key))


def read(kind: Any, value: object, key: str = "") -> Any:  # noqa: ANN401 - the type is given by `kind`
    """Turn plain data into a value of the annotated type ``kind``.

    Supports dataclasses, unions of dataclasses told apart by their ``kind`` field, either ``| None``,
    ``dict[str, X]``, ``tuple[X, ...]``, pairs ``tuple[X, X]`` (a lone number ``x`` means ``[x, x]``),
    literals, ``str``, ``int`` and ``float``. A lone ``name`` means ``{kind: name}``.

    Raises:
        SpecError: ``value`` is not of that type, misses a key or has one too many.
    """
    origin, args = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return _read_union(args, value, key)
    if is_dataclass(kind):
        return _read_dataclass(kind, _mapping(value, key), key)
    if origin is Literal:
        require(value in args, key, value, f"be one of {', '.join(map(str, args))}")
        return value
    if origin is dict:
        return {str(name): read(args[1], item, join(key, str(name))) for name, item in _mapping(value, key).items()}
    if origin is tuple:
        return _read_tuple(args, value, key)
    return _read_scalar(kind, value, key)


def _mapping(value: object, key: str) -> Mapping[str, object]:
    require(isinstance(value, Mapping), key or "the specification", value, "be a mapping of keys to values")
    assert isinstance(value, Mapping)
    return value


def _read_dataclass(kind: Any, value: Mapping[str, object], key: str) -> Any:  # noqa: ANN401
    hints = get_type_hints(kind)
    known = {field.name: field for field in fields(kind)}
    for name in value:
        if name not in known:
            raise unknown(str(name), key, known)
    for name, field in known.items():
        if name not in value and field.default is MISSING and field.default_factory is MISSING:
            raise SpecError("is missing and has no default", key=join(key, name))
    read_values = {name: read(hints[name], item, join(key, name)) for name, item in value.items()}
    try:
        return kind(**read_values)
    except SpecError as error:
        raise error.under(key) from None


def _read_union(args: tuple[Any, ...], value: object, key: str) -> Any:  # noqa: ANN401
    if types.NoneType in args:
        if value is None:
            return None
        args = tuple(option for option in args if option is not types.NoneType)
        if len(args) == 1:
            return read(args[0], value, key)
    by_kind = {option.kind: option for option in args}
    mapping = {"kind": value} if isinstance(value, str) else _mapping(value, key)
    name = mapping.get("kind")
    if name not in by_kind:
        got = "is missing" if name is None else f"is {name!r}"
        raise SpecError(f"{got} but must be one of {', '.join(by_kind)}", key=join(key, "kind"))
    return _read_dataclass(by_kind[name], mapping, key)


def _read_tuple(args: tuple[Any, ...], value: object, key: str) -> tuple[Any, ...]:
    if len(args) == 2 and args[1] is Ellipsis:
        require(isinstance(value, list | tuple), key, value, "be a list")
        assert isinstance(value, list | tuple)
        return tuple(read(args[0], item, f"{key}[{i}]") for i, item in enumerate(value))
    items = value if isinstance(value, list | tuple) else [value, value]
    require(len(items) == 2, key, value, "be a number or [low, high]")
    low, high = (read(args[0], item, key) for item in items)
    require(low <= high, key, value, "have its low end first")
    return low, high


def _read_scalar(kind: type, value: object, key: str) -> str | int | float:
    if kind is str:
        require(isinstance(value, str), key, value, "be text")
        return str(value)
    if kind is int:
        require(isinstance(value, int) and not isinstance(value, bool), key, value, "be a whole number")
        assert isinstance(value, int)
        return value
    if isinstance(value, str):  # YAML 1.1 reads 1e-3, without a dot, as text
        with contextlib.suppress(ValueError):
            value = float(value)
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    require(number, key, value, "be a finite number")
    assert isinstance(value, int | float)
    return float(value)


def plain(value: Any) -> Any:  # noqa: ANN401 - mirrors `read`
    """Return ``value`` as plain data that :func:`read` takes back; keys that hold None are left out."""
    if is_dataclass(value):
        items = {field.name: getattr(value, field.name) for field in fields(value)}
        return {name: plain(item) for name, item in items.items() if item is not None}
    if isinstance(value, Mapping):
        return {name: plain(item) for name, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, tuple) else value
