"""What a value can be made from: files, files that are not there, folders, and files that other code reads.

Whatever a computation reads through `cache.files` is recorded, and looked at again before the value is served.
Needs nothing but the package. Run it: python examples/files_and_freshness.py
"""

import asyncio
import json
import os
import tempfile
from pathlib import Path

from shared_prompt_cache import SharedPromptCache


async def main() -> None:
    """Change each kind of dependency, and see which changes count."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "rules").mkdir()
        (root / "rules" / "style.md").write_text("- be brief\n", encoding="utf-8")
        (root / "settings.json").write_text('{"tone": "kind"}', encoding="utf-8")
        cache = SharedPromptCache()

        async def compute() -> str:
            parts = [await cache.files.read_text(path) for path in await cache.files.glob(root / "rules", "*.md")]
            try:
                parts.append(await cache.files.read_text(root / "local.md"))
            except FileNotFoundError:
                parts.append("(no local rules)\n")
            settings = root / "settings.json"
            await cache.files.depends_on(settings)  # read by other code, here: json
            tone = (await asyncio.to_thread(lambda: json.loads(settings.read_text(encoding="utf-8"))))["tone"]
            return "".join(parts) + f"tone: {tone}"

        async def prompt() -> str:
            return await cache.get_or_compute("prompt", compute)

        print(await prompt())

        (root / "rules" / "style.md").write_text("- be precise\n", encoding="utf-8")
        assert "precise" in await prompt()  # a file that was read has changed

        (root / "rules" / "tests.md").write_text("- test first\n", encoding="utf-8")
        assert "test first" in await prompt()  # one more file matches the pattern

        (root / "local.md").write_text("- speak French\n", encoding="utf-8")
        assert "French" in await prompt()  # a file that was missing is there

        (root / "settings.json").write_text('{"tone": "dry"}', encoding="utf-8")
        assert "tone: dry" in await prompt()  # a declared file has changed

        computations = cache.get_stats().computations
        os.utime(root / "settings.json")
        (root / "local.md").write_text("- speak French\n", encoding="utf-8")
        await prompt()
        assert cache.get_stats().computations == computations == 5  # the same contents: nothing to do

        print(cache.explain("prompt"))
        await cache.aclose()


asyncio.run(main())
