"""dataclasses as the standard library has them, for a command that ends after 0.05 s.

``@dataclass`` of the standard library imports inspect, and compiles six functions for each
class: 1 ms for one that is frozen and has slots. A command has a hundred of them, and makes
more than a few values of hardly any. Here only ``__init__`` is compiled, and only for a class
of which there are to be many values; the others are the same few functions for all classes.

Well-kept libraries would not do: attrs compiles as much for each class, and more of its own;
msgspec's structs are quick to make, but are no dataclasses, so that cattrs does not read them
and ``field(compare=False)`` is not to be had.

For whoever reads it, and for type checkers, it is the standard library's decorator. What
asks for more than values do (``dataclasses.fields``, cattrs, ``inspect.signature``) gets it
from a dataclass of the standard library with the same fields, which is made when it is
asked for. tests/unit/test_values.py holds every class of lvsctl against that one.
"""

from __future__ import annotations

import operator
from collections.abc import Callable

from lvsctl.annotations import TYPE_CHECKING, Any, TypeVar

__all__ = ["asdict", "dataclass", "field", "replace"]

T = TypeVar("T")

_MISSING: Any = object()
_FIELDS = "__lvsctl_fields__"

FEW = 32
"""So many values of a class are made field by field: each takes 2 µs longer than one made by an
``__init__`` of its own, which takes 25 to 65 µs to compile (Python 3.11)."""

_set = object.__setattr__


class _Field:
    """One field; ``kw_only`` is its class's, the rest is what ``dataclasses.field`` takes."""

    __slots__ = ("compare", "factory", "hash", "init", "kw_only", "name", "of", "repr", "value")

    def __init__(
        self,
        *,
        default: Any = _MISSING,
        default_factory: Any = _MISSING,
        init: bool = True,
        repr: bool = True,  # noqa: A002 (the standard library's words)
        hash: bool | None = None,  # noqa: A002
        compare: bool = True,
    ) -> None:
        self.value, self.factory, self.init = default, default_factory, init
        self.repr, self.hash, self.compare = repr, compare if hash is None else hash, compare
        self.name, self.of, self.kw_only = "", "", False

    def for_the_standard_library(self) -> Any:
        """The same as ``dataclasses.field`` gives it."""
        import dataclasses

        words = {"default": self.value, "default_factory": self.factory}
        given = {word: value for word, value in words.items() if value is not _MISSING}
        return dataclasses.field(
            init=self.init, repr=self.repr, compare=self.compare, kw_only=self.kw_only,
            hash=None if self.hash == self.compare else self.hash, **given,
        )  # fmt: skip


class _Told:
    """An attribute that the standard library's dataclass of the same fields is asked for."""

    __slots__ = ("_about", "_name")

    def __init__(self, about: type, name: str) -> None:
        self._about, self._name = about, name

    def __get__(self, _value: object, _owner: type | None = None) -> Any:
        twin = standard(self._about)
        if self._name == "__signature__":
            import inspect

            return inspect.signature(twin)
        return getattr(twin, self._name)


def standard(cls: type) -> type:
    """The standard library's dataclass with the fields of ``cls``. Made once, and slowly."""
    twin = cls.__dict__["__lvsctl_twin__"]
    if not twin:
        import dataclasses

        fields = getattr(cls, _FIELDS).values()
        parts = [(one.name, one.of, one.for_the_standard_library()) for one in fields]
        made = dataclasses.make_dataclass(cls.__name__, parts, **cls.__dict__["__lvsctl_words__"])
        twin.append(made)
    return twin[0]  # type: ignore[no-any-return]


def _dataclass(
    cls: type | None = None,
    /,
    *,
    frozen: bool = False,
    slots: bool = False,
    order: bool = False,
    kw_only: bool = False,
    repr: bool = True,  # noqa: A002
) -> Any:
    """``dataclasses.dataclass``; its other words are not understood."""

    def decorate(plain: type) -> type:
        fields = _fields_of(plain, kw_only)
        members = _members(plain, fields, frozen=frozen, order=order, with_repr=repr)
        made = _with_slots(plain, fields, members, frozen=frozen) if slots else plain
        if not slots:
            for name, member in members.items():
                setattr(made, name, member)
        words = {"frozen": frozen, "order": order, "repr": repr}
        setattr(made, _FIELDS, fields)
        setattr(made, "__lvsctl_twin__", [])  # noqa: B010 (a class's own, known to nobody else)
        setattr(made, "__lvsctl_words__", words)  # noqa: B010
        for name in ("__dataclass_fields__", "__dataclass_params__", "__signature__"):
            setattr(made, name, _Told(made, name))
        if "__init__" not in plain.__dict__:
            setattr(made, "__init__", _init_when_needed(made, fields, frozen=frozen))  # noqa: B010
        return made

    return decorate if cls is None else decorate(cls)


