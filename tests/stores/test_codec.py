"""A value becomes a payload under the name of its codec, compressed where that pays; what is no payload is unreadable.

Seen to fail on planted bugs: halves of surrogate pairs that are refused; a payload that is kept compressed although it
became no shorter; samples that are not taken; decompressing without a limit, or what is cut off or has more behind it;
an error of msgspec that comes out as it is.
"""

import pickle
import random
import tracemalloc
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from _support import size
from shared_prompt_cache.errors import SerializationError
from shared_prompt_cache.stores import _codec, _values
from shared_prompt_cache.stores._codec import MOST_PLAIN, Unreadable, decode, encode
from stores._kept import same, values

PROMPT = "".join(f"- memory {number}: prefer {number * 7919 % 1000} over {number % 13}\n" for number in range(4_000))
RANDOM = random.Random(7).randbytes(200_000)


@pytest.mark.timeout(900)
@settings(max_examples=size(30, 2_000))
@given(values | st.text() | st.binary())
def test_what_is_encoded_comes_back_equal_and_of_its_type(value):
    codec, payload, raw_size = encode(value)
    assert codec in {"str", "bytes", "msgpack"}
    assert raw_size == len(payload)
    assert same(decode(codec, payload, raw_size), value)


@pytest.mark.parametrize(
    ("value", "codec"),
    [
        ("", "str"),
        ("x" * MOST_PLAIN, "str"),
        ("x" * (MOST_PLAIN + 1), "str+zlib"),
        (PROMPT, "str+zlib"),
        (PROMPT + "\ud83d", "str+zlib"),
        (b"", "bytes"),
        (b"x" * 5_000, "bytes+zlib"),
        (RANDOM[:5_000], "bytes"),
        (RANDOM, "bytes"),
        (PROMPT.encode() + RANDOM, "bytes+zlib"),
        (None, "msgpack"),
        (bytearray(RANDOM), "msgpack"),
        ({"role": "user", "content": PROMPT}, "msgpack+zlib"),
        ([PROMPT, (1, 2)], "msgpack+zlib"),
    ],
    ids=lambda value: value if isinstance(value, str) and len(value) < 20 else type(value).__name__,
)
def test_the_name_says_how_and_whether_it_was_compressed(value, codec):
    encoded = encode(value)
    assert encoded.codec == codec
    assert same(decode(*encoded), value)
    assert same(decode(encoded.codec, encoded.payload), value)
    if codec.endswith("+zlib"):
        assert len(encoded.payload) <= encoded.raw_size * 0.9


def test_what_hardly_gets_shorter_stays_as_it_is():
    mixed = b"".join(RANDOM[at : at + 95] + b"aaaaa" for at in range(0, 50_000, 95))
    assert 0.9 < len(zlib.compress(mixed, 1)) / len(mixed) < 1
    assert encode(mixed).codec == "bytes"


def test_of_what_is_large_samples_tell_whether_it_is_tried_at_all(monkeypatch):
    tried = []
    compress = zlib.compress
    monkeypatch.setattr(_codec.zlib, "compress", lambda raw, level: tried.append(len(raw)) or compress(raw, level))
    encode(RANDOM)
    assert sum(tried) <= len(RANDOM) / 10
    tried.clear()
    encode(PROMPT)
    assert sum(tried) <= len(PROMPT) * 1.1


def test_what_is_larger_than_any_store_takes_is_refused(monkeypatch):
    for module in (_codec, _values):
        monkeypatch.setattr(module, "MOST_BYTES", 2**20)
    for value in ("x" * (2**20 + 1), "é" * (2**19 + 1), b"x" * (2**20 + 1), ["x" * 2**20]):
        with pytest.raises(SerializationError, match="value takes more than 1 MiB, which no store keeps"):
            encode(value)
    assert decode(*encode("x" * 2**20)) == "x" * 2**20


@pytest.mark.parametrize(
    ("codec", "payload", "raw_size"),
    [
        ("str", b"\xff", 1),
        ("msgpack", b"\xc1", 1),
        ("msgpack", b"\x91" * 100_000, None),
        ("msgpack", b"\xd4\x63\x00", None),
        ("msgpack", b"\xc7\x02\x0fxy", None),
        ("pickle", pickle.dumps("x"), None),
        ("msgpack", pickle.dumps({"a": ["x"]}), None),
        ("", b"", 0),
        ("+zlib", zlib.compress(b"x"), None),
        ("str+zlib+zlib", zlib.compress(zlib.compress(b"x")), None),
        ("str+zlib", b"x", 1),
        ("str+zlib", zlib.compress(b"x" * 100)[:-1], 100),
        ("str+zlib", zlib.compress(b"x" * 100) + b"x", 100),
        ("str+zlib", zlib.compress(b"x" * 100), 99),
        ("str+zlib", zlib.compress(b"x" * 100), 101),
        ("bytes", b"x", 2),
        ("bytes", b"x", 0),
        ("bytes", b"x", -1),
        ("bytes", b"x", 2**40),
        ("bytes", "x", None),
        ("bytes", None, None),
        ("bytes", 5, None),
        (None, b"x", None),
        (b"bytes", b"x", None),
    ],
)
def test_what_is_no_payload_is_unreadable(codec, payload, raw_size):
    with pytest.raises(Unreadable) as caught:
        decode(codec, payload, raw_size)
    assert caught.value.reason


@pytest.mark.timeout(900)
@settings(max_examples=size(60, 20_000))
@given(st.sampled_from(["str", "bytes", "msgpack", "str+zlib", "msgpack+zlib"]), st.binary(max_size=60))
def test_any_bytes_are_a_value_or_unreadable(codec, payload):
    try:
        value = decode(codec, payload)
    except Unreadable:
        return
    assert same(decode(*encode(value)), value)


@pytest.mark.parametrize("raw_size", [None, 1_000])
def test_a_small_payload_that_would_become_a_huge_value_takes_little_memory(raw_size, monkeypatch):
    monkeypatch.setattr(_codec, "MOST_BYTES", 2**20)
    bomb = zlib.compress(bytes(64 * 2**20), 9)
    tracemalloc.start()
    try:
        with pytest.raises(Unreadable):
            decode("bytes+zlib", bomb, raw_size)
        assert tracemalloc.get_traced_memory()[1] < 4 * 2**20
    finally:
        tracemalloc.stop()
