"""`size_of` against what tracemalloc sees allocated: within 10 %, with at most 2,000 objects looked at."""

import gc
import json
import sys
import tracemalloc
from collections import OrderedDict, UserDict, defaultdict, deque
from dataclasses import dataclass
from types import MappingProxyType

import pytest

from shared_prompt_cache._core import sizing
from shared_prompt_cache._core.sizing import MAX_OBJECTS, size_of


@dataclass
class Turn:
    role: str
    extra: dict


@dataclass(frozen=True, slots=True)
class SlottedTurn:
    role: str
    extra: dict


class Plain:
    def __init__(self, number):
        self.text = f"number {number}" * 3
        self.numbers = [number + 1000]
        self.ratio = number * 1.5


class Messages(list):
    pass


def message(number):
    return {"role": "user", "content": f"message {number} " * (3 + number % 7), "score": number * 1.5}


def from_json(value):
    return json.loads(json.dumps(value))


def shared_instruction():
    instruction = "be brief " * 10_000
    return [{"system": instruction, "number": number * 1.5} for number in range(5_000)]


MADE = {
    "ascii": lambda: "a" * 5_000,
    "latin-1": lambda: "é" * 5_000,
    "two bytes": lambda: "Ж" * 5_000,
    "four bytes": lambda: "😀" * 5_000,
    "bytes": lambda: bytes(5_000),
    "small ints": lambda: list(range(200)),
    "ints": lambda: [number + 10**6 for number in range(1_000)],
    "messages": lambda: [message(number) for number in range(100)],
    "nested": lambda: from_json({"a": [{"b": [{"c": str(i), "d": [i * 1.5]} for i in range(9)]} for _ in range(9)]}),
    "metadata": lambda: MappingProxyType(
        from_json({"agent": "engineer", "size": 123_456, "tags": ["python", "x" * 30]})
    ),
    "tuples": lambda: tuple((str(number) * 4, number * 1.5) for number in range(300)),
    "set": lambda: {f"tag {number}" for number in range(1_000)},
    "deque": lambda: deque(f"line {number}" for number in range(1_000)),
    "dataclasses": lambda: [Turn("user" * (number % 9), {"n": number * 1.5}) for number in range(200)],
    "slots": lambda: [SlottedTurn("user" * (number % 9), {"n": number * 1.5}) for number in range(200)],
    "objects": lambda: [Plain(number) for number in range(200)],
    "defaultdict": lambda: defaultdict(list, {number + 1000: [str(number) * 3] for number in range(200)}),
    "ordered": lambda: UserDict({f"key {number}": "v" * number for number in range(100)}),
    "list with a name": lambda: Messages(f"line {number}" for number in range(500)),
    # more than is looked at
    "20,000 messages": lambda: [message(number) for number in range(20_000)],
    "50,000 keys": lambda: {f"key {number}": "v" * (number % 97) for number in range(50_000)},
    "50,000 in a defaultdict": lambda: defaultdict(str, {f"key {n}": "v" * (n % 97) for n in range(50_000)}),
    "growing lines": lambda: ["x" * (number // 10 + 1) for number in range(20_000)],
    "300 lists of 300": lambda: [[f"{row} and {place}" for place in range(300)] for row in range(300)],
    "one text 5,000 times": lambda: ["be brief" * 1_000] * 5_000,
    "shared by 5,000": shared_instruction,
}


def allocated(make):
    value, sizes = make(), []
    tracemalloc.start()
    try:
        for _ in range(3):  # the least: callbacks of the collector allocate, too
            value = None
            gc.collect()
            before = tracemalloc.get_traced_memory()[0]
            value = make()
            gc.collect()
            sizes.append(tracemalloc.get_traced_memory()[0] - before)
    finally:
        tracemalloc.stop()
    return value, min(sizes)


@pytest.mark.parametrize("name", MADE)
def test_the_size_is_within_ten_percent(name):
    """Seen to fail with keys of dicts left out, and with the plain mean where members share a text."""
    value, real = allocated(MADE[name])
    assert size_of(value) == pytest.approx(real, rel=0.1)


def test_what_is_referred_to_twice_counts_once():
    text = "x" * 10_000
    assert size_of([text, text, {"again": text}]) < 1.1 * size_of(text)


def test_what_contains_itself_has_a_size():
    loop = ["x" * 1_000]
    loop.append(loop)
    assert size_of(loop) < 1_500


def test_types_modules_and_functions_belong_to_the_program():
    assert size_of([Plain, sys, size_of, len, None, True, 5]) < 200


def test_no_more_than_two_thousand_objects_are_looked_at(monkeypatch):
    looked_at = 0

    def counted(value):
        nonlocal looked_at
        looked_at += 1
        return sys.getsizeof(value)

    monkeypatch.setattr(sizing, "getsizeof", counted)
    for make in MADE.values():
        value = make()
        looked_at = 0
        size_of(value)
        assert looked_at <= MAX_OBJECTS + 1


class Hostile:
    """Answers every question with an error, and would tell if its own code ran."""

    asked = 0

    def __init__(self):
        object.__setattr__(self, "text", "x" * 1_000)

    def __sizeof__(self):
        raise RuntimeError

    def _never(self, *_):
        Hostile.asked += 1
        raise AssertionError

    __getattribute__ = __iter__ = __len__ = __eq__ = __hash__ = __repr__ = __getitem__ = _never


class HostileList(list):
    def _never(self, *_):
        Hostile.asked += 1
        raise AssertionError

    __getattribute__ = __iter__ = __len__ = __getitem__ = _never


class HostileDict(OrderedDict):
    def _never(self, *_):
        Hostile.asked += 1
        raise AssertionError

    keys = values = items = __iter__ = __len__ = __getitem__ = _never


@pytest.mark.parametrize("many", [50, 5_000])
def test_hostile_values_are_measured_without_running_their_code(many):
    texts = [str(number) * 100 for number in range(many)]
    expected = size_of(texts)
    sizes = [size_of([Hostile()]), size_of(HostileList(texts)), size_of([HostileDict.fromkeys(texts)])]
    assert Hostile.asked == 0
    assert sizes[0] > 1_000
    assert sizes[1] == pytest.approx(expected, rel=0.1)
    assert sizes[2] > expected


def test_a_size_that_is_no_number_is_replaced():
    for answer in ("many", -1, None, 1.5):
        kind = type("Lying", (), {"__sizeof__": lambda self, answer=answer: answer})
        assert 0 < size_of(kind()) < 1_000


def test_types_that_cannot_be_hashed_have_a_size():
    kind = type("Meta", (type,), {"__eq__": lambda self, other: False})("Odd", (), {})
    assert size_of(kind()) > 0
    assert size_of([kind()]) > 0


def test_endless_nesting_has_a_size_from_anywhere_in_the_stack():
    nested = []
    for _ in range(100_000):
        nested = [nested]
    assert size_of(nested) > 5_000

    def deeper():
        try:
            return deeper()
        except RecursionError:
            return size_of(nested)

    assert deeper() > 0
    while nested:  # taken apart by hand: the interpreter would do it recursively
        nested = nested.pop()
