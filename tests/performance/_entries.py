"""A table of many prompts: which keys and agents there are.

Keys come in a hundred families with one first word each; the first half of the families is there to be invalidated
by pattern, the agents of the other half to be invalidated as agents.
"""

from collections.abc import Iterator

FAMILIES = 100
PATTERN_FAMILIES = 50


def family(number: int) -> str:
    """Return the first word of the keys of a family; `family(0)` is `engineer00`."""
    return f"engineer{number % FAMILIES:02d}"


def key_of(number: int) -> str:
    """Return the key of an entry."""
    return f"{family(number)}_{number:07d}"


def agent_of(number: int, agents: int) -> str:
    """Return the agent of an entry; `agents` is a multiple of the number of families."""
    return f"specialist-{number % agents:04d}"


def spare_agent(number: int, agents: int) -> str:
    """Return an agent none of whose keys is in a family for patterns, another for each number."""
    block, rest = divmod(number, FAMILIES - PATTERN_FAMILIES)
    return agent_of(block * FAMILIES + PATTERN_FAMILIES + rest, agents)


def prompts(entries: int, agents: int) -> Iterator[tuple[str, str]]:
    """Yield key and agent of each entry."""
    names = [agent_of(number, agents) for number in range(agents)]
    for number in range(entries):
        yield key_of(number), names[number % agents]
