"""A network between two: how strongly a second stage shows, chosen afterwards.

Weights of a network and of the one that was trained on from it can be interpolated, and
what comes out is a network between theirs: Wang et al., "ESRGAN: Enhanced
Super-Resolution Generative Adversarial Networks", 2018, section 3.4. What the second
learned can be carried over to a first stage that was trained on meanwhile: Ilharco et
al., "Editing Models with Task Arithmetic", 2023.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from upfrost.errors import UpfrostError
from upfrost.network.graph import Graph, Tensor
from upfrost.network.modelfile import find_model, read_model, write_model
from upfrost_exporter.builder import unique_name

# Beyond, nothing that either network learned is left.
SHARES = (-1.0, 3.0)


class BlendError(UpfrostError, ValueError):
    """Two networks that have nothing between them."""


def blend(
    first: Graph, second: Graph, share: float, name: str, onto: Graph | None = None
) -> Graph:
    """The network whose weights are 1 - `share` of `first`'s and `share` of `second`'s.

    `share` beyond 0 to 1 goes on along the same line. With `onto`, that share of what
    leads from `first` to `second` is added to its weights instead. Raises BlendError
    where they are not of one architecture, or the share is too large for the weights.
    """
    ends = (first, second) if onto is None else (first, second, onto)
    for other in ends[1:]:
        if _architecture(first) != _architecture(other):
            raise BlendError(
                f"{first.name} and {other.name} are not of one architecture: blend a "
                "network with one that was trained on from it"
            )
    if not SHARES[0] <= share <= SHARES[1]:
        raise BlendError(
            f"a share of {share:g} leads far away from both networks; shares are "
            "numbers of about 0 to 2"
        )
    tensors: dict[str, Tensor] = {}
    for key, weight in first.tensors.items():
        with np.errstate(over="ignore", invalid="ignore"):
            between = (1 - share) * weight + share * second.tensors[key]
            if onto is not None:
                between = between + (onto.tensors[key] - weight)
        # A network of weights near fp16's end answers nothing but NaN.
        if not np.abs(between).max() < np.finfo(np.float16).max:
            raise BlendError(
                f"a share of {share:g} makes weights that no device can compute with"
            )
        tensors[key] = cast("Tensor", between.astype(weight.dtype))
    return replace(first, name=name, tensors=tensors, metadata=_metadata(ends, share))


def write_blend(
    first: str, second: str, share: float, output: Path, onto: str | None = None
) -> None:
    """`blend` of files or bundled models, written to `output`, named as that is.

    What a network's name cannot hold is replaced in it.
    """
    one, other = (read_model(find_model(each)) for each in (first, second))
    third = None if onto is None else read_model(find_model(onto))
    name = unique_name(output.stem, ())
    write_model(output, blend(one, other, share, name, third))


def _architecture(graph: Graph) -> dict[str, Any]:
    shapes = {key: np.shape(weight) for key, weight in graph.tensors.items()}
    named = ("output", "scale", "channels", "value_range", "colour")
    # Any order in which each follows its inputs is the same network.
    nodes = {node.name: node for node in graph.nodes}
    return {
        **{key: getattr(graph, key) for key in named},
        "nodes": nodes,
        "shapes": shapes,
    }


def _metadata(ends: Sequence[Graph], share: float) -> dict[str, Any]:
    """What all were trained on and are licensed by; quality is to be measured anew."""
    first, second = ends[:2]
    said = f"{first.name} and {second.name}, {share:g} of the second"
    if len(ends) > 2:
        said = f"{ends[2].name}, and {share:g} of what leads from {first.name} to "
        said += second.name
    texts: dict[str, Any] = {"description": said}
    every = [dict[str, Any](graph.metadata) for graph in ends]
    for key, between in (("licence", " and "), ("attribution", "; ")):
        found = dict.fromkeys(each[key] for each in every if each.get(key))
        if found:
            texts[key] = between.join(found)
    data = dict.fromkeys(
        source for each in every for source in each.get("training_data", ())
    )
    return {**texts, "training_data": [*data]} if data else texts
