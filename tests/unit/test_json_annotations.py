"""JSON values are checked against annotations, and converted; annotations that JSON cannot express are refused at once."""

import collections.abc
import datetime
import enum
import typing
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, NotRequired, Optional, Required, TypedDict

import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from arbitrary import json_values
from tb_mqtt_client.common.json_annotations import json_type
from tb_mqtt_client.entities.data.rpc_response import RPCResponse


class Mode(enum.Enum):
    ECO = "eco"
    FULL = 3


class Limits(TypedDict):
    low: float
    high: NotRequired[float]


class Partial(TypedDict, total=False):
    low: Required[int]
    note: str


@dataclass
class Point:
    x: int
    y: int = 0
    tags: list[str] = field(default_factory=list)
    sum: int = field(init=False, default=0)

    def __post_init__(self):
        if self.x < 0:
            raise ValueError("x is negative")


@dataclass
class Tree:
    name: str
    children: list["Tree"] = field(default_factory=list)


def converted(annotation, value):
    return json_type(annotation, "p").convert(value, "p")


@pytest.mark.parametrize(
    ("annotation", "value", "expected"),
    [
        (int, 5, 5),
        (float, 5, 5.0),
        (float, 2.5, 2.5),
        (bool, False, False),
        (str, "a", "a"),
        (None, None, None),
        (Any, {"a": [1]}, {"a": [1]}),
        (object, 1, 1),
        (int | None, None, None),
        (Optional[int], 3, 3),  # noqa: UP045
        (int | str, "x", "x"),
        (list, [1, "a"], [1, "a"]),
        (list[float], [1, 2.5], [1.0, 2.5]),
        (collections.abc.Sequence[int], [1], [1]),
        (tuple[int, str], [1, "a"], (1, "a")),
        (tuple[int, ...], [1, 2], (1, 2)),
        (tuple, [1, None], (1, None)),
        (dict, {"a": 1}, {"a": 1}),
        (dict[str, float], {"a": 1}, {"a": 1.0}),
        (collections.abc.Mapping[str, int], {"a": 1}, {"a": 1}),
        (Literal["on", 1], 1, 1),
        (Mode, "eco", Mode.ECO),
        (Mode, 3, Mode.FULL),
        (Annotated[int, "a note"], 3, 3),
        (Limits, {"low": 1}, {"low": 1.0}),
        (Limits, {"low": 1, "high": 2}, {"low": 1.0, "high": 2.0}),
        (Partial, {"low": 1}, {"low": 1}),
        (Point, {"x": 1}, Point(1)),
        (Point, {"x": 1, "y": 2, "tags": ["a"]}, Point(1, 2, ["a"])),
        (list[Point], [{"x": 1}], [Point(1)]),
        (Tree, {"name": "a", "children": [{"name": "b"}]}, Tree("a", [Tree("b")])),
        (Point | int, 4, 4),
    ],
)
def test_a_value_is_converted(annotation, value, expected):
    result = converted(annotation, value)
    assert result == expected
    assert type(result) is type(expected)


