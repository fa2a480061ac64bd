"""Configuration: from mappings and YAML files, and what is said about mistakes in them."""

import dataclasses
import math
import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shared_prompt_cache.config import POLICIES, PRESETS, CacheConfig, PersistenceConfig, WatchConfig, load
from shared_prompt_cache.errors import ConfigError, ConfigTypeError

ORIGINAL = """\
cache:
  shared_prompt:
    enabled: true
    max_size: 1000
    max_memory_mb: 100
    default_ttl: 3600
    eviction_policy: "lru"
    persistence:
      enabled: false
      path: ".cache/prompts"
"""


@pytest.fixture
def write(tmp_path):
    def write(text):
        file = tmp_path / "configuration.yaml"
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        return file

    return write


def failure(source, kind=ConfigError):
    with pytest.raises(ConfigError) as caught:
        load(source)
    assert type(caught.value) is kind
    return caught.value


def test_the_document_of_the_original_means_the_defaults(write):
    assert load(write(ORIGINAL)) == CacheConfig() == load({}) == load({"cache": None})


def test_every_field_of_a_file_arrives(write, tmp_path):
    config = load(
        write("""\
memory: {!custom tag: [of, another, program], memory: 1, memory: 2}
cache:
  something_else: 5
  shared_prompt:
    enabled: off
    max_size: 5
    max_memory_mb: 0.5
    default_ttl: .inf
    persistence: {enabled: yes, path: /var/cache/prompts, max_size_mb: 50}
    watch:
      - root: project
        presets: [claude-mpm, agents_md, claude_mpm]
        project: shop
      - {root: /srv/other, preset: cursor}
      - .
    single_flight: process
    freshness: events
    watcher: polling
    name: second
""")
    )
    assert config == CacheConfig(
        enabled=False,
        max_size=5,
        max_memory_mb=0.5,
        default_ttl=math.inf,
        persistence=PersistenceConfig(enabled=True, path="/var/cache/prompts", max_size_mb=50),
        watch=(
            WatchConfig(root=str(tmp_path / "project"), presets=("claude_mpm", "agents_md"), project="shop"),
            WatchConfig(root="/srv/other", presets=("cursor",)),
            WatchConfig(root=str(tmp_path)),
        ),
        single_flight="process",
        freshness="events",
        watcher="polling",
        name="second",
    )


