"""P9: a stored entry is believed only as it was sealed, by who has the secret; whatever else it is, it is a miss.

Seen to fail on planted bugs: a checksum without the lengths of its fields; one that leaves out the key, the codec or
the head; half a checksum that is compared; a payload that is decoded before the seal is checked; a head that may have
more fields than it has, or any version.
"""

import math
import random
import subprocess
import sys
from datetime import datetime
from enum import StrEnum
from zoneinfo import ZoneInfo

import msgspec
import pytest

from _support import size
from shared_prompt_cache.errors import SerializationError
from shared_prompt_cache.stores import _seal
from shared_prompt_cache.stores._codec import Unreadable
from shared_prompt_cache.stores._protocol import Stamp, StoredEntry
from shared_prompt_cache.stores._seal import VERSION, Sealer, StoredDependency, pack, unpack
from stores._kept import same

SEALER = Sealer(b"s" * 32)
FILE = StoredDependency(
    path=".//memory.md",
    kind="file",
    digest=b"d" * 16,
    status=(2**64 - 1, 2**64 - 1, 12, 1_700_000_000_123_456_789, 1_700_000_000_123_456_790),
    settled=True,
    pattern=None,
    folders=(),
    linked=False,
    remote=False,
)
LISTING = StoredDependency(
    path="/home/user/agents",
    kind="listing",
    digest=None,
    status=(0, 0, 0, 0, 0),
    settled=False,
    pattern="**/*.md",
    folders=(("/home/user/agents", (1, 2, 3, 4, 5)),),
    linked=True,
    remote=True,
)
FACTS = {
    "metadata": {"agent": "engineer", "at": datetime(2026, 1, 2, tzinfo=ZoneInfo("Europe/Berlin")), "n": (1, {2})},
    "agent": "Python_Engineer",
    "project": None,
    "tags": frozenset({"b", "a"}),
    "created_at": 1_700_000_000.25,
    "expires_at": math.inf,
    "ttl": 3600.0,
    "names": ("all", "key\x1fk"),
    "consumed": (("other", True),),
    "stamp": Stamp(7, "cache-1", 3),
    "root": b"8 bytes.",
    "dependencies": (FILE, LISTING),
}


def packed(key="k", value="prompt", sealer=SEALER, **facts):
    return pack(sealer, key, value, **(FACTS | facts))


def resealed(entry, **changes):
    """Return what an entry would be if whoever has the secret had made it like this."""
    fields = {name: getattr(entry, name) for name in ("key", "codec", "payload", "head")} | changes
    return StoredEntry(**fields, checksum=SEALER.seal(**fields))


@pytest.mark.parametrize("value", ["", None, "prompt\n" * 10_000, {"a": [1, (2, b"3")]}, b"x" * 5_000])
def test_what_is_unpacked_is_what_was_packed(value):
    entry = packed(value=value)
    assert SEALER.holds(entry)
    found = unpack(Sealer(b"s" * 32), entry)
    assert same(found.value, value)
    assert same(found.metadata, FACTS["metadata"])
    head = found.head
    assert head.tags == ("a", "b")
    kept = {name: getattr(head, name) for name in FACTS if name not in {"metadata", "tags"}}
    assert kept == {name: fact for name, fact in FACTS.items() if name not in {"metadata", "tags"}}
    assert type(head.stamp) is Stamp


def test_damage_of_any_kind_is_unreadable():
    dice = random.Random(11)
    whole = [packed(), packed("k2", {"role": "user", "n": (1, 2)}), packed("k3", "prompt\n" * 2_000, agent=None)]
    for _ in range(size(500, 50_000)):
        entry, other = dice.sample(whole, 2)
        fields = {name: getattr(entry, name) for name in StoredEntry.__slots__}
        name = dice.choice(list(fields))
        field = fields[name].encode() if isinstance(fields[name], str) else fields[name]
        place = dice.randrange(len(field))
        damage = dice.choice(["flip", "cut", "drop", "add", "row", "swap"])
        if damage == "flip":
            field = field[:place] + bytes([field[place] ^ 1 << dice.randrange(8)]) + field[place + 1 :]
        elif damage == "cut":
            field = field[:place]
        elif damage == "drop":
            field = field[:place] + field[place + 1 :]
        elif damage == "add":
            field = field[:place] + dice.randbytes(1) + field[place:]
        elif damage == "row":
            field = getattr(other, name)
            field = field.encode() if isinstance(field, str) else field
        else:
            second = dice.choice([one for one in fields if one != name])
            fields[name], fields[second] = fields[second], fields[name]
            field = None
        if field is not None:
            fields[name] = field.decode("utf-8", "replace") if name in {"key", "codec"} else field
        damaged = StoredEntry(**fields)
        if damaged == entry:  # the same byte was added or dropped beside itself, or both rows have this field
            continue
        assert not SEALER.holds(damaged)
        with pytest.raises(Unreadable, match="its checksum does not hold"):
            unpack(SEALER, damaged)


@pytest.mark.parametrize("field", StoredEntry.__slots__)
@pytest.mark.parametrize(
    "found",
    [None, 5, 1.5, "text", b"bytes", "\ud83d", [], memoryview(b"bytes")],
    ids=lambda found: type(found).__name__,
)
def test_a_field_of_another_type_is_unreadable(field, found):
    """SQLite keeps a number or a text in a column of bytes, if somebody writes one."""
    entry = packed()
    damaged = StoredEntry(**{name: found if name == field else getattr(entry, name) for name in StoredEntry.__slots__})
    with pytest.raises(Unreadable):
        unpack(SEALER, damaged)