def _fields_of(cls: type, kw_only: bool) -> dict[str, _Field]:
    """The fields of the bases, and then its own."""
    fields: dict[str, _Field] = {}
    for base in cls.__mro__[-1:0:-1]:
        if _FIELDS not in base.__dict__ and "__dataclass_fields__" in base.__dict__:
            raise TypeError(f"{base.__name__} is a dataclass of the standard library")
        fields |= base.__dict__.get(_FIELDS, {})
    for name, of in cls.__annotations__.items():
        given = cls.__dict__.get(name, _MISSING)
        one = given if isinstance(given, _Field) else _Field(default=given)
        one.name, one.of, one.kw_only = name, of, kw_only
        fields[name] = one
        if given is not _MISSING and one.value is _MISSING:
            delattr(cls, name)
        elif given is not _MISSING:
            setattr(cls, name, one.value)
    return fields


def _members(
    cls: type, fields: dict[str, _Field], *, frozen: bool, order: bool, with_repr: bool
) -> dict[str, Any]:
    """The methods that the class has not got itself."""
    compared = _getter([one.name for one in fields.values() if one.compare])
    hashed = _getter([one.name for one in fields.values() if one.hash])
    members: dict[str, Any] = {"__eq__": _comparing(operator.eq, compared)}
    if with_repr:
        members["__repr__"] = _repr_of([one.name for one in fields.values() if one.repr])
    if frozen:
        members |= {"__setattr__": _refuse_setting, "__delattr__": _refuse_deleting}
    members["__hash__"] = (lambda value: hash(hashed(value))) if frozen else None
    if order:
        for name in ("lt", "le", "gt", "ge"):
            members[f"__{name}__"] = _comparing(getattr(operator, name), compared)
    members["__match_args__"] = tuple(
        one.name for one in fields.values() if one.init and not one.kw_only
    )
    own = {name for name in members if name in cls.__dict__}
    if cls.__dict__.get("__hash__", cls) is None and "__eq__" in cls.__dict__:
        own.discard("__hash__")  # Python put it there, because of __eq__
    return {name: member for name, member in members.items() if name not in own}


def _with_slots(
    cls: type, fields: dict[str, _Field], members: dict[str, Any], *, frozen: bool
) -> type:
    """The class anew: slots can only be given to one that is being made."""
    inherited = {name for base in cls.__mro__[1:-1] for name in base.__dict__.get("__slots__", ())}
    namespace = {name: value for name, value in cls.__dict__.items() if name not in fields}
    namespace.pop("__dict__", None)
    namespace.pop("__weakref__", None)
    namespace["__slots__"] = tuple(name for name in fields if name not in inherited)
    if frozen and "__getstate__" not in namespace:  # or nothing could be copied or pickled
        namespace |= {"__getstate__": _state, "__setstate__": _set_state}
    namespace["__qualname__"] = cls.__qualname__
    return type(cls)(cls.__name__, cls.__bases__, namespace | members)


def _init_when_needed(cls: type, fields: dict[str, _Field], *, frozen: bool) -> Callable[..., None]:
    """An ``__init__`` that goes through the fields, until there have been ``FEW`` values.

    Then, or where the arguments do not fit, it puts the one compiled for this class in its place.
    """
    positional = [one.name for one in fields.values() if one.init and not one.kw_only]
    allowed = {one.name for one in fields.values() if one.init}
    put = _set if frozen else setattr
    after = getattr(cls, "__post_init__", None)
    left = FEW

    def __init__(self: Any, /, *args: Any, **words: Any) -> None:  # noqa: N807
        nonlocal left
        left -= 1
        given = dict(zip(positional, args, strict=False))
        given.update(words)
        if left < 0 or len(given) < len(args) + len(words) or not given.keys() <= allowed:
            compiled(self, args, words)
            return
        for name, one in fields.items():
            if name in given:
                put(self, name, given[name])
            elif one.value is not _MISSING:
                put(self, name, one.value)
            elif one.factory is not _MISSING:
                put(self, name, one.factory())
            elif one.init:
                compiled(self, args, words)
                return
        if after:
            self.__post_init__()

    def compiled(self: Any, args: tuple[Any, ...], words: dict[str, Any]) -> None:
        made = _compiled_init(cls, fields, frozen=frozen)
        setattr(cls, "__init__", made)  # noqa: B010
        made(self, *args, **words)

    return __init__


