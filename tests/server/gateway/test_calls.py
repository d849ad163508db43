"""Which messages may arrive, by how much memory the messages take. The memory is set by the tests."""

import asyncio

import pytest

from vinegrape_server.gateway import calls as module
from vinegrape_server.gateway.calls import Memory

ALWAYS, AT_ONCE = module._ALWAYS_ADMITTED, module._ADMITTED_AT_ONCE


@pytest.fixture
def resident(monkeypatch) -> list[int]:
    """The bytes that the process has: a list with one number, which a test may change."""
    resident = [1000]
    monkeypatch.setattr(module, "_resident_bytes", lambda: resident[0])
    monkeypatch.setattr(module, "_WATCH_S", 0.001)
    return resident


async def entering(memory: Memory, count: int) -> list[asyncio.Task[None]]:
    """Let messages arrive, and return their tasks: those that may arrive are done."""
    tasks = [asyncio.create_task(memory.enter()) for _ in range(count)]
    await asyncio.sleep(0)
    return tasks


def done(tasks: list[asyncio.Task[None]]) -> int:
    return sum(task.done() for task in tasks)


async def until(condition) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0)


def test_many_messages_may_arrive_while_the_memory_is_free(resident):
    async def run() -> None:
        tasks = await entering(Memory(100), ALWAYS + AT_ONCE)
        assert done(tasks) == len(tasks)

    asyncio.run(run())


def test_more_messages_wait_until_the_memory_is_measured_again(resident):
    async def run() -> None:
        memory = Memory(100)
        tasks = await entering(memory, ALWAYS + AT_ONCE + 3)
        assert done(tasks) == ALWAYS + AT_ONCE
        watching = asyncio.create_task(memory.watch())
        await until(lambda: done(tasks) == len(tasks))
        watching.cancel()

    asyncio.run(run())


def test_while_half_of_the_memory_is_taken_each_message_waits_for_another_to_leave(resident):
    async def run() -> None:
        memory = Memory(100)
        first = await entering(memory, ALWAYS)
        resident[0] += 60
        watching = asyncio.create_task(memory.watch())
        await until(lambda: memory._may_enter == 0)
        waiting = await entering(memory, 2)
        assert (done(first), done(waiting)) == (ALWAYS, 0)
        memory.leave()
        await until(lambda: done(waiting) == 1)
        assert waiting[0].done()  # in their order
        resident[0] -= 60
        await until(lambda: done(waiting) == 2)
        watching.cancel()

    asyncio.run(run())


def test_a_call_that_ends_while_it_waits_takes_no_place(resident):
    async def run() -> None:
        memory = Memory(100)
        await entering(memory, ALWAYS + AT_ONCE)
        left, other = await entering(memory, 2)
        left.cancel()
        await asyncio.sleep(0)
        for _ in range(AT_ONCE + 1):
            memory.leave()
        await until(other.done)
        assert left.cancelled()

    asyncio.run(run())


def test_a_full_memory_refuses_the_older_half_of_the_messages_that_arrive(resident):
    class Context:
        """A call whose message never arrives."""

        async def read(self) -> None:
            await asyncio.Event().wait()

    async def run() -> None:
        memory = Memory(100)
        await entering(memory, 4)
        receiving = [asyncio.create_task(memory.receive(Context(), 600)) for _ in range(4)]
        await asyncio.sleep(0)
        resident[0] += 101
        watching = asyncio.create_task(memory.watch())
        await until(lambda: done(receiving[:2]) == 2)
        assert memory.is_full
        assert all(isinstance(task.exception(), TimeoutError) for task in receiving[:2])
        watching.cancel()
        for task in receiving[2:]:
            task.cancel()

    asyncio.run(run())
