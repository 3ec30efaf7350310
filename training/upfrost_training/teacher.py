"""A larger model whose answers are learned, beside the originals.

It runs in ONNX Runtime, which on a CPU takes a tenth of the time of a Vulkan driver for
CPUs, and needs no device.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from PIL import Image

from upfrost.files import new_path
from upfrost.network.graph import alignment
from upfrost.network.modelfile import ModelFileError, find_model, read_model
from upfrost.network.reference import from_bytes, to_bytes
from upfrost_exporter.onnx_backend import to_onnx
from upfrost_training.config import Config, ConfigError
from upfrost_training.data import in_colour
from upfrost_training.resize import Picture


def read_teacher(
    config: Config, kept: Path | None = None
) -> Callable[[Picture], Picture]:
    """What `teacher` names, as a function of RGB pictures (H, W, 3) uint8.

    It gives (sH, sW, C) uint8, C as the network under training has it: the mean of the
    answers to the picture's eight turns and reflections, turned back ("enhanced
    prediction" of Timofte et al., "Seven ways to improve example-based single image
    super resolution", 2016), which is nearer to the original than one answer is.
    Answers are kept in the folder `kept`, and read from there the next time: a run that
    goes on after a kill need not wait for them again. Raises ConfigError for a model
    that cannot teach that network.
    """
    name = config.data.teacher
    try:
        path = find_model(name)
        graph = read_model(path)
    except ModelFileError as error:
        raise ConfigError(f"teacher: {error}") from error
    if graph.scale != config.scale:
        raise ConfigError(
            f"teacher: {name} enlarges ×{graph.scale}, not ×{config.scale}"
        )
    sees = graph.colour or "rgb"
    if sees == "luma" != config.colour:
        raise ConfigError(
            f"teacher: {name} sees luma alone, and a network for {config.colour} "
            "learns colours, too: name a model of RGB"
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = config.train.threads
    session = onnxruntime.InferenceSession(
        to_onnx(graph).SerializeToString(), options, ["CPUExecutionProvider"]
    )
    (entry,) = session.get_inputs()
    step = alignment(graph)
    weights = hashlib.sha256(path.read_bytes())

    def enlarged(seen: Picture) -> NDArray[np.float32]:
        height, width = seen.shape[:2]
        filled = np.pad(seen, ((0, -height % step), (0, -width % step), (0, 0)), "edge")
        (found,) = session.run(None, {entry.name: from_bytes(graph, filled)[None]})
        given: NDArray[np.float32] = found[0]
        return given[:, : height * graph.scale, : width * graph.scale]

    def mean(seen: Picture) -> Picture:
        answers = []
        for turns in range(4):
            for mirrored in (False, True):
                turned = np.rot90(seen, turns)
                given = enlarged(turned[:, ::-1] if mirrored else turned)
                given = given[:, :, ::-1] if mirrored else given
                answers.append(np.rot90(given, -turns, axes=(1, 2)))
        return to_bytes(graph, np.mean(answers, axis=0))

    def remembered(seen: Picture) -> Picture:
        if kept is None:
            return mean(seen)
        key = weights.copy()
        key.update(f"{seen.shape}".encode() + seen.tobytes())
        file = kept / f"{key.hexdigest()[:32]}.png"
        if not file.exists():
            kept.mkdir(parents=True, exist_ok=True)
            given = mean(seen)
            with new_path(file, overwrite=True) as temporary:
                grey = given.shape[2] == 1
                Image.fromarray(given[..., 0] if grey else given).save(temporary, "PNG")
        with Image.open(file) as opened:
            found = np.asarray(opened)
        return found.reshape(*found.shape[:2], seen.shape[2])

    def answer(picture: Picture) -> Picture:
        given = remembered(in_colour(picture, sees))
        return given if sees == config.colour else in_colour(given, config.colour)

    return answer
