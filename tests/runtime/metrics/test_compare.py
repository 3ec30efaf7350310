"""`upfrost compare`: what is in the page, and how it works in a real Chromium."""

from __future__ import annotations

import base64
import io
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.runtime import fakes
from tests.runtime.clips import (
    HDR,
    frames,
    make_clip,
    needs_vmaf,
)
from tests.runtime.metrics.browser import AVAILABLE, Browser
from upfrost.arrays import Bytes
from upfrost.cli import arguments
from upfrost.cli import main as cli
from upfrost.metrics.compare import (
    CompareError,
    Network,
    Shot,
    check_folder,
    compare,
    compare_pictures,
    group_by_content,
    group_pictures,
    write_page,
)
from upfrost.metrics.quality import y_psnr, y_ssim
from upfrost.metrics.vmaf import VideoQuality
from upfrost.video.ffmpeg import VideoError

HOME, END, LEFT, RIGHT = "\ue011", "\ue010", "\ue012", "\ue014"


def network(pixels: Bytes) -> Bytes:
    return pixels.repeat(2, axis=0).repeat(2, axis=1)


NETWORK = Network("doubling", 2, network)


def picture(path: Path, height: int = 60, width: int = 80) -> Path:
    """Smooth, so that enlarging it makes sense; another in every row and column."""
    rows, columns = np.mgrid[0:height, 0:width]
    waves = [np.sin(rows / n) * np.cos(columns / (n + 3)) for n in (5, 8, 11)]
    pixels = (128 + 100 * np.stack(waves, axis=-1)).astype(np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def names(shot: Shot) -> list[str]:
    return [layer.name for layer in shot.layers]


def page_data(page: Path) -> Any:
    found = re.search(r'id="data">(.*?)</script>', page.read_text("utf-8"), re.DOTALL)
    assert found
    return json.loads(found[1])


def test_a_shrunk_picture_is_measured_against_itself(tmp_path: Path) -> None:
    source = picture(tmp_path / "photo.png")
    (shot,), quality = compare([source], NETWORK, shrink=True)
    assert names(shot) == ["photo.png", "nearest", "bilinear", "Lanczos", "doubling"]
    assert (shot.left, shot.right) == ("Lanczos", "doubling")
    assert shot.original == "photo.png"
    assert not quality
    original = shot.layers[0]
    assert original.metrics == {}
    for layer in shot.layers[1:]:
        expected = y_psnr(layer.pixels, original.pixels, 2)
        assert layer.metrics["psnr"] == expected
        assert layer.metrics["ssim"] == y_ssim(layer.pixels, original.pixels, 2)
    np.testing.assert_array_equal(shot.layers[1].pixels, shot.layers[4].pixels)


def test_one_picture_is_enlarged_and_has_no_original(tmp_path: Path) -> None:
    (shot,), _ = compare([picture(tmp_path / "photo.png")], NETWORK)
    assert names(shot) == ["nearest", "bilinear", "Lanczos", "doubling"]
    assert all(layer.pixels.shape == (120, 160, 3) for layer in shot.layers)
    assert not any(layer.metrics for layer in shot.layers)


def test_larger_and_smaller_files_meet_at_the_larger_size(tmp_path: Path) -> None:
    large = picture(tmp_path / "large.png", 120, 160)
    other = picture(tmp_path / "other.png", 120, 160)
    small = picture(tmp_path / "small.png", 60, 80)
    (shot,), _ = compare([large, other, small], NETWORK)
    assert names(shot)[:2] == ["large.png", "other.png"]
    assert names(shot)[2:] == ["nearest", "bilinear", "Lanczos", "doubling"]
    assert shot.layers[1].metrics["psnr"] == 99  # equal; JSON has no infinity


@pytest.mark.parametrize(
    ("order", "shown", "original"),
    [
        (("small", "large"), ("Lanczos", "large.png"), None),
        (("large", "small"), ("Lanczos", "doubling"), "large.png"),
        (("large", "small", "other"), ("Lanczos", "other.png"), "large.png"),
        (("large", "other"), ("large.png", "other.png"), "large.png"),
    ],
)
def test_the_page_opens_on_what_the_user_brought(
    tmp_path: Path,
    order: tuple[str, ...],
    shown: tuple[str, str],
    original: str | None,
) -> None:
    sizes = {"small": (60, 80), "large": (120, 160), "other": (120, 160)}
    paths = [picture(tmp_path / f"{name}.png", *sizes[name]) for name in order]
    (shot,), _ = compare(paths, NETWORK)
    assert ((shot.left, shot.right), shot.original) == (shown, original)
    # A result is nothing to measure other results against.
    assert any(layer.metrics for layer in shot.layers) == (original is not None)


def test_pictures_of_folders_belong_together_by_their_names(tmp_path: Path) -> None:
    for name in ("a/one.jpg", "a/two.png", "a/two-x3.png", "a/no.txt", "a/.x.png",
                 "b/one-x2.png", "b/lone-x2.png"):  # fmt: skip
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    groups = group_pictures([tmp_path / "a", tmp_path / "b"])
    assert [
        [str(path.relative_to(tmp_path)) for path in group] for group in groups
    ] == [
        ["b/lone-x2.png"],
        ["a/one.jpg", "b/one-x2.png"],
        ["a/two.png", "a/two-x3.png"],
    ]
    (tmp_path / "empty").mkdir()
    with pytest.raises(CompareError, match="no picture in this folder"):
        group_pictures([tmp_path / "empty"])


def test_pictures_of_a_list_belong_together_by_what_they_show(tmp_path: Path) -> None:
    """Whatever their names; another picture of the same size is one of its own."""
    first, other = picture(tmp_path / "a.png"), tmp_path / "b.png"
    wide = picture(tmp_path / "wide.png", 60, 120)
    with Image.open(first) as image:
        image.transpose(Image.Transpose.FLIP_TOP_BOTTOM).save(other)
        large = tmp_path / "result.jpg"
        image.resize((160, 120)).point(lambda v: int(0.8 * v)).save(large, quality=20)
    groups = group_by_content([first, other, wide, large])
    assert groups == [[first, large], [other], [wide]]


def test_pictures_of_one_name_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    paths = [tmp_path / name / "a.png" for name in ("new", "old")]
    for path in paths:
        path.parent.mkdir()
        picture(path, 20, 20)
    assert names(compare_pictures(paths, NETWORK)) == ["new/a.png", "old/a.png"]


def test_what_is_missing_or_damaged_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sound = str(picture(tmp_path / "photo.png", 30, 40))
    damaged = tmp_path / "damaged.png"
    damaged.write_bytes(b"no picture")
    words = ["-o", str(tmp_path / "page"), "--device", "0"]
    for other, said in (
        (str(tmp_path / "none.png"), "none.png: No such file or directory"),
        (str(tmp_path / "none"), "none: No such file or directory"),
        (str(damaged), "picture, or damaged"),
    ):
        for inputs in ([sound, other], [other, sound]):
            assert cli.main(["compare", *inputs, *words]) in (1, 2)
            assert said in capsys.readouterr().err.splitlines()[-1]


def test_the_command_shows_every_picture_of_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Pictures are files beside the page; a bad one costs its own place only."""
    monkeypatch.setattr(arguments, "open_upscaler", fakes.open_fake)
    for name, size in (("in/a.png", 20), ("in/b.png", 20), ("out/a-x2.png", 40)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        picture(tmp_path / name, size, size)
    (tmp_path / "in" / "c.png").write_bytes(b"no picture")
    folders = [str(tmp_path / "in"), str(tmp_path / "out")]
    words = ["compare", *folders, "-o", str(tmp_path / "page"), "--json", "-q"]
    assert cli.main(words) == 1
    said = capsys.readouterr()
    assert "c.png" in said.err
    shots = json.loads(said.out)["shots"]
    assert [shot["name"] for shot in shots] == ["a.png", "b.png"]
    page = tmp_path / "page" / "index.html"
    assert "data:image" not in page.read_text("utf-8")
    first = page_data(page)["shots"][0]
    assert first["right"] == "a-x2.png"
    kept = {layer["name"]: page.parent / layer["src"] for layer in first["layers"]}
    with (
        Image.open(kept["a-x2.png"]) as shown,
        Image.open(tmp_path / "out" / "a-x2.png") as original,
    ):
        np.testing.assert_array_equal(np.asarray(shown), np.asarray(original))


@pytest.mark.parametrize("more", [[], ["--shrink"], ["-m", "realtime-x2"]])
def test_the_command_shows_every_picture_of_a_list(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: list[str]
) -> None:
    monkeypatch.setattr(arguments, "open_upscaler", fakes.open_fake)
    inputs = [
        str(picture(tmp_path / name, *size))
        for name, size in (("a.png", (60, 80)), ("b.png", (80, 60)), ("c.png", (9, 99)))
    ]
    words = ["compare", *inputs, *more, "-o", str(tmp_path / "page"), "-q"]
    assert cli.main(words) == 0
    page = tmp_path / "page" / "index.html"
    shots = page_data(page)["shots"]
    assert [shot["name"] for shot in shots] == ["a.png", "b.png", "c.png"]
    # Each by the filters and the model, none against another.
    assert {len(shot["layers"]) for shot in shots} == {5 if "--shrink" in more else 4}


@pytest.mark.parametrize(
    ("others", "reason"),
    [
        (["narrow.png"], "are not the same picture in two sizes"),
        (["clip.mp4"], "compare pictures with pictures"),
    ],
)
def test_what_is_not_alike_is_refused(
    tmp_path: Path, others: list[str], reason: str
) -> None:
    paths = [picture(tmp_path / "photo.png")]
    picture(tmp_path / "narrow.png", 60, 30)
    make_clip(tmp_path / "clip.mp4", seconds=0.1)
    paths += [tmp_path / name for name in others]
    with pytest.raises(CompareError, match=reason):
        compare(paths, NETWORK)


def test_transparent_pictures_are_compared_on_white(tmp_path: Path) -> None:
    path = picture(tmp_path / "disc.png")
    image = Image.open(path).convert("RGBA")
    image.putalpha(Image.new("L", image.size, 0))
    image.save(path)
    (shot,), _ = compare([path], NETWORK)
    assert all((layer.pixels == 255).all() for layer in shot.layers)


@needs_vmaf
def test_videos_are_compared_at_the_same_moments(tmp_path: Path) -> None:
    large = make_clip(tmp_path / "large.mkv", "-crf", "0", size="128x72")
    worse = make_clip(tmp_path / "worse.mp4", "-crf", "35", size="128x72")
    small = make_clip(tmp_path / "small.mkv", size="64x36")
    shots, quality = compare([large, worse, small], NETWORK, moments=2)
    assert [shot.name for shot in shots] == ["0.25 s", "0.75 s"]
    assert names(shots[0])[:3] == ["large.mkv", "worse.mp4", "nearest"]
    assert list(quality) == ["worse.mp4"]
    assert len(quality["worse.mp4"].vmaf) == 24
    page = write_page(tmp_path / "page", shots, quality)
    data = page_data(page)
    assert [metric["key"] for metric in data["metrics"]] == ["psnr", "ssim", "vmaf"]
    assert [chart.count("<svg") for chart in data["charts"]] == [1, 1, 1]


def test_the_frame_is_the_one_that_is_shown_at_that_time(tmp_path: Path) -> None:
    """The second stays for a second, longer than decoding begins before a moment."""
    clip = make_clip(
        *(tmp_path / "clip.mkv", "-c:v", "ffv1", "-pix_fmt", "gbrp"),
        *("-fps_mode", "passthrough", "-enc_time_base", "1:1000"),
        filters="trim=end_frame=3,settb=1/1000,setpts='if(gte(N\\,2)\\,3000\\,N*500)'",
    )
    shots, _ = compare([clip], Network("none", 1, network), moments=4)
    expected = frames(clip, (64, 36))
    # At 0.4, 1.1, 1.9 and 2.6 s of 3.04.
    found = [shot.layers[0].pixels for shot in shots]
    assert len(found) == 2
    for pixels, frame in zip(found, expected, strict=False):
        np.testing.assert_array_equal(pixels, frame)


def test_videos_of_one_frame_are_shown_once(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "clip.mp4", "-frames:v", "1")
    shots, _ = compare([clip], NETWORK)
    assert len(shots) == 1


def test_hdr_is_refused_as_by_the_other_commands(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "hdr.mp4", seconds=0.2, filters=HDR)
    with pytest.raises(VideoError, match="HDR"):
        compare([clip], NETWORK)


def test_the_page_needs_nothing_else_and_holds_the_very_pixels(
    tmp_path: Path,
) -> None:
    # A name that would end the script element it stands in.
    source = tmp_path / "a<!-- <script>&.png"
    picture(source)
    shots, quality = compare([source], NETWORK, shrink=True)
    page = write_page(tmp_path / "new" / "page", shots, quality)
    text = page.read_text("utf-8")
    assert not re.search(r'(src|href)="|url\(|@import|https?://(?!www\.w3\.org)', text)
    assert text.count("<script") == text.count("</script>") == 2
    data = page_data(page)
    (shot,) = data["shots"]
    assert shot["layers"][0]["name"] == source.name
    for layer, kept in zip(shots[0].layers, shot["layers"], strict=True):
        raw = base64.b64decode(kept["src"].partition(",")[2])
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(raw))),
                                      layer.pixels)  # fmt: skip


def test_the_command_writes_a_page_and_metrics(tmp_path: Path) -> None:
    source = picture(tmp_path / "photo.png", 30, 40)
    result = subprocess.run(
        [
            *(sys.executable, "-m", "upfrost.cli.main", "compare", "--shrink", source),
            *("-o", tmp_path / "page", "--json", "--quiet", "--device", "0"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, "")
    said = json.loads(result.stdout)
    assert said["page"] == str(tmp_path / "page" / "index.html")
    assert said["shots"][0]["realtime-x2"]["psnr"] > 20


@pytest.mark.parametrize(
    "name", ["index.html", "pictures", "video-1.mp4", "video-2", "pictures/00004.png"]
)
def test_a_page_replaces_its_own_and_nothing_else(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whether another's file came before the first page or after it."""
    source = picture(tmp_path / "photo.png", 30, 40)
    folder = tmp_path / "page"
    words = ["compare", "--shrink", str(source), "-o", str(folder), "--device", "0"]
    for _ in range(2):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).unlink(missing_ok=True)
        (folder / name).write_bytes(b"the only one")
        assert cli.main(words) == 2
        assert f"page/{name}: is in the way" in capsys.readouterr().err
        assert (folder / name).read_bytes() == b"the only one"
        (folder / name).unlink()
        assert cli.main(words) == cli.main(words) == 0


