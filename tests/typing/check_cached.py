"""The types of cached functions, warming and the blocking face; read by type checkers, never run."""

from typing import assert_type

from shared_prompt_cache import CachedPrompt, CacheStats, Computed, SharedPromptCache, WarmReport

cache = SharedPromptCache()


@cache.cached()
async def build(agent: str, *, version: int = 1) -> str:
    return f"{agent} {version}"


def tags_of(agent: str) -> list[str]:
    return [agent]


def key_of(agent: str, project: str) -> str:
    return f"{agent}_{project}"


@cache.cached(key="shouts", ttl=60, tags=tags_of)
async def shout(agent: str) -> Computed[str]:
    return Computed(agent.upper(), keep=False)


@cache.cached(key=key_of, agent=key_of)
async def both(agent: str, project: str) -> dict[str, list[int]]:
    return {agent: [len(project)]}


@cache.cached()
async def either(agent: str) -> str | Computed[str]:
    return Computed(agent, keep=False) if agent else ""


class Prompts:
    def __init__(self, root: str) -> None:
        self.root = root

    @cache.cached(key="Prompts.load")
    async def load(self, name: str) -> bytes:
        return f"{self.root}/{name}".encode()


async def functions_keep_their_types() -> None:
    assert_type(await build("pm"), str)
    assert_type(await build("pm", version=2), str)
    assert_type(build.key("pm", version=2), str)
    assert_type(await build.invalidate("pm"), bool)
    assert_type(await shout("pm"), str)
    assert_type(await either("pm"), str)
    assert_type(await both("pm", project="web"), dict[str, list[int]])


async def methods_keep_theirs() -> None:
    prompts = Prompts("/srv")
    assert_type(await prompts.load("system"), bytes)
    assert_type(await Prompts.load(prompts, "system"), bytes)
    assert_type(prompts.load.key("system"), str)
    assert_type(await prompts.load.invalidate("system"), bool)


async def what_a_function_does_not_take_is_refused() -> None:
    await build(3)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    await build()  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]
    build.key("pm", "web")  # type: ignore[call-arg, arg-type] # pyright: ignore[reportCallIssue]
    await Prompts("/srv").load()  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]


def plain() -> str:
    return ""


cache.cached()(plain)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType, reportCallIssue]


async def fetch(key: str) -> int:
    return len(key)


def told(done: int, total: int | None) -> None: ...


async def warming_reports() -> None:
    report = await cache.warm(["a", "b"], fetch, concurrency=2, on_progress=told)
    assert_type(report, WarmReport)
    assert_type(report.computed, int)


def the_blocking_face_has_types() -> None:
    assert_type(cache.blocking.get_or_compute("a", plain, ttl=60), str)
    assert_type(cache.blocking.get_or_compute("a", lambda: Computed(3)), int)
    assert_type(cache.blocking.get_prompt("a"), CachedPrompt | None)
    assert_type(cache.blocking.get_stats(), CacheStats)
    assert_type(cache.blocking.files.read_text("a"), str)
    cache.blocking.get_or_compute("a", plain, tll=60)  # type: ignore[call-overload] # pyright: ignore[reportCallIssue]
