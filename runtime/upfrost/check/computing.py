"""Whether the device computes at all, and whether it is noticed when it does not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from upfrost.check.jobs import OPENING, Facts, Job, Request, Results
from upfrost.check.report import Section

NAME, TITLE = "computing", "Does it compute?"
MODEL = "live-x2-xs-clean"  # the smallest
SIDE = 16
_ONE, _PICTURE = "a dispatch", "a picture"
_DEAD, _WAIT = "a dead dispatch", "a wait that is too short"
_WORDS = 1 << 20  # that a dispatch clears
# Of it, so that the device is still at it after a nanosecond. Twice as many each time.
_WORK, _MOST_WORK = 8, 1 << 12
_SECOND = 1_000_000_000


def jobs(request: Request) -> Mapping[str, Job]:
    """A dispatch, a small picture, and two that fail unless a fault is noticed: a tile
    without its last dispatch, and a wait that ends before the work does."""
    from upfrost.check.bench import Bench
    from upfrost.gpu.binding import NotComputedError, kp
    from upfrost.gpu.device import Device, choose_device
    from upfrost.gpu.plan import compile_graph, make_plan
    from upfrost.network.modelfile import find_model, read_model

    info = choose_device(request.device)

    def one_dispatch() -> Facts:
        bench = Bench(info)
        left = bench.clear(_WORDS)
        return {"words": _WORDS, "left": left}

    def run(*, dead: bool) -> None:
        graph = read_model(find_model(MODEL))
        plan = make_plan(compile_graph(graph, info.family, "fp32"), SIDE, SIDE)
        if dead:
            # The last one carries the token.
            plan = replace(
                plan,
                dispatches=plan.dispatches[:-1],
                dispatch_seconds=plan.dispatch_seconds[:-1],
            )
        device = Device(info)
        device.load(plan).run(np.zeros((SIDE, SIDE, graph.channels), np.uint8))
        device.close()

    def picture() -> Facts:
        run(dead=False)
        return {}

    def dead_dispatch() -> Facts:
        try:
            run(dead=True)
        except NotComputedError:
            return {"noticed": True}
        return {"noticed": False}

    def short_wait() -> Facts:
        bench = Bench(info)
        work = _WORK
        while work <= _MOST_WORK:
            sequence = bench.sequence(_WORDS, work)
            sequence.eval_async()
            try:
                sequence.eval_await(1)
            except kp.TimeoutError:
                sequence.eval_await(10 * _SECOND)
                return {"noticed": True}
            work *= 2
        return {"noticed": False}

    return {
        _ONE: Job(one_dispatch),
        _PICTURE: Job(picture),
        _DEAD: Job(dead_dispatch),
        _WAIT: Job(short_wait),
    }


def is_alive(results: Results) -> bool:
    """Whether it is worth while to go on."""
    one = results.get(_ONE)
    return one is not None and one.facts is not None and not one.facts["left"]


def judge(results: Results) -> Section:
    """The section of the report, by what the jobs found."""
    section = Section(NAME, TITLE)
    if OPENING in results:
        section.add("wrong", results[OPENING].failure)
    one, picture = results.get(_ONE), results.get(_PICTURE)
    if one is not None and one.facts is not None:
        left = one.facts["left"]
        section.facts["words_left"] = left
        if not left:
            section.add("good", "It computes: a dispatch did all of its work")
        elif left == one.facts["words"]:
            section.add(
                "wrong",
                "It computes nothing: the driver takes a dispatch, reports success, "
                "and the memory is as it was",
                "The driver, or what stands for the kernel's, does nothing: look at "
                "VK_DRIVER_FILES and LD_PRELOAD, and at the kernel's log (dmesg)",
            )
            return section
        else:
            section.add(
                "wrong",
                f"A dispatch did a part of its work: {left:,} of "
                f"{one.facts['words']:,} words are as they were",
            )
    for name, result, advice in (
        (_ONE, one, "The kernel's log (dmesg) may say why"),
        (_PICTURE, picture, "The kernels below say which of them it is"),
    ):
        if result is not None and result.failure:
            section.add("wrong", f"{name}: {result.failure}", advice)
    if picture is not None and picture.facts is not None:
        section.add("good", "A picture came back, with the proof that it was computed")
    _say_noticed(
        section,
        results,
        _DEAD,
        "A dispatch that was left out on purpose was noticed",
        "A dispatch that was left out on purpose was not noticed: a lost device would "
        "give a wrong picture without a word",
    )
    _say_noticed(
        section,
        results,
        _WAIT,
        "A wait that was too short timed out, and the work was done after it",
        "No wait timed out: a device that hangs would be waited for without end",
    )
    return section


def _say_noticed(
    section: Section, results: Results, name: str, good: str, wrong: str
) -> None:
    result = results.get(name)
    if result is None:
        return
    if result.facts is None:
        section.add("wrong", f"{name}: {result.failure}")
    elif result.facts["noticed"]:
        section.add("good", good)
    else:
        section.add("wrong", wrong)