def _compiled_init(cls: type, fields: dict[str, _Field], *, frozen: bool) -> Callable[..., None]:
    """``__init__`` as one would write it for these fields."""
    known: dict[str, Any] = {"_MISSING": _MISSING, "_set": _set}
    slots = "__slots__" in cls.__dict__
    positional, named, body = ["self"], list[str](), list[str]()
    for one in fields.values():
        name, value = one.name, one.name
        if one.factory is not _MISSING:
            known[f"_make_{name}"] = one.factory
            value = f"_make_{name}() if {name} is _MISSING else {name}"
            default = "=_MISSING"
        elif one.value is not _MISSING:
            known[f"_default_{name}"] = one.value
            default = f"=_default_{name}"
        else:
            default = ""
        if one.init:
            (named if one.kw_only else positional).append(f"{name}{default}")
        elif one.factory is not _MISSING:
            value = f"_make_{name}()"
        elif one.value is not _MISSING:
            value = f"_default_{name}"
        else:
            continue  # ``__post_init__`` sees to it
        if not frozen:
            body.append(f"self.{name} = {value}")
        elif slots:  # the slot itself is quicker than object.__setattr__, which looks it up
            known[f"_set_{name}"] = getattr(cls, name).__set__
            body.append(f"_set_{name}(self, {value})")
        else:
            body.append(f"_set(self, {name!r}, {value})")
    if hasattr(cls, "__post_init__"):
        body.append("self.__post_init__()")
    arguments = ", ".join([*positional, *(["*", *named] if named else [])])
    lines = "".join(f"\n {line}" for line in body or ["pass"])
    exec(f"def __init__({arguments}):{lines}", known)  # noqa: S102 (as dataclasses do)
    made: Callable[..., None] = known["__init__"]
    made.__qualname__ = f"{cls.__qualname__}.__init__"
    return made


def _getter(names: list[str]) -> Callable[[Any], tuple[Any, ...]]:
    """What gives a value's attributes as a tuple."""
    if len(names) > 1:
        return operator.attrgetter(*names)
    return lambda value: tuple(getattr(value, name) for name in names)


def _comparing(
    compare: Callable[[Any, Any], bool], compared: Callable[[Any], tuple[Any, ...]]
) -> Callable[[Any, Any], Any]:
    def method(self: Any, other: Any) -> Any:
        if other.__class__ is not self.__class__:
            return NotImplemented
        return compare(compared(self), compared(other))

    return method


def _repr_of(names: list[str]) -> Callable[[Any], str]:
    def __repr__(self: Any) -> str:  # noqa: N807
        parts = ", ".join(f"{name}={getattr(self, name)!r}" for name in names)
        return f"{self.__class__.__qualname__}({parts})"

    return __repr__


def _refuse_setting(self: Any, name: str, _value: Any) -> None:
    _refuse(self, name, "assign to")


def _refuse_deleting(self: Any, name: str) -> None:
    _refuse(self, name, "delete")


def _refuse(self: Any, name: str, doing: str) -> None:
    from dataclasses import FrozenInstanceError

    raise FrozenInstanceError(f"cannot {doing} field {name!r} of {type(self).__name__}")


def _state(self: Any) -> list[Any]:
    return [getattr(self, name) for name in getattr(self, _FIELDS)]


def _set_state(self: Any, state: list[Any]) -> None:
    for name, value in zip(getattr(self, _FIELDS), state, strict=True):
        _set(self, name, value)


def _replace(value: T, /, **changes: Any) -> T:
    """``dataclasses.replace``."""
    for name, one in getattr(value, _FIELDS).items():
        if one.init:
            changes.setdefault(name, getattr(value, name))
    return type(value)(**changes)


def _asdict(value: Any) -> dict[str, Any]:
    """``dataclasses.asdict``, but that what is no container is not copied."""
    return {name: _plain(getattr(value, name)) for name in getattr(value, _FIELDS)}


def _plain(value: Any) -> Any:
    if hasattr(type(value), _FIELDS):
        return _asdict(value)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*map(_plain, value))
    if isinstance(value, list | tuple):
        return type(value)(map(_plain, value))
    if isinstance(value, dict):
        return type(value)((_plain(key), _plain(kept)) for key, kept in value.items())
    return value


if TYPE_CHECKING:
    from dataclasses import asdict, dataclass, field, replace
else:
    asdict, dataclass, field, replace = _asdict, _dataclass, _Field, _replace
