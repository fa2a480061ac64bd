"""What the tests of the command line keep in a store."""

import math

SECRET_TEXT = "what nobody but the model is to read"


async def fill(cache, folder):
    """Keep prompts of two agents, one made from the other's, one with no file, one that is over, one for ever."""
    for agent in ("qa", "engineer"):

        async def compute(agent=agent):
            await cache.files.glob(folder / "memories", "*.md")
            try:
                await cache.files.read_text(folder / "CLAUDE.md")
            except FileNotFoundError:
                return SECRET_TEXT + await cache.files.read_text(folder / "memories" / f"{agent}.md")

        options = {"agent": agent, "project": folder / "shop", "tags": ["prompt", agent]}
        await cache.get_or_compute(f"{agent}_prompt", compute, metadata={"note": SECRET_TEXT}, **options)

    async def derived():
        return {"from": (await cache.get_prompt("qa_prompt")).prompt, "pair": (1, 2)}

    await cache.get_or_compute("derived", derived, ttl=90)
    await cache.set_prompt("plain", "text", ttl=math.inf)
    await cache.set_prompt("over", "text", ttl=0.001)