def test_roots_in_a_file_are_relative_to_it_and_the_store_to_the_working_folder(write, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    file = write("cache: {shared_prompt: {watch: [memories, ~/notes], persistence: {path: here}}}")
    config = load(Path("..") / file.name)
    assert [Path(watch.root) for watch in config.watch] == [tmp_path / "memories", Path("/home/somebody/notes")]
    assert config.persistence.path == "here"


def test_a_mapping_is_the_fields_or_a_whole_document():
    assert load({"max_size": 7, "watch": "."}) == CacheConfig(max_size=7, watch=(WatchConfig(root="."),))
    assert load({"cache": {"shared_prompt": {"max_size": 7}}, "logging": {"level": "INFO"}}).max_size == 7


def test_a_configuration_is_returned_as_it_is():
    config = CacheConfig(name="mine")
    assert load(config) is config


@pytest.mark.parametrize("text", ["", "# nothing\n", "cache:\n", "cache:\n  shared_prompt:\n", "memory: {limit: 80}\n"])
def test_a_document_without_the_section_means_the_defaults(write, text):
    assert load(write(text)) == CacheConfig()


def test_the_constructor_checks_as_a_file_does():
    assert CacheConfig(default_ttl=timedelta(minutes=5), max_memory_mb=3).default_ttl == 300.0
    assert WatchConfig(root=Path("/srv")).root == "/srv"
    with pytest.raises(ConfigTypeError, match="max_size is True; expected a whole number"):
        CacheConfig(max_size=True)
    with pytest.raises(ConfigError, match="did you mean claude_mpm"):
        WatchConfig(root=".", presets=("claude_mmp",))
    with pytest.raises(dataclasses.FrozenInstanceError):
        CacheConfig().max_size = 5


@pytest.mark.parametrize(
    ("fields", "kind", "field", "said"),
    [
        ({"max_sise": 5}, ConfigError, "max_sise", "did you mean max_size?"),
        ({"zzz": 5}, ConfigError, "zzz", "known are enabled, max_size"),
        ({5: 5}, ConfigError, "5", "known are"),
        ({"enabled": 1}, ConfigTypeError, "enabled", "true or false"),
        ({"enabled": "yes"}, ConfigTypeError, "enabled", "true or false"),
        ({"max_size": None}, ConfigTypeError, "max_size", "a whole number of 1 or more"),
        ({"max_size": True}, ConfigTypeError, "max_size", "a whole number of 1 or more"),
        ({"max_size": 2.0}, ConfigTypeError, "max_size", "a whole number of 1 or more"),
        ({"max_size": 0}, ConfigError, "max_size", "a whole number of 1 or more"),
        ({"max_size": -(10**5000)}, ConfigError, "max_size", "a whole number of 1 or more"),
        ({"max_memory_mb": math.inf}, ConfigError, "max_memory_mb", "above 0"),
        ({"max_memory_mb": math.nan}, ConfigError, "max_memory_mb", "above 0"),
        ({"max_memory_mb": False}, ConfigTypeError, "max_memory_mb", "above 0"),
        ({"default_ttl": "1h"}, ConfigTypeError, "default_ttl", "a number of seconds"),
        ({"default_ttl": 0}, ConfigError, "default_ttl", "a number of seconds"),
        ({"default_ttl": -1}, ConfigError, "default_ttl", ".inf for entries that never expire"),
        ({"default_ttl": math.nan}, ConfigError, "default_ttl", "a number of seconds"),
        ({"default_ttl": 10**5000}, ConfigError, "default_ttl", "a number of seconds"),
        ({"eviction_policy": "LRU"}, ConfigError, "eviction_policy", "did you mean lru?"),
        ({"eviction_policy": "random"}, ConfigError, "eviction_policy", "known are lru, lfu"),
        ({"eviction_policy": 3}, ConfigTypeError, "eviction_policy", "one of lru"),
        ({"persistence": True}, ConfigTypeError, "persistence", "a mapping with the fields enabled, path"),
        ({"persistence": {"pth": "x"}}, ConfigError, "persistence.pth", "did you mean path?"),
        ({"persistence": {"max_size_mb": 0}}, ConfigError, "persistence.max_size_mb", "a number of megabytes above 0"),
        ({"single_flight": "stores"}, ConfigError, "single_flight", "did you mean store?"),
        ({"persistence": {"path": ""}}, ConfigError, "persistence.path", "the path of a folder"),
        ({"persistence": {"path": "a\0b"}}, ConfigError, "persistence.path", "the path of a folder"),
        ({"persistence": {"path": 5}}, ConfigTypeError, "persistence.path", "the path of a folder"),
        ({"watch": 5}, ConfigTypeError, "watch[0]", "a mapping with the fields root"),
        ({"watch": [{"presets": ["detect"]}]}, ConfigError, "watch[0].root", "expected root:"),
        ({"watch": [".", {"root": 5}]}, ConfigTypeError, "watch[1].root", "the path of a folder"),
        ({"watch": [{"root": ".", "presets": []}]}, ConfigError, "watch[0].presets", "at least one of claude_mpm"),
        ({"watch": [{"root": ".", "presets": 5}]}, ConfigTypeError, "watch[0].presets", "a list of claude_mpm"),
        ({"watch": [{"root": ".", "presets": [5]}]}, ConfigTypeError, "watch[0].presets[0]", "one of claude_mpm"),
        ({"watch": [{"root": ".", "preset": "cursr"}]}, ConfigError, "watch[0].preset[0]", "did you mean cursor?"),
        (
            {"watch": [{"root": ".", "preset": "cursor", "presets": ["cursor"]}]},
            ConfigError,
            "watch[0].preset",
            "write presets alone",
        ),
        ({"watch": [{"root": ".", "project": ""}]}, ConfigError, "watch[0].project", "a text of 1 to 200"),
        ({"freshness": "strictly"}, ConfigError, "freshness", "did you mean strict?"),
        ({"watcher": None}, ConfigTypeError, "watcher", "one of auto"),
        ({"name": "a\nb"}, ConfigError, "name", "that can be printed"),
        ({"name": 5}, ConfigTypeError, "name", "a text of 1 to 200"),
    ],
)
def test_a_mistake_is_answered_with_the_field_and_what_was_expected(fields, kind, field, said):
    error = failure(fields, kind)
    assert error.field == field
    assert said in str(error)
    assert failure({"cache": {"shared_prompt": fields}}, kind).field == "cache.shared_prompt." + field


@pytest.mark.parametrize("policy", [policy for policy in POLICIES if policy != "lru"])
def test_a_policy_that_does_not_exist_yet_is_refused_with_those_that_do(policy):
    assert "available: lru" in str(failure({"eviction_policy": policy}))


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_may_be_named_with_hyphens(preset):
    assert load({"watch": [{"root": ".", "preset": preset.replace("_", "-")}]}).watch[0].presets == (preset,)


@pytest.mark.parametrize(
    ("text", "kind", "line", "field", "said"),
    [
        ("cache:\n  shared_prompt:\n    max_sise: 5\n", ConfigError, 3, "cache.shared_prompt.max_sise", "max_size?"),
        ("cache:\n  shared_prompt:\n    max_size: x\n", ConfigTypeError, 3, "cache.shared_prompt.max_size", "'x'"),
        (
            "cache:\n  shared_prompt:\n    watch:\n      - .\n      - presets: [detect]\n",
            ConfigError,
            5,
            "cache.shared_prompt.watch[1].root",
            "has no root",
        ),
        (
            "cache:\n  shared_prompt:\n    watch:\n      - root: .\n        presets:\n          - nonsense\n",
            ConfigError,
            6,
            "cache.shared_prompt.watch[0].presets[0]",
            "known are",
        ),
        (
            "cache:\n  shared_prompt:\n    name: a\n    name: b\n",
            ConfigError,
            4,
            "cache.shared_prompt.name",
            "given twice, first in line 3; keep one",
        ),
        ("a: 1\ncache: {}\ncache: {}\n", ConfigError, 3, "cache", "given twice"),
        ("cache:\n  shared_promt: {}\n", ConfigError, 2, "cache.shared_promt", "did you mean cache.shared_prompt?"),
        ("shared_prompt:\n  max_size: 5\n", ConfigError, 1, "shared_prompt", "did you mean cache.shared_prompt?"),
        ("max_size: 5\n", ConfigError, 1, "max_size", "put it below cache.shared_prompt"),
        ("\ncache:\n  max_size: 5\n", ConfigError, 3, "cache.max_size", "put it below cache.shared_prompt"),
        ("cache: 5\n", ConfigTypeError, 1, "cache", "a mapping with the section shared_prompt"),
        ("cache:\n  shared_prompt: [1]\n", ConfigTypeError, 2, "cache.shared_prompt", "a mapping with the fields"),
        ("- 1\n", ConfigTypeError, None, "the document", "a mapping with the section cache.shared_prompt"),
        ("cache:\n  shared_prompt:\n    name: 2024-01-01\n", ConfigError, 3, "cache.shared_prompt.name", "quotes"),
        ("cache:\n  shared_prompt:\n    ? [a]\n    : b\n", ConfigError, 3, "cache.shared_prompt", "write a name"),
        ("cache:\n  shared_prompt:\n    a.b: c\n", ConfigError, 3, "cache.shared_prompt.'a.b'", "known are"),
        ("cache:\n  shared_prompt: {name: !!int x}\n", ConfigError, 2, "cache.shared_prompt.name", "plain value"),
        ("cache:\n  shared_prompt: {max_size: !!int ''}\n", ConfigError, 2, "cache.shared_prompt.max_size", "plain"),
        (
            f"cache:\n  shared_prompt: {{max_size: {'9' * 9999}}}",
            ConfigError,
            2,
            "cache.shared_prompt.max_size",
            "plain",
        ),
        (
            "cache:\n  shared_prompt: {max_size: -0x" + "f" * 4000 + "}",
            ConfigError,
            2,
            "cache.shared_prompt.max_size",
            "",
        ),
        ("cache:\n  {unbalanced\n", ConfigError, 3, None, "this is no YAML"),
        ("a: 1\n---\nb: 2\n", ConfigError, 2, None, "single document"),
        ("a: \x07\n", ConfigError, 1, None, "a character is not allowed"),
        (b"a: 1\nb: \xff\n", ConfigError, 2, None, "not UTF-8"),
        ("[" * 5000, ConfigError, None, None, "nested too deeply"),
        ("x: " + "y" * 1024 * 1024, ConfigError, None, None, "larger than 1 MiB"),
    ],
)
def test_a_mistake_in_a_file_is_answered_with_its_place(write, text, kind, line, field, said):
    file = write(text)
    error = failure(file, kind)
    assert (error.file, error.line, error.field) == (file, line, field)
    assert said in str(error)
    assert str(error).startswith(f"{file}:{line}: " if line else f"{file}: ")


@pytest.mark.parametrize(
    "value",
    ["!!python/object/apply:os.system ['touch {mark}']", "!!python/name:os.system", "!!set {a}", "!own {path: x}"],
)
def test_no_tag_makes_an_object(write, tmp_path, value):
    mark = tmp_path / "mark"
    error = failure(write("cache:\n  shared_prompt:\n    persistence: " + value.replace("{mark}", str(mark))))
    assert (error.line, error.field) == (3, "cache.shared_prompt.persistence")
    assert not mark.exists()


def test_aliases_cannot_make_a_small_file_large(write):
    bomb = ["a: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    bomb += [f"b{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
    error = failure(write("\n".join([*bomb, "cache:", "  shared_prompt:", "    watch: *a11"])))
    assert "too many values" in str(error)


def test_an_alias_to_itself_is_refused(write):
    assert "nested too deeply" in str(failure(write("cache: {shared_prompt: {watch: &a [*a]}}")))


def test_ordinary_aliases_work(write):
    file = write("limits: &size 5\ncache: {shared_prompt: {max_size: *size}}")
    assert load(file).max_size == 5


@pytest.mark.parametrize("source", [None, 5, b"file.yaml", ["cache"], object()])
def test_a_source_of_another_kind_is_refused(source):
    assert failure(source, ConfigTypeError).field == "source"


def test_a_file_that_cannot_be_read_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "absent.yaml", tmp_path, tmp_path / "pipe", "a\0b"):
        error = failure(path)
        assert error.file == Path(path)
        assert "give the path of a YAML file" in str(error)


def test_no_yaml_is_loaded_before_a_file_is_read():
    code = (
        "import sys; from shared_prompt_cache.config import load; load({'name': 'x'}); sys.exit('yaml' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


_TOP = [field.name for field in dataclasses.fields(CacheConfig)]
names = st.sampled_from(
    [*_TOP, "cache", "shared_prompt", "path", "root", "preset", "presets", "project", "nmae", "a.b", "<<"]
)
words = st.sampled_from(["lru", "lfu", "strict", "events", "auto", "polling", "detect", "claude-mpm", ".", "~", "\0"])
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.dates() | words
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names | st.text(max_size=5), inner, max_size=6),
    max_leaves=20,
)
watches = st.lists(values | st.dictionaries(st.sampled_from(["root", "preset", "presets", "rot"]), values), max_size=3)
fields = st.dictionaries(names, values, max_size=6) | st.fixed_dictionaries({}, optional={"watch": watches})
sections = fields.map(lambda fields: {"cache": {"shared_prompt": fields}})
documents = (
    (sections | values).map(lambda document: yaml.safe_dump(document, allow_unicode=True))
    | st.text(st.sampled_from("cache:shared_prompt \n-[]{}!&*?|>'\"#%@`~0x_.\t"), max_size=200)
    | st.text(max_size=100)
)


@pytest.mark.timeout(900)
@settings(
    max_examples=2000 if os.environ.get("STRESS") else 200,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(document=documents, cut=st.none() | st.integers(0, 400), broken=st.none() | st.characters())
def test_whatever_the_document_only_configuration_errors_come_out(write, document, cut, broken):
    """Each names the file and, unless the YAML itself is broken, the field; each says what to do.

    It has found that a document of nothing but a date gave an error without a field; planted, it finds a reader of
    presets that goes through whatever it is given.
    """
    text = document if cut is None else document[:cut] + (broken or "") + document[cut + 1 :]
    file = write(text.encode("utf-8", "surrogatepass"))
    error = None
    try:
        config = load(file)
    except ConfigError as raised:
        error = raised
    if error is None:
        assert load(dataclasses.asdict(config)) == config
    else:
        assert error.file == file
        assert str(error).startswith(str(file))
        assert error.field or any(sign in str(error) for sign in ("YAML", "UTF-8"))
        assert "; " in str(error)
        assert len(str(error)) < 2000
