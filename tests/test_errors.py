"""One tree of errors: each can be caught by its builtin kin, carries facts, and says where."""

import inspect
from pathlib import Path

import pytest

from shared_prompt_cache import errors
from shared_prompt_cache.errors import (
    CacheClosedError,
    CacheError,
    CacheKeyError,
    ComputeCancelled,
    ComputeTimeout,
    ConfigError,
    ConfigTypeError,
    RecursiveComputeError,
    SerializationError,
    StoreError,
    WrongLoopError,
)

ALL = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, BaseException)]


def test_every_error_is_a_cache_error_and_drawn_in_the_tree():
    for kind in ALL:
        assert issubclass(kind, CacheError)
        assert kind.__name__ in errors.__doc__
        assert kind.__doc__


@pytest.mark.parametrize(
    ("kind", "kin"),
    [
        (CacheKeyError, ValueError),
        (ConfigError, ValueError),
        (ConfigTypeError, TypeError),
        (ConfigTypeError, ConfigError),
        (ComputeTimeout, TimeoutError),
    ],
)
def test_errors_can_be_caught_as_their_builtin_kin(kind, kin):
    assert issubclass(kind, kin)


def test_a_cancelled_computation_is_no_cancellation_of_its_caller():
    assert issubclass(ComputeCancelled, Exception)


@pytest.mark.parametrize(
    ("place", "text"),
    [
        ({}, "wrong"),
        ({"line": 3}, "line 3: wrong"),
        ({"file": Path("a.yaml")}, "a.yaml: wrong"),
        ({"file": Path("a.yaml"), "line": 3}, "a.yaml:3: wrong"),
    ],
)
def test_a_configuration_error_says_where(place, text):
    error = ConfigError("wrong", field="cache.size", **place)
    assert str(error) == text
    assert (error.field, error.file, error.line) == ("cache.size", place.get("file"), place.get("line"))


def test_errors_carry_facts():
    assert CacheKeyError("m", key=5).key == 5
    store = StoreError("m", operation="get", key="k")
    assert (store.operation, store.key) == ("get", "k")
    timeout = ComputeTimeout("m", key="k", timeout=2.0)
    assert (timeout.key, timeout.timeout) == ("k", 2.0)
    assert ComputeCancelled("m", key="k").key == "k"
    assert RecursiveComputeError("m", cycle=("a", "b", "a")).cycle == ("a", "b", "a")


@pytest.mark.parametrize(
    "error",
    [
        CacheError("m"),
        CacheKeyError("m"),
        ConfigTypeError("m"),
        SerializationError("m"),
        StoreError("m", operation="get"),
        ComputeTimeout("m", key="k", timeout=1.0),
        ComputeCancelled("m", key="k"),
        RecursiveComputeError("m", cycle=("a", "a")),
        CacheClosedError("m"),
        WrongLoopError("m"),
    ],
)
def test_the_message_is_what_was_said(error):
    assert str(error) == "m"
