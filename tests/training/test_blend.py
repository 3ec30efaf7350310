"""Networks between two: `upfrost-train blend`."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from upfrost.network.modelfile import find_model, read_model
from upfrost_training.blend import BlendError, blend
from upfrost_training.cli import main

STAGES = "cascade-x4", "cascade-x4-gan"


def test_the_file_lies_between_the_two(tmp_path: Path) -> None:
    output = tmp_path / "between.upf"
    assert main(["blend", *STAGES, "--share", "0.25", "-o", str(output)]) == 0
    first, second = (read_model(find_model(name)) for name in STAGES)
    between = read_model(output)
    assert between.name == "between"
    assert between.nodes == first.nodes
    for key, weight in between.tensors.items():
        wanted = 0.75 * first.tensors[key] + 0.25 * second.tensors[key]
        np.testing.assert_allclose(weight, wanted, rtol=1e-6, atol=1e-7)
    # What was measured of the two says nothing of this one.
    assert "quality" not in between.metadata
    assert between.metadata["training_data"] == first.metadata["training_data"]


def test_the_ends_are_the_two() -> None:
    first, second = (read_model(find_model(name)) for name in STAGES)
    for share, graph in ((0.0, first), (1.0, second)):
        found = blend(first, second, share, "end")
        for key, weight in graph.tensors.items():
            np.testing.assert_array_equal(found.tensors[key], weight)


def test_others_have_nothing_between_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "none.upf"
    words = ["blend", "realtime-x2", "cascade-x4", "-o", str(output)]
    assert main(words) == 1
    assert "realtime-x2 and cascade-x4 are not of one architecture" in (
        capsys.readouterr().err
    )
    assert not output.exists()
    luma = read_model(find_model("live-x2-xs-clean"))
    with pytest.raises(BlendError):
        blend(luma, replace(luma, colour=None), 0.5, "grey")


def test_no_file_is_replaced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "there.upf"
    output.write_bytes(b"mine")
    assert main(["blend", *STAGES, "-o", str(output)]) == 1
    assert "there.upf" in capsys.readouterr().err
    assert output.read_bytes() == b"mine"
