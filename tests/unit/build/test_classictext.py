import asyncio

from frontend import lowered

from orlop.build.classictext import ClassicText, StepView, TextStream


class Told:
    """Steps with made-up states: `known` maps step numbers to their views."""

    def __init__(self, text, **options):
        self.lowered = lowered(text)
        self.known = {}
        self.stream = TextStream()
        self.text = ClassicText(self.lowered.steps, self.stream, self.view, **({"removes": True} | options))

    async def view(self, index):
        return self.known.get(index)

    def vertex(self, index):
        return self.lowered.definition.vertices[self.lowered.steps[index].edge.vertex]

    async def lines(self):
        self.stream.end()
        found = ""
        while (message := await self.stream.take()) is not None:
            found += str(message["stream"])
        return found


def view(letter, *, cached=False):
    return StepView(letter * 64, cached)


def tell(work):
    return asyncio.run(work())


def test_steps_are_told_as_the_classic_builder_does():
    async def work():
        told = Told("FROM x\nRUN a\nCMD b")
        told.known = {0: view("a")}
        await told.text.advance()
        told.text.started(told.vertex(1), "f" * 64)
        await told.text.output(told.vertex(1), 1, b"out\n")
        await told.text.output(told.vertex(1), 2, b"err\n")
        told.known |= {1: view("b"), 2: view("c", cached=True)}
        await told.text.advance()
        return await told.lines()

    assert tell(work) == (
        "Step 1/3 : FROM x\n ---> aaaaaaaaaaaa\n"
        "Step 2/3 : RUN a\n ---> Running in ffffffffffff\nout\n\x1b[91merr\n\x1b[0m"
        " ---> Removed intermediate container ffffffffffff\n ---> bbbbbbbbbbbb\n"
        "Step 3/3 : CMD b\n ---> Using cache\n ---> cccccccccccc\n"
    )


def test_containers_are_not_mentioned_without_rm():
    async def work():
        told = Told("FROM x\nRUN a", removes=False)
        told.known = {0: view("a")}
        await told.text.advance()
        told.text.started(told.vertex(1), "f" * 64)
        told.known[1] = view("b")
        await told.text.advance()
        return await told.lines()

    assert "Removed" not in tell(work)


def test_a_later_stage_waits_for_its_turn():
    async def work():
        told = Told("FROM x AS one\nRUN a\nFROM y\nRUN b\nCOPY --from=one /a /")
        told.known = {0: view("a"), 2: view("c")}
        await told.text.advance()
        told.text.started(told.vertex(3), "2" * 64)
        await told.text.output(told.vertex(3), 1, b"late\n")
        told.text.started(told.vertex(1), "1" * 64)
        await told.text.output(told.vertex(1), 1, b"early\n")
        told.known |= {1: view("b"), 3: view("d"), 4: view("e")}
        await told.text.advance()
        return await told.lines()

    shown = tell(work)
    assert shown.index("early") < shown.index("Step 4/5") < shown.index("late") < shown.index("Step 5/5")


def test_a_failing_later_step_is_told():
    async def work():
        told = Told("FROM x AS one\nRUN a\nFROM y\nRUN b\nCOPY --from=one /a /")
        told.known = {0: view("a")}
        await told.text.advance()
        told.text.started(told.vertex(3), "2" * 64)
        await told.text.output(told.vertex(3), 1, b"broken\n")
        told.text.fail(told.vertex(3))
        return await told.lines()

    assert tell(work).endswith(" ---> Running in 222222222222\nbroken\n")


def test_output_of_a_waiting_step_is_clipped():
    async def work():
        told = Told("FROM x AS one\nRUN a\nFROM y\nRUN b\nCOPY --from=one /a /")
        for _ in range(5):
            await told.text.output(told.vertex(3), 1, b"x" * (1 << 20))
        told.text.fail(told.vertex(3))
        return await told.lines()

    shown = tell(work)
    assert len(shown) < 3 << 20
    assert shown.endswith("[output clipped, log limit 2MiB reached]\n")


def test_triggers_are_announced_and_not_counted():
    async def work():
        told = Told("FROM x AS a\nONBUILD RUN t\nFROM a\nRUN own")
        told.known = {index: view("a") for index in range(5)}
        await told.text.advance()
        return await told.lines()

    shown = tell(work)
    assert "# Executing 1 build trigger\n" in shown
    assert "Step 4/4 : RUN own" in shown


def test_a_slow_client_holds_the_writer_back():
    async def work():
        stream = TextStream()
        for number in range(1_000):
            stream.say(str(number))
        writer = asyncio.ensure_future(stream.drain())
        await asyncio.sleep(0)
        assert not writer.done()
        for _ in range(900):
            await stream.take()
        await writer
        return True

    assert tell(work)


def test_following_tells_as_states_become_known():
    async def work():
        told = Told("FROM x\nENV A=b")
        task = asyncio.ensure_future(told.text.follow())
        await asyncio.sleep(0)
        told.known = {0: view("a"), 1: view("b")}
        told.text.finished(told.lowered.steps[0].edge.vertex)
        await asyncio.wait_for(task, 5)
        return await told.lines()

    assert tell(work).endswith("Step 2/2 : ENV A=b\n ---> bbbbbbbbbbbb\n")


def test_steps_that_nobody_needed_are_told_at_the_end():
    """A later step was found in the cache, so that those before it were never looked at."""

    async def work():
        told = Told("FROM x AS one\nRUN a\nFROM y\nCOPY --from=one /a /\nCMD b")
        told.known = {0: view("a"), 2: view("c"), 3: view("d", cached=True), 4: view("e", cached=True)}
        await told.text.finish()
        return await told.lines()

    assert tell(work) == (
        "Step 1/5 : FROM x AS one\n ---> aaaaaaaaaaaa\n"
        "Step 2/5 : RUN a\n ---> Using cache\n"
        "Step 3/5 : FROM y\n ---> cccccccccccc\n"
        "Step 4/5 : COPY --from=one /a /\n ---> Using cache\n ---> dddddddddddd\n"
        "Step 5/5 : CMD b\n ---> Using cache\n ---> eeeeeeeeeeee\n"
    )
