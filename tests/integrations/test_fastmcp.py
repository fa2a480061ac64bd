"""A FastMCP server whose responses and sessions are kept in the cache, asked by a client: FastMCP end to end, of T20.

Seen to fail on planted bugs: a `get` that never finds anything; a `put` without the agent; no tag of the collection.
"""

import pytest
from fastmcp import Client, Context, FastMCP
from fastmcp.server.middleware.caching import ResponseCachingMiddleware
from key_value.aio.adapters.pydantic import PydanticAdapter
from mcp.shared.auth import OAuthClientInformationFull

from shared_prompt_cache import WatchRule
from shared_prompt_cache.integrations.key_value import KeyValueStore
from shared_prompt_cache.testing import FakeWatcher, ManualClock


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def watcher():
    return FakeWatcher()


@pytest.fixture
def memory(tmp_path):
    path = tmp_path / "engineer_memories.md"
    path.write_text("- use tabs\n")
    return path


@pytest.fixture
async def cache(open_cache, clock, watcher, memory):
    rule = WatchRule(memory.parent, "{agent}_memories.md", "agent")
    return await open_cache(watch=[rule], watcher=watcher, clock=clock)


@pytest.fixture
def calls():
    return []


@pytest.fixture
def server(cache, memory, calls):
    store = KeyValueStore(cache, agent="engineer")
    server = FastMCP("shop", session_state_store=store)
    server.add_middleware(ResponseCachingMiddleware(cache_storage=store))

    @server.tool
    async def price(article: str) -> dict[str, object]:
        calls.append(article)
        return {"article": article, "price": 17}

    @server.resource("memory://engineer")
    async def engineer() -> str:
        calls.append("memory")
        return memory.read_text()

    @server.prompt
    async def review(language: str) -> str:
        calls.append(language)
        return f"Review this {language}. You remember: {memory.read_text()}"

    return server


@pytest.fixture
async def client(server):
    async with Client(server) as client:
        yield client


async def text_of(client):
    (found,) = await client.read_resource("memory://engineer")
    return found.text


async def test_a_response_is_made_once_and_comes_back_equal(client, calls):
    first = await client.call_tool("price", {"article": "lamp"})
    assert first.data == {"article": "lamp", "price": 17}
    assert (await client.call_tool("price", {"article": "lamp"})).data == first.data
    assert (await client.get_prompt("review", {"language": "C"})) == await client.get_prompt(
        "review", {"language": "C"}
    )
    assert await text_of(client) == await text_of(client) == "- use tabs\n"
    assert calls == ["lamp", "C", "memory"]
    await client.call_tool("price", {"article": "desk"})
    assert calls == ["lamp", "C", "memory", "desk"]


async def test_lists_too(client, cache):
    for _ in range(2):
        assert [tool.name for tool in await client.list_tools()] == ["price"]
        assert [str(resource.uri) for resource in await client.list_resources()] == ["memory://engineer"]
        assert [prompt.name for prompt in await client.list_prompts()] == ["review"]
    assert cache.get_stats().hits >= 3


async def test_a_second_server_over_the_same_cache_finds_them(client, server, cache, calls):
    await client.call_tool("price", {"article": "lamp"})
    other = FastMCP("branch")
    other.add_middleware(ResponseCachingMiddleware(cache_storage=KeyValueStore(cache)))
    other.mount(server)
    async with Client(other) as another:
        assert (await another.call_tool("price", {"article": "lamp"})).data["price"] == 17
    assert calls == ["lamp"]


async def test_after_its_time_it_is_made_anew(client, clock, calls):
    await client.call_tool("price", {"article": "lamp"})
    clock.advance(3_599)
    await client.call_tool("price", {"article": "lamp"})
    assert calls == ["lamp"]
    clock.advance(1)
    await client.call_tool("price", {"article": "lamp"})
    assert calls == ["lamp", "lamp"]


async def test_a_change_of_a_watched_file_reaches_the_responses(client, cache, memory, watcher):
    assert await text_of(client) == "- use tabs\n"
    memory.write_text("- use spaces\n")
    watcher.push(memory)
    await cache.sync()
    assert await text_of(client) == "- use spaces\n"
    (message,) = (await client.get_prompt("review", {"language": "C"})).messages
    assert "use spaces" in message.content.text


async def test_the_responses_of_one_method_are_invalidated_by_its_tag(client, cache, calls):
    await client.call_tool("price", {"article": "lamp"})
    await text_of(client)
    assert await cache.invalidate_tag("keyvalue/resources/read") == 1
    await client.call_tool("price", {"article": "lamp"})
    await text_of(client)
    assert calls == ["lamp", "memory", "memory"]


async def test_the_state_of_a_session_is_kept(server, cache):
    seen = []

    @server.tool
    async def remember(context: Context) -> None:
        for number in range(2):
            await context.set_state("plan", {"steps": [number]})
            seen.append(await context.get_state("plan"))
        assert await cache.invalidate_tag("keyvalue/fastmcp_state") == 1
        seen.append(await context.get_state("plan"))

    async with Client(server) as client:
        await client.call_tool("remember")
    assert seen == [{"steps": [0]}, {"steps": [1]}, None]


async def test_what_cannot_be_kept_in_a_session_is_told_as_fastmcp_tells_it(server):
    @server.tool
    async def remember(context: Context) -> str:
        try:
            await context.set_state("object", object())
        except TypeError as error:
            return str(error)
        return "kept"

    async with Client(server) as client:
        assert "not serializable" in (await client.call_tool("remember")).data


async def test_clients_of_an_authorization_server_come_back(cache):
    """As the OAuth proxy keeps them: a model, by an adapter of py-key-value."""
    kept = PydanticAdapter(
        key_value=KeyValueStore(cache),
        pydantic_model=OAuthClientInformationFull,
        default_collection="mcp-oauth-proxy-clients",
        raise_on_validation_error=True,
    )
    registered = OAuthClientInformationFull(client_id="https://example.org/a?b=c", redirect_uris=["http://localhost/"])
    await kept.put("https://example.org/a?b=c", registered, ttl=60)
    assert await kept.get("https://example.org/a?b=c") == registered
    assert await kept.delete("https://example.org/a?b=c") is True
