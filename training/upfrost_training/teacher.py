"""A larger model whose answers are learned, beside the originals.

It runs in ONNX Runtime, which on a CPU takes a tenth of the time of a Vulkan driver for
CPUs, and needs no device.
"""

from collections.abc import Callable

import numpy as np
import onnxruntime

from upfrost.network.graph import alignment
from upfrost.network.modelfile import ModelFileError, find_model, read_model
from upfrost.network.reference import from_bytes, to_bytes
from upfrost_exporter.onnx_backend import to_onnx
from upfrost_training.config import Config, ConfigError
from upfrost_training.data import in_colour
from upfrost_training.resize import Picture


def read_teacher(config: Config) -> Callable[[Picture], Picture]:
    """What `teacher` names, as a function of RGB pictures (H, W, 3) uint8.

    It gives (sH, sW, C) uint8, C as the network under training has it. Raises
    ConfigError for a model that cannot teach that network.
    """
    name = config.data.teacher
    try:
        graph = read_model(find_model(name))
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

    def answer(picture: Picture) -> Picture:
        seen = in_colour(picture, sees)
        height, width = seen.shape[:2]
        filled = np.pad(seen, ((0, -height % step), (0, -width % step), (0, 0)), "edge")
        (found,) = session.run(None, {entry.name: from_bytes(graph, filled)[None]})
        given = to_bytes(graph, found[0])
        given = given[: height * graph.scale, : width * graph.scale]
        return given if sees == config.colour else in_colour(given, config.colour)

    return answer
