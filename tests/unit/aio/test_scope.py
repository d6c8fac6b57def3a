import asyncio

import pytest

from orlop.aio.scope import Background, Scope


class Broken(Exception):
    pass


async def fail():
    raise Broken("first")


def test_the_first_failure_is_raised_as_itself_and_cancels_the_others():
    ended = []

    async def sibling():
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("sibling")
            raise ValueError("follows from the cancellation")

    async def main():
        async with Scope("test") as scope:
            scope.spawn(sibling())
            await asyncio.sleep(0)
            scope.spawn(fail())

    with pytest.raises(Broken):
        asyncio.run(main())
    assert ended == ["sibling"]


def test_an_error_of_the_body_wins_over_what_it_causes():
    async def sibling():
        try:
            await asyncio.Event().wait()
        finally:
            raise ValueError("late")

    async def main():
        async with Scope("test") as scope:
            scope.spawn(sibling())
            await asyncio.sleep(0)
            raise Broken("body")

    with pytest.raises(Broken):
        asyncio.run(main())


def test_leaving_a_scope_waits_for_its_tasks():
    done = []

    async def work():
        await asyncio.sleep(0)
        done.append(1)
        return 5

    async def main():
        async with Scope("test") as scope:
            task = scope.spawn(work())
        return task.result()

    assert asyncio.run(main()) == 5
    assert done == [1]


def test_cancelling_the_owner_cancels_the_tasks():
    async def owner(ended):
        async def child():
            try:
                await asyncio.Event().wait()
            finally:
                ended.append(1)

        async with Scope("test") as scope:
            scope.spawn(child())

    async def main():
        ended = []
        async with Background("outer") as outer:
            task = outer.spawn(owner(ended))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        return task.cancelled(), ended

    assert asyncio.run(main()) == (True, [1])


def test_a_failing_background_task_leaves_its_siblings_alone(capsys):
    async def main():
        background = Background("serve")
        waiting = background.spawn(asyncio.Event().wait())
        background.spawn(fail())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        alive = not waiting.done()
        await background.close()
        with pytest.raises(RuntimeError):
            background.spawn(fail())
        return alive, waiting.cancelled(), len(background)

    assert asyncio.run(main()) == (True, True, 0)
