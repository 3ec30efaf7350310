"""Pictures of RGB through networks of one channel."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests import graphs
from upfrost import Upscaler
from upfrost.arrays import Bytes
from upfrost.errors import UsageError
from upfrost.gpu import upscaler
from upfrost.gpu.device import NotFiniteError
from upfrost.gpu.dispatches import Precision
from upfrost.gpu.families import MALI, Family
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
        result = upscale(picture)
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
            result = upscale(picture)
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
        result = upscale(grey.repeat(3, axis=2))
    assert (result == result[..., :1]).all()
    if colour is None:
        expected = reference.upscale_bytes(graph, grey)[..., 0].astype(float)
    else:
        luma = (16 + grey[..., 0] * (219 / 255)) / 255
        values = reference.run(graph, luma[None].astype(np.float32))[0] * 255
        expected = np.clip((values.clip(1, 254) - 16) * (255 / 219), 0, 255)
    # Half a step for the rounding here, and one of 12 bits for the samples between.
    assert np.abs(result[..., 0] - expected).max() <= 1


def noise(height: int, width: int) -> Bytes:
    """Every colour, smooth enough for a network to do something."""
    rng = np.random.default_rng(6)
    wave = 128 + 90 * np.sin(np.arange(width) / 3)[:, None]
    picture = wave + rng.uniform(-90, 90, (height, width, 3))
    return picture.clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("scale", [1, 2, 3, 4])
@pytest.mark.parametrize("colour", [None, "luma"])
def test_a_picture_is_within_a_step_of_the_reference(
    scale: int, colour: Colour | None
) -> None:
    luma = graphs.luma_network(3, layers=1, scale=scale)
    graph = replace(luma, colour=colour)
    picture = noise(11, 18)
    with Upscaler(graph, precision="fp32") as upscale:
        result = upscale(picture).astype(int)
    expected = reference.upscale_rgb_by_luma(graph, picture)
    assert np.abs(result - expected).max() <= 1


@pytest.mark.parametrize("family", [None, MALI], ids=["cpu", "mali"])
def test_half_precision_is_50_db_from_the_reference_and_makes_no_seams(
    monkeypatch: pytest.MonkeyPatch, family: Family | None
) -> None:
    """Also where the last convolution writes luma itself."""
    if family is not None:
        monkeypatch.setattr(upscaler, "tuned_family", lambda *_: family)
    graph = graphs.luma_network(2, layers=1)
    picture = noise(41, 63)
    results = []
    for tile in (None, 24):
        with Upscaler(graph, precision="fp16", tile=tile) as upscale:
            assert (len(upscale.tiles(41, 63, tile, "RGB")) > 1) == (tile is not None)
            results.append(upscale(picture))
    np.testing.assert_array_equal(results[0], results[1])
    expected = reference.upscale_rgb_by_luma(graph, picture).astype(float)
    error = np.mean((results[0] - expected) ** 2)
    assert 20 * np.log10(255) - 10 * np.log10(error) >= 50


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_tiles_of_rows_give_the_bits_of_the_whole(precision: Precision) -> None:
    """As a picture that is larger than memory goes."""
    graph = graphs.luma_network(4, layers=1)
    picture = noise(33, 40)
    with Upscaler(graph, precision=precision) as upscale:
        whole = upscale(picture)
    parts: list[Bytes] = []
    with Upscaler(graph, precision=precision, tile=16) as upscale:
        upscale.stream(
            *(33, 40, lambda start, stop: picture[start:stop]),
            lambda rows: parts.append(rows.copy()),
            channels=3,
        )
    assert len(parts) > 1
    np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_pictures_in_flight_do_not_mix() -> None:
    """The luma of all of them goes through the same buffers."""
    graph = graphs.luma_network(4, layers=1)
    pictures = [noise(20, 24) + np.uint8(9 * number) for number in range(4)]
    with Upscaler(graph) as upscale:
        for one, picture in zip(upscale.pictures(pictures), pictures, strict=True):
            np.testing.assert_array_equal(one, upscale_alone(graph, picture))


def upscale_alone(graph: Graph, picture: Bytes) -> Bytes:
    with Upscaler(graph) as upscale:
        return upscale(picture)


def test_a_result_that_is_not_finite_is_reported() -> None:
    graph = graphs.luma_network(2, layers=1)
    huge = {
        name: np.full_like(tensor, 6e4) if tensor.ndim == 4 else tensor
        for name, tensor in graph.tensors.items()
    }
    overflowing = replace(graph, tensors=huge)
    with (
        Upscaler(overflowing, precision="fp16") as upscale,
        pytest.raises(NotFiniteError, match="too large for fp16"),
    ):
        upscale(noise(20, 24))


def test_other_channels_are_refused() -> None:
    with Upscaler(graphs.luma_network(1, layers=1)) as upscale:
        with pytest.raises(UsageError, match="takes 1 channel or 3, found 4"):
            upscale(np.zeros((4, 4, 4), np.uint8))
        with pytest.raises(UsageError, match=r"\(H, W, 1 or 3\), found float64"):
            upscale(np.zeros((4, 4, 3)))  # type: ignore[arg-type]
        with pytest.raises(UsageError, match="takes 1 channel or 3, found 2"):
            upscale.stream(4, 4, lambda *_: noise(4, 4), lambda _: None, channels=2)
