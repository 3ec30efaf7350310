"""The roofline names every layer once and adds them up."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from benchmarks.report import Row

from benchmarks import roofline
from upfrost.network.modelfile import find_model, read_model


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_rows_are_the_layers_and_their_sum(
    monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    pytest.importorskip("pyshaderc", reason="the shader compiler is not installed")
    published: list[Row] = []

    def publish(
        name: str, title: str, rows: Sequence[Row], notes: Sequence[str] = ()
    ) -> None:
        assert name == "roofline"
        assert precision in title
        assert "GMAC/s" in notes[0]
        published.extend(rows)

    monkeypatch.setattr(roofline, "publish", publish)
    arguments = ["--size", "24x16", "--runs", "1", "--precision", precision]
    monkeypatch.setattr("sys.argv", ["roofline", *arguments])
    roofline.main()
    labels = [row["layer"] for row in published]
    assert len(set(labels)) == len(labels)
    graph = read_model(find_model("realtime-x4"))
    assert {node.name for node in graph.nodes if node.op == "conv2d"} <= set(labels)
    *layers, total = (row["ms"] for row in published)
    assert total == pytest.approx(sum(float(ms) for ms in layers if ms is not None))