def test_no_file_of_an_earlier_page_is_left_beside_the_next(tmp_path: Path) -> None:
    shots = compare([picture(tmp_path / "photo.png", 30, 40)], NETWORK)[0]
    clips = [tmp_path / name for name in ("a.mp4", "b.mp4")]
    for clip in clips:
        clip.write_bytes(b"moving")
    folder = tmp_path / "page"
    write_page(folder, shots, {}, videos=clips, embed=False)
    (folder / "pictures" / "holiday.jpg").touch()
    assert len(list(folder.iterdir())) == 4
    check_folder(folder, [])
    write_page(folder, shots, {})
    check_folder(folder, [])
    assert {path.name for path in folder.rglob("*.*")} == {"index.html", "holiday.jpg"}


def test_an_earlier_page_survives_one_that_fails(tmp_path: Path) -> None:
    shots = compare([picture(tmp_path / "photo.png", 30, 40)], NETWORK)[0]
    folder = tmp_path / "page"

    def stopped() -> Iterator[Shot]:
        yield from shots
        raise KeyboardInterrupt

    # In a folder of its own it leaves nothing in the way of the next.
    with pytest.raises(KeyboardInterrupt):
        write_page(folder, stopped(), {}, embed=False)
    assert not list(folder.iterdir())
    write_page(folder, shots, {}, embed=False)
    before = {path: path.read_bytes() for path in folder.rglob("*.*")}
    with pytest.raises(KeyboardInterrupt):
        write_page(folder, stopped(), {}, embed=False)
    assert {path: path.read_bytes() for path in folder.rglob("*.*")} == before
    for _ in range(3):
        check_folder(folder, [])
        write_page(folder, shots, {}, embed=False)
        assert len([*folder.rglob("*.*")]) == len(before)


