"""A program that uses what is destroyed, or missing, in every way that `kp` offers.

It prints a line for each: the call, and what was raised or given. A crash ends it
after the line of the call before.

usage: python -m tests.runtime.gpu.destroyed
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import kp
import numpy as np

from tests.runtime.gpu.chains import copy, tensors
from upfrost.gpu.families import VARIANTS

SIDE = 16


def methods(kind: type) -> list[str]:
    """Every method of a class of the binding's, but one whose type it has not."""
    return [
        name
        for name, value in vars(kind).items()
        if callable(value) and not name.startswith("_") and name != "data_type"
    ]


def say(name: str, call: Callable[[], object]) -> None:
    """Do it, and print what came of it."""
    try:
        call()
    except RuntimeError as error:
        print(f"{name}: {error}", flush=True)
    else:
        print(f"{name}: fine", flush=True)


def main() -> None:
    other = kp.Manager(0)
    manager = kp.Manager(0)
    there = tensors(manager, 2, SIDE)
    device = [manager.tensor_t(np.zeros(8, np.uint32)) for _ in range(2)]
    operation = copy(manager, there, SIDE)
    algorithm = manager.algorithm(there, VARIANTS["gather-fp32"].path.read_bytes())
    recording = manager.sequence().record(operation)
    ready = manager.sequence().record(operation).eval()
    running = manager.sequence().record(operation).eval_async()
    timed = None
    if manager.get_device_properties()["timestamps_supported"]:
        timed = manager.sequence(0, 2).record(operation).eval()

    # While the managers are open.
    (gone,) = tensors(manager, 1, SIDE)
    lost = copy(manager, [there[0], gone], SIDE)
    recorded = manager.sequence().record(lost)
    gone.destroy()
    say("eval of a lost tensor", recorded.eval)
    say("record of a lost tensor", lambda: manager.sequence().record(lost))
    say("algorithm of a lost tensor", lambda: copy(manager, [gone, gone], SIDE))
    say("algorithm of another's", lambda: copy(other, there, SIDE))
    say("record of another's", lambda: other.sequence().record(operation))
    say("sequence of no queue", lambda: manager.sequence(9))
    nothing: list[None] = [None, None]
    say("algorithm of None", lambda: copy(manager, nothing, SIDE))
    say("record of None", lambda: manager.sequence().record(None))
    say("OpAlgoDispatch of None", lambda: kp.OpAlgoDispatch(None))
    say("OpMult of None", lambda: kp.OpMult([*there, *device], None))
    say("OpTensorCopy of None", lambda: kp.OpTensorCopy(nothing))

    manager.destroy()
    words = np.zeros(4, np.uint32)
    arguments: dict[str, tuple[object, ...]] = {
        "Manager.algorithm": (there, VARIANTS["gather-fp32"].path.read_bytes()),
        "Manager.tensor": (words.astype(np.float32),),
        "Manager.tensor_t": (words,),
        "Sequence.record": (operation,),
    }
    timed_ones = [timed] if timed else []
    owners = (manager, algorithm, there[0], device[0], recording, ready, running)
    for owner in (*owners, *timed_ones):
        kind = type(owner).__name__
        for name in methods(type(owner)):
            given = arguments.get(f"{kind}.{name}", ())
            say(f"{kind}.{name}", partial(getattr(owner, name), *given))
    say("Sequence.eval of", lambda: ready.eval(operation))
    say("Sequence.eval_async of", lambda: recording.eval_async(operation))
    for made in (kp.OpTensorSyncDevice, kp.OpTensorSyncLocal, kp.OpTensorCopy):
        say(made.__name__, partial(other.sequence().record, made(device)))
    say("OpAlgoDispatch", lambda: other.sequence().eval(kp.OpAlgoDispatch(algorithm)))
    say("OpMult", lambda: kp.OpMult([*there, device[0]], algorithm))
    say("record elsewhere", lambda: other.sequence().record(operation))
    other.destroy()


if __name__ == "__main__":
    main()
