"""Writes the shaders of luma's models for players, and how to use them, into a folder.

usage: python tools/players.py [FOLDER] [--models MODEL ...]

FOLDER is exported/players if it is not named, the models are all bundled ones for luma.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from upfrost.network.graph import Graph, macs_per_output_pixel, parameter_count
from upfrost.network.modelfile import bundled_models, find_model, read_model
from upfrost.network.modelinfo import METRICS, in_words
from upfrost_exporter.mpv import FORMS, Form, shader, write_shader

FOLDER = Path(__file__).resolve().parent.parent / "exported" / "players"

PAGE = """\
# Shaders for mpv and other players

A player that runs one of these enlarges video with a network of upfrost's, on any GPU
and driver. Written by `{command}`; how they compute and how they were
tested stands in [docs/players.md](../../docs/players.md).

{table}

Licence and origin stand in each file's head, with
[ATTRIBUTION.md](../../runtime/upfrost/network/models/ATTRIBUTION.md). A larger network
looks better and costs more; names with `clean` are for films of high quality, those
without for streams and other compressed video.

## mpv

Put the files into `~/.config/mpv/shaders/`, and into `~/.config/mpv/mpv.conf`:

```
vo=gpu-next
glsl-shader=~~/shaders/{first}.glsl
```

A shader runs while the window is so much larger than the video that it is worth it,
1.41 times for networks that double. Keys to compare with and without, in
`~/.config/mpv/input.conf`:

```
CTRL+0 no-osd change-list glsl-shaders clr "" ; show-text "no shader"
{keys}
```

`Shift+I`, then `2`, shows the passes and what each takes.

## ffmpeg

An ffmpeg with the filter `libplacebo`, such as Debian's:

```
ffmpeg -init_hw_device vulkan -i film.mkv -vf "hwupload,\\
libplacebo=w=2*iw:h=2*ih:format=yuv420p:custom_shader_path={first}.glsl,\\
hwdownload,format=yuv420p" -c:a copy film-x2.mkv
```

`yuv420p` is what most films have; for 10 bits it is `yuv420p10le`, at both places.

## Other players

Whatever is built on mpv or libplacebo takes the same files: Celluloid and Haruna by
mpv's options, VLC 4 by `--pl-user-shader`.

## `-compute`

The same networks as compute shaders, which read less: for Vulkan and OpenGL 4.3. Where
the player has neither (Panfrost's OpenGL is 3.1), it reports an error and may show a
black picture; take the other file there.
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", nargs="?", type=Path, default=FOLDER)
    parser.add_argument("--models", nargs="+", metavar="MODEL")
    chosen = parser.parse_args()
    graphs = [read_model(find_model(name)) for name in chosen.models or luma_models()]
    if not graphs:
        raise SystemExit("no bundled model is for luma; name some: --models MODEL")
    # The first one stands in the examples, which double.
    graphs.sort(key=lambda graph: (graph.scale, macs_per_output_pixel(graph)))
    chosen.folder.mkdir(parents=True, exist_ok=True)
    for graph in graphs:
        for form in FORMS:
            path = chosen.folder / file_name(graph, form)
            write_shader(graph, path, form)
            print(path)
    readme = chosen.folder / "README.md"
    readme.write_text(page(graphs), encoding="utf-8")
    print(readme)


def luma_models() -> list[str]:
    """The names of the bundled models for luma."""
    return [
        name
        for name, path in bundled_models().items()
        if read_model(path).colour == "luma"
    ]


def file_name(graph: Graph, form: Form) -> str:
    return f"{graph.name}.glsl" if form == "fragment" else f"{graph.name}-{form}.glsl"


def page(graphs: Sequence[Graph]) -> str:
    """The folder's README."""
    keys = (
        f"CTRL+{number} no-osd change-list glsl-shaders set "
        f'"~~/shaders/{graph.name}.glsl" ; show-text "{graph.name}"'
        for number, graph in enumerate(graphs[:9], 1)
    )
    return PAGE.format(
        command="python tools/players.py",
        table="\n".join(table(graphs)),
        first=graphs[0].name,
        keys="\n".join(keys),
    )


def table(graphs: Iterable[Graph]) -> Iterator[str]:
    """Lines of a table: what each network is, and its quality by its own metadata."""
    yield "| file | scale | parameters | passes | licence | Set5 | Set14 |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    for graph in graphs:
        passes = (shader(graph, form).count("//!HOOK") for form in FORMS)
        licence = graph.metadata.get("licence", "–")
        yield (
            f"| [{graph.name}.glsl]({graph.name}.glsl) | ×{graph.scale} "
            f"| {parameter_count(graph):,} | {', '.join(map(str, passes))} as compute "
            f"shaders | {licence} | {quality(graph, 'Set5')} "
            f"| {quality(graph, 'Set14')} |"
        )


def quality(graph: Graph, data_set: str) -> str:
    """``Y-PSNR 36.70 dB, SSIM 0.9542``, or a dash."""
    sets = graph.metadata.get("quality")
    found = sets.get(data_set) if isinstance(sets, dict) else None
    if not isinstance(found, dict):
        return "–"
    return ", ".join(in_words(key, found[key]) for key in METRICS if key in found)


if __name__ == "__main__":
    main()
