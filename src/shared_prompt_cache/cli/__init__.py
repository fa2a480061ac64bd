"""The command line: `demo` shows the cache at work, `watch` prints what the files of a project invalidate."""

import argparse
import os
import sys
from collections.abc import Sequence

from shared_prompt_cache.cli import _demo, _watch
from shared_prompt_cache.config import PRESETS
from shared_prompt_cache.errors import CacheError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit status.

    Args:
        arguments: Those of the command line, without the name of the program; default: those of this process.
    """
    options = _parser().parse_args(arguments)
    try:
        status: int = options.run(options)
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
        "files as an editor does, and print what was computed, what was served and what was dropped. The exit status "
        "is 1 if a stale prompt was served or anything else went wrong.",
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
    return parser