def test_an_entry_under_another_secret_is_unreadable():
    with pytest.raises(Unreadable, match="written under another secret"):
        unpack(SEALER, packed(sealer=Sealer(b"t" * 32)))
    with pytest.raises(ValueError, match="without a secret"):
        Sealer(b"")


def test_no_two_entries_share_a_checksum_by_what_their_fields_are_joined_to():
    seals = {
        SEALER.seal(*fields)
        for fields in [
            ("ab", "c", b"d", b"e"),
            ("a", "bc", b"d", b"e"),
            ("a", "b", b"cd", b"e"),
            ("a", "b", b"c", b"de"),
            ("abcd", "", b"", b"e"),
            ("", "abcd", b"e", b""),
            ("abcde", "", b"", b""),
        ]
    }
    assert len(seals) == 7
    assert all(len(seal) == 16 for seal in seals)


def test_the_seal_is_checked_before_anything_is_decoded(monkeypatch):
    entry = packed()
    for name in ("_codec", "_tags", "_HEADS"):
        monkeypatch.setattr(_seal, name, None)
    with pytest.raises(Unreadable, match="checksum"):
        unpack(SEALER, StoredEntry("other", entry.codec, entry.payload, entry.head, entry.checksum))


def test_a_sealed_entry_that_is_not_of_this_format_is_unreadable():
    entry = packed()
    fields = list(msgspec.msgpack.decode(entry.head[1:]))
    version = bytes([VERSION])

    def head(changed):
        return version + msgspec.msgpack.encode(changed)

    heads = [
        b"",
        bytes([VERSION + 1]) + entry.head[1:],
        version,
        version + b"\xc1",
        entry.head + b"\xc0",
        head({}),
        head(fields[:-1]),
        head([*fields, None]),
        head([b"\xc1", *fields[1:]]),  # metadata that cannot be read
        head([b"\x90", *fields[1:]]),  # and that are a list
        head([*fields[:-1], -1]),
        head([*fields[:-1], fields[-1] + 1]),
        head([*fields[:-1], str(fields[-1])]),
        head([*fields[:11], [[*fields[11][0], "more"]], *fields[12:]]),
        head([*fields[:11], [fields[11][0][:-1]], *fields[12:]]),
    ]
    for number, changed in enumerate(heads):
        with pytest.raises(Unreadable):
            raise AssertionError(number, unpack(SEALER, resealed(entry, head=changed)))
    for changes in ({"codec": "pickle"}, {"codec": "msgpack"}, {"codec": "str+zlib"}, {"payload": b"\xff" * 6}):
        with pytest.raises(Unreadable):
            unpack(SEALER, resealed(entry, **changes))
    assert unpack(SEALER, resealed(entry)).value == "prompt"


def test_what_cannot_be_packed_is_refused_with_its_place():
    for facts, where in [({"value": {"a": object()}}, "value['a']"), ({"metadata": {"a": [1j]}}, "metadata['a'][0]")]:
        with pytest.raises(SerializationError) as caught:
            packed(**facts)
        assert caught.value.where == where
    file = msgspec.structs.replace(FILE, path="/home/user/\udcff.md")  # a name that is no UTF-8
    huge = msgspec.structs.replace(FILE, status=(0, 2**64, 0, 0, 0))
    for facts in ({"key": "\ud83d"}, {"agent": "\ud83d"}, {"dependencies": (file,)}, {"dependencies": (huge,)}):
        with pytest.raises(SerializationError, match="or the value stays in memory alone"):
            packed(**facts)
    with pytest.raises(SerializationError, match="a label of type Label"):
        packed(consumed=((type("Label", (), {})(), True),))


def test_labels_of_a_subclass_of_str_are_kept_as_their_text():
    class Agent(StrEnum):
        ENGINEER = "engineer"

    class Label(str):
        __slots__ = ()

    entry = packed(Label("k"), agent=Agent.ENGINEER, project=Label("web"), consumed=((Label("other"), False),))
    assert type(entry.key) is str
    head = unpack(SEALER, entry).head
    assert (head.agent, head.project, head.consumed) == ("engineer", "web", (("other", False),))
    assert {type(head.agent), type(head.project), type(head.consumed[0][0])} == {str}


def test_pickled_bytes_are_never_unpickled():
    """T19, in an interpreter of its own: an audit hook stays for good."""
    code = """
import os, pickle, sys
sys.path[:0] = %r
from stores.test_seal import SEALER, VERSION, packed, resealed, unpack, Unreadable
class Evil:
    def __reduce__(self):
        return os._exit, (66,)
fired = []
sys.addaudithook(lambda event, _: fired.append(event) if event.startswith("pickle.") else None)
for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
    evil = pickle.dumps(Evil(), protocol)
    for codec in ("pickle", "str", "msgpack", "str+zlib", "bytes", "msgpack+zlib"):
        entry = packed()
        for made in (resealed(entry, codec=codec, payload=evil), resealed(entry, head=bytes([VERSION]) + evil)):
            try:
                unpack(SEALER, made)
            except Unreadable:
                pass
assert not fired, fired
pickle.loads(pickle.dumps(os.getpid))
assert fired == ["pickle.find_class"], fired
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code % (sys.path,)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
