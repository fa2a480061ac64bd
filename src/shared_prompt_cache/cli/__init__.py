"""The command line: a demonstration, a watch over the files of a project, and four commands for a store."""

import argparse
import io
import os
import sys
from collections.abc import Sequence

from shared_prompt_cache.cli import _demo, _invalidate, _listing, _verify, _watch
from shared_prompt_cache.config import PRESETS
from shared_prompt_cache.errors import CacheError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit status.

    Args:
        arguments: Those of the command line, without the name of the program; default: those of this process.
    """
    options = _parser().parse_args(arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a file or a key may have a name that no terminal can show
    try:
        status: int = options.run(options)
        sys.stdout.flush()  # here it may still fail
    except CacheError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 0 if options.command == "watch" else 130
    except BrokenPipeError:
        # Who read the output has gone. Nothing more is to be written there, not even by the interpreter at its exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m shared_prompt_cache",
        description="A cache for prompts that are made from files: computed once, gone when the files change.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")

    demo = commands.add_parser(
        "demo",
        help="show the cache at work on a project made for it",
        description="Make a project of ten agents in a temporary folder, let 200 tasks ask for their prompts, edit "
        "files as an editor does, and print what was computed, what was served and what was dropped. Then start a "
        "larger one again and again, with a store, while files change in between. The exit status is 1 if a stale "
        "prompt was served or anything else went wrong.",
    )
    demo.set_defaults(run=lambda _: _demo.run())

    watch = commands.add_parser(
        "watch",
        help="print what the files of a project invalidate, as it happens",
        description="Watch the files of a project that its agent tools make prompts from, and print each invalidation "
        "that a change of them would cause. Ctrl-C ends it.",
    )
    watch.add_argument("path", help="the folder of the project")
    watch.add_argument(
        "--preset",
        action="append",
        type=lambda name: name.replace("-", "_"),
        choices=PRESETS,
        metavar="NAME",
        help=f"which tool's files, of {', '.join(PRESETS)}; may be given more than once; default: detect, every tool "
        "whose files are there",
    )
    watch.add_argument("--watcher", choices=["auto", "watchfiles", "polling"], default="auto", help="default: auto")
    watch.set_defaults(run=lambda options: _watch.run(options.path, options.preset or ["detect"], options.watcher))
    _add_store_commands(commands)
    return parser


def _add_store_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    where = "the folder that was given to SQLiteStore, or the store.db in it; a server may be using it"

    listing = commands.add_parser(
        "ls",
        help="list the entries of a store",
        description="List the entries of a store: whether each still holds, the size of its value, its age, the time "
        "it has left, its key, and what it belongs to. No value is printed, and nothing is changed.",
    )
    listing.add_argument("path", help=where)
    listing.add_argument("pattern", nargs="?", default="*", help="only keys that match this glob, such as 'qa_*'")
    listing.add_argument("--json", action="store_true", help="print a line of JSON for each entry")
    listing.set_defaults(run=lambda options: _listing.run_ls(options.path, options.pattern, as_json=options.json))

    inspect = commands.add_parser(
        "inspect",
        help="show one entry of a store",
        description="Show what is known of one entry: what it belongs to, when it was made, from which files, and "
        "whether each of them still is as it was. The exit status is 1 if it is not there or cannot be read.",
    )
    inspect.add_argument("path", help=where)
    inspect.add_argument("key", help="the key")
    inspect.add_argument("--json", action="store_true", help="print it as JSON")
    inspect.add_argument("--value", action="store_true", help="print the value, and the values of the metadata, too")
    inspect.set_defaults(
        run=lambda options: _listing.run_inspect(
            options.path, options.key, as_json=options.json, with_value=options.value
        )
    )

    verify = commands.add_parser(
        "verify",
        help="check whether a store is sound",
        description="Check the database of a store, the checksum of each entry and the files that it was made from. "
        "The exit status is 1 if damage was found; files that have changed are none.",
    )
    verify.add_argument("path", help=where)
    verify.add_argument(
        "--repair",
        action="store_true",
        help="remove entries that are damaged; set a damaged database aside, as a cache would that uses it",
    )
    verify.set_defaults(run=lambda options: _verify.run(options.path, repair=options.repair))

    invalidate = commands.add_parser(
        "invalidate",
        help="invalidate entries of a store, and of all caches that share it",
        description="Invalidate entries of a store. All that is named goes, together with what was made from it; "
        "running caches that share the store follow in a moment.",
    )
    invalidate.add_argument("path", help=where)
    invalidate.add_argument("keys", nargs="*", metavar="key", help="a key")
    for option, metavar, text in (
        ("--pattern", "GLOB", "the keys that match a glob, such as 'qa_*'"),
        ("--agent", "AGENT", "the entries of an agent; with --project only those in it, and in none"),
        ("--project", "PROJECT", "the entries of a project, by path or name"),
        ("--tag", "TAG", "the entries with a tag"),
        ("--file", "FILE", "the entries made from a file, or from anything below a folder"),
    ):
        invalidate.add_argument(option, action="append", default=[], metavar=metavar, help=text)
    invalidate.add_argument("--all", action="store_true", help="all entries")
    invalidate.add_argument(
        "--soft",
        action="store_true",
        help="let caches that have them in memory expire them, for stale_for, not drop them",
    )
    invalidate.set_defaults(run=_invalidate.run)
