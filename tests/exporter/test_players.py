"""The folder of shaders for players."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from tests.graphs import luma_network
from tools import players
from upfrost.network.modelfile import find_model, read_model, write_model
from upfrost_exporter.mpv import FORMS, shader


def test_one_command_writes_shaders_and_how_to_use_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, folder = tmp_path / "network.upf", tmp_path / "out"
    write_model(model, luma_network(0))
    words = ["players.py", str(folder), "--models", str(model)]
    monkeypatch.setattr(sys, "argv", words)
    players.main()
    names = {path.name for path in folder.iterdir()}
    assert names == {"plain.glsl", "plain-compute.glsl", "README.md"}
    page = (folder / "README.md").read_text(encoding="utf-8")
    for words_ in ("glsl-shader=~~/shaders/plain.glsl", "_path=plain.glsl,"):
        assert words_ in page
    assert 'CTRL+1 no-osd change-list glsl-shaders set "~~/shaders/plain.glsl"' in page
    assert not re.search(r"\{\w+\}", page)


@pytest.mark.parametrize("name", players.luma_models())
def test_the_folder_holds_each_bundled_model_as_it_is(name: str) -> None:
    graph = read_model(find_model(name))
    for form in FORMS:
        path = players.FOLDER / players.file_name(graph, form)
        assert path.read_text(encoding="utf-8") == shader(graph, form), (
            "python tools/players.py writes it anew"
        )
