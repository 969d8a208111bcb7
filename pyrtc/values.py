"""`dataclasses.dataclass` for value classes, at a thirtieth of what that costs at import.

The standard library's decorator writes and compiles six methods for each class as its module is imported, half a
millisecond a class, and imports `inspect` first: together a third of the time of a short command (decision 005). Here
a class gets its slots and methods that all classes share; only `__init__` is written for it, when its first object is
made.

What it takes means what it means there: `frozen`, `slots`, `kw_only`, `field(default_factory=)`, `__post_init__`,
`replace`. There is no inheritance of fields, no InitVar and no ClassVar. `dataclasses.fields()`, `asdict()`,
`replace()` and `is_dataclass()` work on these classes, and type checkers see the real decorator. `inspect.signature()`
knows the parameters from the first object on.
"""
# ruff: noqa: ANN401  (what is done here to classes has no type; type checkers read dataclasses in its place)

from collections.abc import Callable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dataclasses import dataclass, field, replace
    from typing import Any

__all__ = ["dataclass", "field", "replace"]


class _Factory:
    """What `field(default_factory=)` leaves in the class body."""

    __slots__ = ("make",)

    def __init__(self, make: Callable[[], object]) -> None:
        self.make = make


class _Twin:
    """An attribute that only a real dataclass has; one with the same fields is made when somebody asks for it."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __get__(self, _instance: object, owner: "Any") -> "Any":
        import dataclasses

        body: dict[str, object] = {"__annotations__": owner.__annotations__}
        for name, default in owner.__field_defaults__.items():
            is_factory = isinstance(default, _Factory)
            body[name] = dataclasses.field(default_factory=default.make) if is_factory else default
        decorate = dataclasses.dataclass(frozen=owner.__frozen__, kw_only=owner.__kw_only__)
        return getattr(decorate(type(owner.__name__, (), body)), self.name)


def _dataclass(*, slots: bool, frozen: bool = False, kw_only: bool = False) -> "Any":
    """Return the decorator. Every value is slotted; `slots=True` is said for readers and type checkers."""
    if not slots:
        raise TypeError("a value class has slots: say slots=True")
    return lambda cls: _make(cls, frozen=frozen, kw_only=kw_only)


def _field(*, default_factory: Callable[[], object]) -> _Factory:
    """Return what makes a default for each object."""
    return _Factory(default_factory)


def _replace(obj: "Any", /, **changes: object) -> "Any":
    """Return a copy in which some fields have other values."""
    return obj.__class__(**{**{name: getattr(obj, name) for name in obj.__slots__}, **changes})


def _make(cls: "Any", *, frozen: bool, kw_only: bool) -> "Any":
    """Return the class again, with slots: they can only be given when a class is made."""
    if any(hasattr(base, "__field_defaults__") for base in cls.__bases__):
        raise TypeError(f"{cls.__name__}: fields are not inherited")
    body = {name: value for name, value in cls.__dict__.items() if name not in ("__dict__", "__weakref__")}
    names = tuple(body.get("__annotations__", ()))
    defaults = {name: body.pop(name) for name in names if name in body}
    if not kw_only and list(defaults) != list(names[len(names) - len(defaults) :]):
        raise TypeError(f"{cls.__name__}: a field without a default follows one that has a default")

    def first_init(self: object, *args: object, **keywords: object) -> None:
        made.__init__ = _write_init(made)
        made.__init__(self, *args, **keywords)

    body |= {
        "__slots__": names,
        "__match_args__": () if kw_only else names,
        "__init__": first_init,
        "__field_defaults__": defaults,
        "__frozen__": frozen,
        "__kw_only__": kw_only,
        "__dataclass_fields__": _Twin("__dataclass_fields__"),
        "__dataclass_params__": _Twin("__dataclass_params__"),
        "__eq__": _eq,
        "__hash__": _hash if frozen else None,
    }
    body.setdefault("__repr__", _repr)
    if frozen:
        body |= {"__setattr__": _refuse_set, "__delattr__": _refuse_delete}
        # Without these copy and pickle would set the attributes.
        body |= {"__getstate__": _getstate, "__setstate__": _setstate}
    made = type(cls)(cls.__name__, cls.__bases__, body)
    return made


def _write_init(cls: "Any") -> "Any":
    """Write and compile the class's `__init__`. It sets slots directly, which is faster than object.__setattr__."""
    scope: dict[str, object] = {"factory": object()}
    parameters = ["self", "*"] if cls.__kw_only__ and cls.__slots__ else ["self"]
    lines = []
    for name in cls.__slots__:
        scope[f"set_{name}"] = cls.__dict__[name].__set__
        value = name
        parameter = name
        if name in cls.__field_defaults__:
            default = cls.__field_defaults__[name]
            if isinstance(default, _Factory):
                scope[f"make_{name}"] = default.make
                parameter = f"{name}=factory"
                value = f"make_{name}() if {name} is factory else {name}"
            else:
                scope[f"default_{name}"] = default
                parameter = f"{name}=default_{name}"
        parameters.append(parameter)
        lines.append(f"    set_{name}(self, {value})")
    if hasattr(cls, "__post_init__"):
        lines.append("    self.__post_init__()")
    text = f"def __init__({', '.join(parameters)}):\n" + ("\n".join(lines) or "    pass")
    exec(text, scope)  # noqa: S102  (the names of a class's own fields, as dataclasses does)
    init: Any = scope["__init__"]
    init.__qualname__ = f"{cls.__qualname__}.__init__"
    return init


def _values(obj: "Any") -> list[object]:
    return [getattr(obj, name) for name in obj.__slots__]


def _repr(self: "Any") -> str:
    fields = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.__slots__)
    return f"{type(self).__qualname__}({fields})"


def _eq(self: object, other: object) -> bool:
    return _values(self) == _values(other) if type(self) is type(other) else NotImplemented


def _hash(self: object) -> int:
    return hash(tuple(_values(self)))


def _refuse_set(self: object, name: str, value: object) -> None:
    from dataclasses import FrozenInstanceError

    raise FrozenInstanceError(f"cannot assign to field {name!r}")


def _refuse_delete(self: object, name: str) -> None:
    from dataclasses import FrozenInstanceError

    raise FrozenInstanceError(f"cannot delete field {name!r}")


def _getstate(self: object) -> list[object]:
    return _values(self)


def _setstate(self: object, state: list[object]) -> None:
    for name, value in zip(self.__slots__, state, strict=True):  # type: ignore[attr-defined]
        object.__setattr__(self, name, value)


if not TYPE_CHECKING:
    dataclass, field, replace = _dataclass, _field, _replace
