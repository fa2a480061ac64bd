"""The cache in a FastAPI application: opened and closed by its lifespan, shared by all requests.

Needs: pip install fastapi uvicorn httpx.
Run it: python examples/fastapi_app.py, which serves on a free port, asks itself, and ends;
or serve a project of your own: PROJECT=. uvicorn --app-dir examples fastapi_app:app
"""

import asyncio
import contextlib
import os
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI, HTTPException, Request

from shared_prompt_cache import SharedPromptCache, presets


@contextlib.asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Open the cache with the application, and close it with it."""
    project = Path(os.environ.get("PROJECT", "."))
    async with SharedPromptCache(watch=presets.claude_mpm(project)) as cache:
        app.state.cache, app.state.project = cache, project
        yield


app = FastAPI(lifespan=lifespan)


@app.get("/prompts/{agent}")
async def prompt(agent: str, request: Request) -> dict[str, str]:
    """Return the prompt of an agent."""
    cache: SharedPromptCache = request.app.state.cache
    project: Path = request.app.state.project
    if not agent.replace("-", "").isalnum():
        raise HTTPException(404)

    async def compute() -> str:
        return await cache.files.read_text(project / ".claude-mpm" / "memories" / f"{agent}_memories.md")

    try:
        return {"prompt": await cache.get_or_compute(f"{agent}_prompt", compute, agent=agent, project=project)}
    except FileNotFoundError:
        raise HTTPException(404) from None


@app.get("/stats")
async def stats(request: Request) -> dict[str, Any]:
    """Return what the cache says of itself."""
    figures = request.app.state.cache.get_stats()
    return {"hit_rate": figures.hit_rate, "computations": figures.computations, "entries": figures.entry_count}


@app.get("/health")
async def health(request: Request) -> dict[str, str]:
    """Return "ok" or "degraded"."""
    return {"status": request.app.state.cache.health().status}


async def main() -> None:
    """Serve a small project, ask for its prompts over the network, edit a memory, and ask again."""
    with tempfile.TemporaryDirectory() as folder:
        memory = Path(folder) / ".claude-mpm" / "memories" / "engineer_memories.md"
        memory.parent.mkdir(parents=True)
        memory.write_text("- use tabs\n", encoding="utf-8")
        os.environ["PROJECT"] = folder
        server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning"))
        serving = asyncio.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
            answers = await asyncio.gather(*(client.get("/prompts/engineer") for _ in range(20)))
            assert {answer.json()["prompt"] for answer in answers} == {"- use tabs\n"}
            assert (await client.get("/stats")).json()["computations"] == 1

            memory.write_text("- use spaces\n", encoding="utf-8")
            assert (await client.get("/prompts/engineer")).json()["prompt"] == "- use spaces\n"
            assert (await client.get("/prompts/nobody")).status_code == httpx.codes.NOT_FOUND
            assert (await client.get("/health")).json() == {"status": "ok"}
            await asyncio.gather(*(client.get("/prompts/engineer") for _ in range(20)))
            print((await client.get("/stats")).json())
        server.should_exit = True
        await serving


if __name__ == "__main__":
    asyncio.run(main())
