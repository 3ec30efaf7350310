"""A network between two: how strongly a second stage shows, chosen afterwards.

Weights of a network and of the one that was trained on from it can be interpolated, and
what comes out is a network between theirs: Wang et al., "ESRGAN: Enhanced
Super-Resolution Generative Adversarial Networks", 2018, section 3.4.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from upfrost.errors import UpfrostError
from upfrost.network.graph import Graph, Tensor
from upfrost.network.modelfile import find_model, read_model, write_model


class BlendError(UpfrostError, ValueError):
    """Two networks that have nothing between them."""


def blend(first: Graph, second: Graph, share: float, name: str) -> Graph:
    """The network whose weights are 1 - `share` of `first`'s and `share` of `second`'s.

    `share` beyond 0 to 1 goes on along the same line. Raises BlendError where the two
    are not of one architecture.
    """
    if _architecture(first) != _architecture(second):
        raise BlendError(
            f"{first.name} and {second.name} are not of one architecture: blend a "
            "network with one that was trained on from it"
        )
    tensors: dict[str, Tensor] = {}
    for key, weight in first.tensors.items():
        between = (1 - share) * weight + share * second.tensors[key]
        tensors[key] = cast("Tensor", between.astype(weight.dtype))
    return replace(
        first, name=name, tensors=tensors, metadata=_metadata(first, second, share)
    )


def write_blend(first: str, second: str, share: float, output: Path) -> None:
    """`blend` of two files or bundled models, written to `output`, named as that is."""
    one, other = (read_model(find_model(each)) for each in (first, second))
    write_model(output, blend(one, other, share, output.stem))


def _architecture(graph: Graph) -> dict[str, Any]:
    shapes = {key: np.shape(weight) for key, weight in graph.tensors.items()}
    named = ("nodes", "output", "scale", "channels", "value_range", "colour")
    return {**{key: getattr(graph, key) for key in named}, "shapes": shapes}


def _metadata(first: Graph, second: Graph, share: float) -> dict[str, Any]:
    """What both were trained on and are licensed by; quality is to be measured anew."""
    one, other = (dict[str, Any](graph.metadata) for graph in (first, second))
    texts: dict[str, Any] = {
        "description": f"{first.name} and {second.name}, {share:g} of the second"
    }
    for key, between in (("licence", " and "), ("attribution", "; ")):
        both = dict.fromkeys(each[key] for each in (one, other) if each.get(key))
        if both:
            texts[key] = between.join(both)
    data = dict.fromkeys(
        source for each in (one, other) for source in each.get("training_data", ())
    )
    return {**texts, "training_data": [*data]} if data else texts
