"""How good every bundled model is, beside what each player can do without one.

usage: python -m benchmarks.quality --data FOLDER [--models NAME ...] [--write]

FOLDER holds pairs as Set5/x2/001_HR.png and 001_LR.png, Set14/x4/…; where there are
none of ×3, `upfrost-train pairs` makes them. Everything goes through the Vulkan path.
Y-PSNR and SSIM follow the field's convention, as described in
`upfrost.metrics.quality`; VMAF is that of each picture as a video of one frame. Rows of
models that were not asked for stay. With --write, the figures are put into
docs/models.md and into the metadata of models of RGB; those of luma have in theirs what
`upfrost-train export` measured on Y planes.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
import statistics
import tempfile
from collections.abc import Mapping, Set
from pathlib import Path

from PIL import Image

from benchmarks.report import RESULTS, Row, publish
from upfrost import Upscaler
from upfrost.metrics.evaluate import Enlarge, all_ways, enlarged_pairs
from upfrost.metrics.quality import y_psnr, y_ssim
from upfrost.metrics.vmaf import measure_video
from upfrost.network.graph import macs_per_output_pixel, parameter_count
from upfrost.network.modelfile import bundled_models, read_model, write_model
from upfrost.network.modelinfo import METRICS, rounded
from upfrost.video.ffmpeg import find_ffmpeg

SETS = ("Set5", "Set14")
PAGE = Path(__file__).parent.parent / "docs" / "models.md"
Quality = dict[str, dict[str, float]]  # data set → metric → mean


def measure(
    folder: Path, ways: Mapping[str, Enlarge], scale: int, ffmpeg: str
) -> Quality:
    """The means of each way to enlarge over the pairs of a folder, by its name."""
    found: dict[str, dict[str, list[float]]] = {}
    with tempfile.TemporaryDirectory() as name:
        original, result = Path(name, "original.png"), Path(name, "result.png")
        for pair in enlarged_pairs(folder, ways, scale):
            Image.fromarray(pair.original).save(original)
            for way, large in pair.enlarged.items():
                Image.fromarray(large).save(result)
                values = found.setdefault(way, {"psnr_y": [], "ssim": [], "vmaf": []})
                values["psnr_y"].append(y_psnr(large, pair.original, scale))
                values["ssim"].append(y_ssim(large, pair.original, scale))
                vmaf = measure_video(ffmpeg, original, result).mean("vmaf")
                values["vmaf"].append(vmaf)
    return {
        way: rounded({key: statistics.mean(each) for key, each in values.items()})
        for way, values in found.items()
    }


def model_rows(path: Path, data: Path, seen: set[int], *, write: bool) -> list[Row]:
    """Rows of a model, and before them those of the filters if its scale is new."""
    graph = read_model(path)
    ffmpeg = find_ffmpeg()
    with Upscaler(graph) as upscaler:
        by_set = {
            name: measure(
                *(data / name / f"x{graph.scale}", all_ways(upscaler)),
                *(graph.scale, ffmpeg),
            )
            for name in SETS
        }
    if write and graph.colour is None:
        quality = {name: ways[graph.name] for name, ways in by_set.items()}
        metadata = {**graph.metadata, "quality": quality}
        write_model(path, dataclasses.replace(graph, metadata=metadata))
    rows: list[Row] = []
    for way in by_set[SETS[0]]:
        own = way == graph.name
        if not own and graph.scale in seen:
            continue
        row: dict[str, str | int | float | None] = {
            "": f"**{way}**" if own else way,
            "scale": f"×{graph.scale}",
            "parameters": parameter_count(graph) if own else None,
            "MACs per output pixel": (
                round(macs_per_output_pixel(graph)) if own else None
            ),
        }
        for name, ways in by_set.items():
            for key, (metric, decimals, unit) in METRICS.items():
                column = f"{name} {metric}{unit and ',' + unit}"
                row[column] = f"{ways[way][key]:.{decimals}f}"
        rows.append(row)
    seen.add(graph.scale)
    return rows


def merged(new: list[Row], old: list[Row], bundled: Set[str]) -> list[Row]:
    """Both, by scale, filters before models; of the old what is not among the new.

    Rows of models that are bundled no longer are left out.
    """
    rows = {(row["scale"], row[""]): row for row in (*old, *new)}

    def order(key: tuple[object, object]) -> tuple[object, bool, object]:
        scale, name = key
        model = str(name).startswith("**")
        # Filters keep the order that they were measured in.
        return scale, model, name if model else 0

    return [
        rows[key]
        for key in sorted(rows, key=order)
        if str(key[1]).strip("*") in bundled or not str(key[1]).startswith("**")
    ]


def put_table(page: Path, table: str) -> None:
    """Replace the page's first table; the words around it stay."""
    text, count = re.subn(
        r"(?m)^\|.*\n(?:\|.*\n)*", lambda _: table, page.read_text("utf-8"), count=1
    )
    if not count:
        raise SystemExit(f"{page}: has no table to replace")
    page.write_text(text, "utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description="Quality of the bundled models.")
    parser.add_argument("--data", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--models", nargs="+", metavar="NAME", help="(default: all)")
    parser.add_argument(
        "--write", action="store_true", help="into docs/models.md and the models"
    )
    chosen = parser.parse_args()
    models = [
        path
        for path in bundled_models().values()
        if not chosen.models or path.stem in chosen.models
    ]
    seen: set[int] = set()
    rows: list[Row] = []
    for path in sorted(models, key=lambda path: (read_model(path).scale, path.stem)):
        rows += model_rows(path, chosen.data, seen, write=chosen.write)
    before = RESULTS / "quality.json"
    old = json.loads(before.read_text("utf-8"))["rows"] if before.exists() else []
    rows = merged(rows, old, bundled_models().keys())
    publish("quality", "Quality of the bundled models", rows)
    if chosen.write:
        markdown = (RESULTS / "quality.md").read_text("utf-8")
        put_table(PAGE, "".join(re.findall(r"(?m)^\|.*\n", markdown)))


if __name__ == "__main__":
    main()