@pytest.mark.parametrize(
    ("annotation", "value", "text"),
    [
        (int, "5", "p must be an integer, not '5'"),
        (int, True, "p must be an integer, not True"),
        (int, 5.0, r"p must be an integer, not 5\.0"),
        (float, True, "p must be a number, not True"),
        (float, 10**400, "p is too large for a float"),
        (str, None, "p must be a string, not None"),
        (bool, 1, "p must be true or false, not 1"),
        (int | None, "a", "p must be an integer or null, not 'a'"),
        (list[int], [1, "a"], r"p\[1\] must be an integer, not 'a'"),
        (list[int], {}, r"p must be a list, not \{\}"),
        (tuple[int, str], [1], r"p must be a list with 2 items, not \[1\]"),
        (dict[str, int], {"a": "b"}, r"p\['a'\] must be an integer, not 'b'"),
        (dict, [], r"p must be an object, not \[\]"),
        (Literal["on", 1], True, "p must be 'on' or 1, not True"),
        (Mode, "FULL", "p must be 'eco' or 3, not 'FULL'"),
        (Limits, {}, "p has no 'low'; it must be an object with low, high"),
        (Limits, {"low": 1, "more": 2}, "p has an unknown 'more'; it must be an object with low, high"),
        (Limits, {"low": "a"}, r"p\.low must be a number, not 'a'"),
        (Partial, {"note": "a"}, "p has no 'low'"),
        (Point, {}, "p has no 'x'"),
        (Point, {"x": 1, "sum": 3}, "p has an unknown 'sum'"),
        (Point, {"x": -1}, "p is not a valid Point: x is negative"),
        (Point, 3, "p must be an object with x, y, tags, not 3"),
        (Point | None, {"x": "a"}, r"p\.x must be an integer, not 'a'"),
        (Tree, {"name": "a", "children": [{"name": 1}]}, r"p\.children\[0\]\.name must be a string, not 1"),
    ],
)
def test_a_value_that_does_not_fit_is_named(annotation, value, text):
    with pytest.raises(ValueError, match=f"^{text}"):
        converted(annotation, value)


@dataclass
class WithTime:
    at: datetime.datetime


class Unresolved(TypedDict):
    a: "NoSuchName"  # noqa: F821


@pytest.mark.parametrize(
    ("annotation", "text"),
    [
        (datetime.datetime, "'p' has the annotation datetime, which is not supported: use int"),
        (WithTime, r"'p\.at' has the annotation datetime"),
        (set[int], r"'p' has the annotation set\[int\]"),
        (collections.abc.Callable, "'p' has the annotation Callable"),
        (dict[int, str], r"the keys of a JSON object are of type str"),
        (list[bytes], r"'p\[\]' has the annotation bytes"),
        (int | bytes, "'p' has the annotation bytes"),
        (typing.TypeVar("T"), "'p' has the annotation ~T"),
        (Unresolved, r"an annotation in Unresolved \(of 'p'\) cannot be resolved: name 'NoSuchName' is not defined"),
        # Made by the package only.
        (RPCResponse, "'p' has the annotation RPCResponse"),
    ],
)
def test_an_annotation_that_json_cannot_express_is_refused(annotation, text):
    with pytest.raises(TypeError, match=text):
        json_type(annotation, "p")


ANNOTATIONS = [int, float | None, list[int], dict[str, bool], tuple[int, ...], Literal[1, "a"], Mode, Limits, Point, Tree, Any]


@given(st.sampled_from(ANNOTATIONS), json_values())
def test_a_value_is_converted_or_refused_whatever_it_is(annotation, value):
    with suppress(ValueError):
        json_type(annotation, "p").convert(value, "p")


def test_models_of_pydantic():
    class Pump(pydantic.BaseModel):
        name: str
        speed: int = pydantic.Field(ge=0)

    assert converted(Pump, {"name": "a", "speed": 3}) == Pump(name="a", speed=3)
    with pytest.raises(ValueError, match=r"p\.speed: Input should be greater than or equal to 0"):
        converted(Pump, {"name": "a", "speed": -1})
    assert converted(list[Pump], [{"name": "a", "speed": 1}]) == [Pump(name="a", speed=1)]
    percent = Annotated[int, pydantic.Field(le=100)]
    assert converted(percent, 100) == 100
    with pytest.raises(ValueError, match="p: Input should be less than or equal to 100"):
        converted(percent, 101)


def test_models_of_msgspec():
    Pump = msgspec.defstruct("Pump", [("name", str), ("speed", Annotated[int, msgspec.Meta(ge=0)])])
    assert converted(Pump, {"name": "a", "speed": 3}) == Pump("a", 3)
    with pytest.raises(ValueError, match=r"p: Expected `int` >= 0 - at `\$\.speed`"):
        converted(Pump, {"name": "a", "speed": -1})
    with pytest.raises(ValueError, match="p: Expected `int` <= 9"):
        converted(Annotated[int, msgspec.Meta(le=9)], 10)
