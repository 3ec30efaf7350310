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

from tests.runtime.clips import (
    HDR,
    frames,
    make_clip,
    needs_vmaf,
)
from tests.runtime.metrics.browser import AVAILABLE, Browser
from upfrost.arrays import Bytes
from upfrost.cli import main as cli
from upfrost.metrics.compare import CompareError, Network, Shot, compare, write_page
from upfrost.metrics.quality import y_psnr, y_ssim
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


@needs_vmaf
def test_the_command_enlarges_videos_by_the_model_for_videos(tmp_path: Path) -> None:
    large = make_clip(tmp_path / "large.mkv", size="64x36", seconds=0.2)
    small = make_clip(tmp_path / "small.mkv", size="32x18", seconds=0.2)
    words = ["compare", str(large), str(small), "-o", str(tmp_path / "page")]
    assert cli.main([*words, "--quiet", "--device", "0", "--frames", "1"]) == 0
    layers = page_data(tmp_path / "page" / "index.html")["shots"][0]["layers"]
    assert "video-x2" in [layer["name"] for layer in layers]


# In the browser


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("compare")
    first, second = (
        compare([picture(folder / name, 240, 320)], NETWORK, shrink=True)[0][0]
        for name in ("first.png", "second.png")
    )
    return write_page(folder, [first, second], {})


@pytest.fixture(scope="module", params=["desktop", "phone"])
def browser(request: pytest.FixtureRequest) -> Iterator[Browser]:
    if not AVAILABLE:
        pytest.skip("needs Debian's chromium and chromium-driver")
    phone = request.param == "phone"
    size = (390, 844) if phone else (1280, 900)
    with Browser(*size, touch=phone) as opened:
        yield opened


@pytest.fixture
def window(browser: Browser, page: Path) -> Iterator[Browser]:
    browser.open(page)
    yield browser
    assert browser.errors() == []


def share(window: Browser) -> float:
    return float(window.run("return share"))


def middle(window: Browser, selector: str) -> tuple[float, float]:
    x, y, width, height = window.run(
        f"const r = document.querySelector('{selector}').getBoundingClientRect();"
        "return [r.x, r.y, r.width, r.height]"
    )
    return x + width / 2, y + height / 2


def test_everything_fits_the_window(window: Browser, tmp_path: Path) -> None:
    window.screenshot(tmp_path / "page.png")
    assert (tmp_path / "page.png").stat().st_size > 10_000
    wide = window.run("return [document.documentElement.scrollWidth, innerWidth]")
    assert wide[0] <= wide[1]
    assert share(window) == 0.5


@pytest.mark.parametrize("kind", ["mouse", "touch"])
@pytest.mark.parametrize("place", ["#handle", "#pan"])
def test_the_line_follows_mouse_and_finger(
    window: Browser, kind: str, place: str
) -> None:
    x, y = middle(window, "#handle")
    if place == "#pan":
        x += 40
    window.drag((x, y), (x - 90, y + 3), kind)
    width = window.run("return by('view').clientWidth")
    expected = 0.5 + ((40 if place == "#pan" else 0) - 90) / width
    assert share(window) == pytest.approx(expected, abs=0.02)


def test_the_line_follows_the_keyboard(window: Browser) -> None:
    window.key(RIGHT, RIGHT, LEFT)
    assert share(window) == pytest.approx(0.51)
    window.key(HOME)
    assert share(window) == 0
    window.key(END)
    assert share(window) == 1
    assert window.run("return by('handle').getAttribute('aria-valuenow')") == "100"


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
        "for (const l of shot.layers) if (l.name === 'nearest') { by('above')"
        '.src = \'data:image/svg+xml,<svg xmlns="http://www.w3.org/2000/svg" '
        'viewBox="0 0 4 3"><path fill="red" d="M0 0h4v3H0z"/></svg>\' }'
    )
    while not window.run("return by('above').complete && by('below').complete"):
        pass
    window.screenshot(tmp_path / "seen.png")
    with Image.open(tmp_path / "seen.png") as screenshot:
        seen = np.asarray(screenshot.convert("RGB"))
    x, y = middle(window, "#handle")
    ratio = window.run("return devicePixelRatio")
    row = round((y + 50) * ratio)
    left = seen[row, round((x - 30) * ratio)]
    right = seen[row, round((x + 30) * ratio)]
    assert tuple(left) == (255, 0, 0)
    assert tuple(right) != (255, 0, 0)


def test_zoom_shows_single_pixels_and_keeps_the_middle(window: Browser) -> None:
    window.click('[data-zoom="8"]')
    assert window.run("return by('sheet').clientWidth") == 320 * 8
    assert window.run("return getComputedStyle(by('below')).imageRendering") == (
        "pixelated"
    )
    at = window.run(
        "const p = by('pan');return (p.scrollLeft + p.clientWidth / 2) / p.scrollWidth"
    )
    assert at == pytest.approx(0.5, abs=0.02)
    window.key("-")
    assert window.run("return zoom") == 4
    window.click('[data-zoom="fit"]')
    assert window.run("return by('pan').scrollWidth <= by('pan').clientWidth")


def test_pictures_and_versions_can_be_chosen(window: Browser) -> None:
    assert window.run("return by('left-tag').textContent") == "Lanczos"
    window.run("by('left').value = 0; by('left').onchange()")
    assert window.run("return by('left-tag').textContent") == "first.png"
    window.run("by('shot').value = 1; by('shot').onchange()")
    assert window.run("return by('right-tag').textContent") == "doubling"
    rows = window.run("return by('metrics').innerText")
    assert "second.png" in rows
    assert re.search(r"bilinear\s+\d\d\.\d\d\s+0\.\d{4}", rows)