def test_a_page_that_cannot_be_written_is_found_before_the_work(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    source = picture(tmp_path / "photo.png", 30, 40)
    monkeypatch.setattr("upfrost.metrics.compare.compare", None)
    assert cli.main(["compare", str(source), "-o", f"{source}/page"]) == 2
    assert "photo.png: is not a folder" in capsys.readouterr().err


def test_an_input_among_the_page_is_not_lost(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = picture(tmp_path / "photo.png", 30, 40)
    words = ["compare", "--shrink", "-o", str(tmp_path), "--device", "0", "--quiet"]
    assert cli.main([*words, str(source)]) == 0
    clips = [tmp_path / name for name in ("a.mp4", "b.mp4")]
    for clip in clips:
        clip.write_bytes(b"the only one")
    write_page(tmp_path, [], {}, videos=clips)
    clip = tmp_path / "video-2.mp4"
    assert cli.main([*words, str(clip), str(clip)]) == 2
    assert "video-2.mp4: would be replaced" in capsys.readouterr().err
    assert clip.read_bytes() == b"the only one"


@needs_vmaf
def test_the_command_enlarges_videos_by_the_model_for_videos(tmp_path: Path) -> None:
    large = make_clip(tmp_path / "large.mkv", size="64x36", seconds=0.2)
    small = make_clip(tmp_path / "small.mkv", size="32x18", seconds=0.2)
    words = ["compare", str(large), str(small), "-o", str(tmp_path / "page")]
    assert cli.main([*words, "--quiet", "--device", "0", "--frames", "1"]) == 0
    layers = page_data(tmp_path / "page" / "index.html")["shots"][0]["layers"]
    assert "live-x2-m" in [layer["name"] for layer in layers]


# In the browser


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two pictures, two videos that move, and charts with a name too long for them."""
    folder = tmp_path_factory.mktemp("compare")
    shots = [
        compare([picture(folder / name, 240, 320)], NETWORK, shrink=True)[0][0]
        for name in ("first.png", "second.png")
    ]
    tall = picture(folder / "tall.png", 400, 100)
    shots += compare([tall], NETWORK)[0]
    clips = [
        make_clip(folder / "original.mp4", size="320x240"),
        make_clip(folder / "small.mp4", size="160x120"),
    ]
    wave = tuple(90 + 5 * np.sin(np.arange(24)))
    quality = {"a rather long name of a video": VideoQuality(wave, wave, wave)}
    return write_page(folder / "page", shots, quality, videos=clips)


@pytest.fixture(scope="module", params=["desktop", "phone"])
def browser(request: pytest.FixtureRequest) -> Iterator[Browser]:
    if not AVAILABLE:
        pytest.skip("needs Debian's chromium and chromium-driver")
    phone = request.param == "phone"
    size = (390, 844) if phone else (1280, 800)
    with Browser(*size, touch=phone) as opened:
        yield opened


@pytest.fixture
def window(browser: Browser, page: Path) -> Iterator[Browser]:
    browser.open(page)
    yield browser
    assert browser.errors() == []


def share(window: Browser) -> float:
    return float(window.run("return viewer.share"))


def middle(window: Browser, selector: str) -> tuple[float, float]:
    x, y, width, height = window.run(
        f"const r = document.querySelector('{selector}').getBoundingClientRect();"
        "return [r.x, r.y, r.width, r.height]"
    )
    return x + width / 2, y + height / 2


def box(window: Browser, selector: str) -> dict[str, float]:
    found: dict[str, float] = window.run(
        f"return document.querySelector('{selector}').getBoundingClientRect().toJSON()"
    )
    return found


@pytest.mark.parametrize("number", [0, 2, 3])
def test_the_picture_and_its_controls_fit_the_window(
    window: Browser, number: int
) -> None:
    """In width and height, a tall one too, and a video with what plays it."""
    window.wait("return by('shot').innerText.includes('moving')")
    window.run(f"showShot({number})")
    wide, inner, height = window.run(
        "return [document.documentElement.scrollWidth, innerWidth, innerHeight]"
    )
    assert wide <= inner
    view, controls = box(window, ".view"), box(window, "#controls")
    assert controls["bottom"] <= view["top"] + 1
    assert max(view["bottom"], box(window, ".transport")["bottom"]) <= height
    sheet = box(window, ".sheet")
    assert sheet["width"] <= view["width"] + 1
    assert sheet["height"] == pytest.approx(view["height"], abs=1)
    assert share(window) == 0.5


@pytest.mark.parametrize("dark", [False, True])
def test_charts_are_legible(window: Browser, dark: bool) -> None:
    window.dark(dark)
    # Letters in CSS pixels, and the contrast of each text with what is behind it.
    size, inks, paper = window.run(
        "const svg = document.querySelector('#charts svg');"
        "const rgb = (value) => value.match(/[0-9.]+/g).slice(0, 3).map(Number);"
        "return [12 * svg.clientWidth / svg.viewBox.baseVal.width,"
        "[...svg.querySelectorAll('text')].map((t) => rgb(getComputedStyle(t).fill)),"
        "rgb(getComputedStyle(document.body).backgroundColor)]"
    )
    assert size >= 11
    assert (sum(paper) < 200) == dark
    assert min(contrast(ink, paper) for ink in inks) >= 4.5
    # The name is cut rather than written past the chart's edge.
    assert window.run(
        "const svg = document.querySelector('#charts svg');"
        "return Math.max(...[...svg.querySelectorAll('text')].map((text) => "
        "text.getBoundingClientRect().right)) <= svg.getBoundingClientRect().right + 1"
    )


@pytest.mark.parametrize("dark", [False, True])
def test_axe_finds_nothing(window: Browser, dark: bool) -> None:
    window.wait("return by('shot').innerText.includes('moving')")
    window.run("showShot(3)")
    window.click('[data-zoom="4"]')
    window.dark(dark)
    assert window.accessibility() == []


def contrast(first: list[float], second: list[float]) -> float:
    """By WCAG 2.2, section 1.4.3."""

    def luminance(rgb: list[float]) -> float:
        values = np.array(rgb) / 255
        linear = np.where(
            values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4
        )
        return float(linear @ (0.2126, 0.7152, 0.0722))

    lighter, darker = sorted((luminance(first), luminance(second)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


@pytest.mark.parametrize("kind", ["mouse", "touch"])
@pytest.mark.parametrize("place", [".handle", ".pan"])
def test_the_line_follows_mouse_and_finger(
    window: Browser, kind: str, place: str
) -> None:
    x, y = middle(window, ".handle")
    if place == ".pan":
        x += 40
    window.drag((x, y), (x - 90, y + 3), kind)
    width = window.run("return viewer.view.clientWidth")
    expected = 0.5 + ((40 if place == ".pan" else 0) - 90) / width
    assert share(window) == pytest.approx(expected, abs=0.02)


def test_the_line_follows_the_keyboard(window: Browser) -> None:
    window.key(RIGHT, RIGHT, LEFT)
    assert share(window) == pytest.approx(0.51)
    window.key(HOME)
    assert share(window) == 0
    window.key(END)
    assert share(window) == 1
    assert window.run("return viewer.handle.getAttribute('aria-valuenow')") == "100"


def test_what_is_seen_is_the_left_and_the_right_picture(
    window: Browser, tmp_path: Path
) -> None:
    """Colours at two places of the screenshot, each side of the line."""
    window.run(
        "for (const [id, name] of [['left', 'nearest'], ['right', 'first.png']])"
        "{ by(id).value = shot.layers.findIndex((l) => l.name === name) }"
        "showLayers();"
    )
    window.run(
        "for (const l of shot.layers) if (l.name === 'nearest') { viewer.above"
        '.src = \'data:image/svg+xml,<svg xmlns="http://www.w3.org/2000/svg" '
        'viewBox="0 0 4 3"><path fill="red" d="M0 0h4v3H0z"/></svg>\' }'
    )
    while not window.run("return viewer.above.complete && viewer.below.complete"):
        pass
    window.screenshot(tmp_path / "seen.png")
    with Image.open(tmp_path / "seen.png") as screenshot:
        seen = np.asarray(screenshot.convert("RGB"))
    x, y = middle(window, ".handle")
    ratio = window.run("return devicePixelRatio")
    row = round((y + 50) * ratio)
    left = seen[row, round((x - 30) * ratio)]
    right = seen[row, round((x + 30) * ratio)]
    assert tuple(left) == (255, 0, 0)
    assert tuple(right) != (255, 0, 0)


def test_zoom_shows_single_pixels_and_keeps_the_middle(window: Browser) -> None:
    before = share_of_middle(window)
    window.click('[data-zoom="8"]')
    assert window.run("return viewer.sheet.clientWidth") == 320 * 8
    assert window.run("return getComputedStyle(viewer.below).imageRendering") == (
        "pixelated"
    )
    assert share_of_middle(window) == pytest.approx(before, abs=0.02)
    window.key("-")
    assert window.run("return viewer.zoom") == 4
    window.click('[data-zoom="fit"]')
    assert window.run("return viewer.pan.scrollWidth <= viewer.pan.clientWidth")


def share_of_middle(window: Browser) -> float:
    """Which part of the picture's width is left of the view's middle."""
    found: float = window.run(
        "const view = viewer.view.getBoundingClientRect();"
        "return viewer.under(view.x + view.width / 2, view.y)[0]"
    )
    return found


@pytest.mark.parametrize("kind", ["wheel", "pinch"])
def test_wheel_and_pinch_zoom_at_their_place(window: Browser, kind: str) -> None:
    x, y = middle(window, ".view")
    place = (x - 60, y - 40)
    under = "return viewer.under({}, {})".format(*(round(value) for value in place))
    before = window.run(under)
    if kind == "pinch":
        window.pinch(place, 60, 120)
    elif window.touch:
        pytest.skip("a telephone has no wheel")
    else:
        window.wheel(place, -300)
    zoomed = window.run("return viewer.scale / viewer.fitting()")
    assert zoomed == pytest.approx(2, rel=0.05)
    # On a telephone all rows are still seen: these begin at the top.
    axes = slice(1) if window.touch else slice(2)
    assert window.run(under)[axes] == pytest.approx(before[axes], abs=0.03)
    assert share(window) == 0.5  # neither moves the line


def test_a_swipe_past_the_picture_scrolls_the_page(window: Browser) -> None:
    x, y = middle(window, ".view")
    if window.touch:
        window.drag((x, y), (x, y - 200), "touch")
    else:
        window.wheel((x, y), 120)
    window.wait("return scrollY > 0")
    assert window.run("return viewer.zoom") == "fit"
    assert share(window) == pytest.approx(0.5, abs=0.02)
    # The controls came along.
    assert box(window, "#controls")["top"] == 0


def test_videos_move_together(window: Browser) -> None:
    window.wait("return by('shot').innerText.includes('moving')")
    window.run("by('shot').value = 3; by('shot').onchange()")
    assert window.run("return viewer.rightTag.textContent") == (
        "small.mp4, enlarged by the browser"
    )
    window.click(".transport button")
    window.wait("return viewer.below.currentTime > 0.3")
    window.click(".transport button")
    assert window.run("return viewer.below.paused && viewer.above.paused")
    window.wait(
        "return Math.abs(viewer.below.currentTime - viewer.above.currentTime) < 0.013"
    )


def test_what_has_no_metrics_shows_no_table(window: Browser) -> None:
    assert window.run("return by('metrics').offsetHeight") > 0
    window.run("by('next').click(); by('next').click()")
    assert window.run("return [shot.name, by('next').disabled]")[0] == "tall.png"
    assert window.run("return by('metrics').offsetHeight") == 0


def test_pictures_and_versions_can_be_chosen(window: Browser) -> None:
    assert window.run("return viewer.leftTag.textContent") == "Lanczos"
    window.run("by('left').value = 0; by('left').onchange()")
    assert window.run("return viewer.leftTag.textContent") == "first.png"
    window.run("by('shot').value = 1; by('shot').onchange()")
    assert window.run("return viewer.rightTag.textContent") == "doubling"
    rows = window.run("return by('metrics').innerText")
    assert "Against second.png" in rows
    assert re.search(r"bilinear\s+\d\d\.\d\d\s+0\.\d{4}", rows)
