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


def test_a_second_stage_is_carried_over(tmp_path: Path) -> None:
    output = tmp_path / "carried.upf"
    words = ["blend", *STAGES, "--share", "0.5", "--onto", "photo-x4"]
    assert main([*words, "-o", str(output)]) == 0
    first, second, third = (
        read_model(find_model(name)) for name in (*STAGES, "photo-x4")
    )
    carried = read_model(output)
    for key, weight in carried.tensors.items():
        added = 0.5 * (second.tensors[key] - first.tensors[key])
        # Sums in another order, of numbers below 4.
        np.testing.assert_allclose(weight, third.tensors[key] + added, 0, 1e-6)
    assert carried.metadata["description"] == (
        "photo-x4, and 0.5 of what leads from cascade-x4 to cascade-x4-gan"
    )
    other = read_model(find_model("realtime-x4"))
    with pytest.raises(BlendError, match="cascade-x4 and realtime-x4 are not"):
        blend(first, second, 0.5, "none", onto=other)


@pytest.mark.parametrize(
    "names",
    [
        ("live-x2-xs-clean", "live-x2-xs"),
        ("live-x2-s-clean", "live-x2-s"),
        ("live-x2-m-clean", "live-x2-m"),
        ("realtime-x2", "live-x2-l"),
        ("live-x3-s-clean", "live-x3-s"),
    ],
)
def test_a_second_phase_blends_with_its_first(names: tuple[str, str]) -> None:
    first, second = (read_model(find_model(name)) for name in names)
    # Their nodes may be listed in another order: they were exported at other times.
    blend(first, second, 0.5, "between")


def test_a_weight_file_has_its_own_suffix(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["blend", *STAGES, "-o", str(tmp_path / "x.txt")]) == 1
    assert "x.txt: a weight file's name ends in .upf" in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("share", ["nan", "inf", "-1e39", "50"])
def test_a_share_that_leads_nowhere_is_refused(
    share: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "none.upf"
    assert main(["blend", *STAGES, f"--share={share}", "-o", str(output)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "shares are numbers of about 0 to 2" in line
    assert not output.exists()


def test_any_file_name_will_do(tmp_path: Path) -> None:
    output = tmp_path / "mein Modell ü.upf"
    assert main(["blend", *STAGES, "-o", str(output)]) == 0
    assert read_model(output).name == "mein_Modell_"


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


@pytest.mark.parametrize(
    "words", [["blend", *STAGES], ["export", "training/configs/realtime-x2.toml"]]
)
def test_a_file_is_replaced_only_when_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    output = tmp_path / "there.upf"
    output.write_bytes(b"mine")
    assert main([*words, "-o", str(output)]) == 1
    assert "there.upf: exists already; --overwrite" in capsys.readouterr().err
    assert output.read_bytes() == b"mine"


def test_a_blend_never_replaces_what_it_is_made_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "one.upf"
    output.write_bytes(find_model(STAGES[0]).read_bytes())
    words = ["blend", str(output), STAGES[1], "-o", str(output), "--overwrite"]
    assert main(words) == 1
    assert "one.upf: would replace a file that is read" in capsys.readouterr().err
    assert output.read_bytes() == find_model(STAGES[0]).read_bytes()


def test_a_blend_replaces_a_file_when_asked(tmp_path: Path) -> None:
    output = tmp_path / "there.upf"
    output.write_bytes(b"mine")
    assert main(["blend", *STAGES, "-o", str(output), "--overwrite"]) == 0
    assert read_model(output).name == "there"
