"""Pictures of three channels through networks of one."""

from __future__ import annotations

import numpy as np
import pytest

from tests import graphs
from upfrost import Upscaler
from upfrost.gpu.channels import upscale_channels
from upfrost.network import reference
from upfrost.network.graph import INPUT, Colour, Graph


def repeating(colour: Colour | None) -> Graph:
    """A network that repeats each pixel of its one channel, and adds nothing."""
    build = graphs.Builder(0)
    return build.graph(build.resize(INPUT, "nearest", 2), 2, 1, colour=colour)


@pytest.mark.parametrize("colour", [None, "luma"])
def test_every_grey_stays_that_grey(colour: Colour | None) -> None:
    greys = np.arange(256, dtype=np.uint8).reshape(16, 16)
    picture = np.repeat(greys[..., None], 3, axis=2)
    with Upscaler(repeating(colour)) as upscale:
        result = upscale_channels(upscale, picture)
    expected = picture.repeat(2, axis=0).repeat(2, axis=1)
    np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("colour", [None, "luma"])
def test_a_plain_colour_stays_that_colour(colour: Colour | None) -> None:
    rng = np.random.default_rng(2)
    with Upscaler(repeating(colour)) as upscale:
        for red, green, blue in [
            (0, 0, 255),
            (255, 0, 0),
            *rng.integers(0, 256, (9, 3)),
        ]:
            picture = np.full((4, 5, 3), (red, green, blue), np.uint8)
            result = upscale_channels(upscale, picture)
            np.testing.assert_array_equal(
                result, np.broadcast_to(picture[0, 0], (8, 10, 3))
            )


@pytest.mark.parametrize("colour", [None, "luma"])
def test_grey_pictures_come_out_grey_and_as_the_network_has_them(
    colour: Colour | None,
) -> None:
    """A network that changes values, too, and by the luma that docs/format.md names."""
    graph = graphs.plain_network(3, layers=1, picture_channels=1, colour=colour)
    grey = np.random.default_rng(4).integers(40, 200, (12, 15, 1), dtype=np.uint8)
    with Upscaler(graph, precision="fp32") as upscale:
        result = upscale_channels(upscale, grey.repeat(3, axis=2))
    assert (result == result[..., :1]).all()
    if colour is None:
        expected = reference.upscale_bytes(graph, grey)[..., 0].astype(float)
    else:
        luma = (16 + grey[..., 0] * (219 / 255)) / 255
        values = reference.run(graph, luma[None].astype(np.float32))[0] * 255
        expected = np.clip((values.clip(1, 254) - 16) * (255 / 219), 0, 255)
    # Half a step for the rounding here, and one of 12 bits for the samples between.
    assert np.abs(result[..., 0] - expected).max() <= 1
