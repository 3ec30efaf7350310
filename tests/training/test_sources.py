"""Free photographs are found, chosen and credited."""

import struct
import subprocess
import zlib
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from upfrost_training import sources
from upfrost_training.cli import main
from upfrost_training.data import DataError
from upfrost_training.resize import Picture
from upfrost_training.sources import (
    credit_for,
    is_known,
    prepare,
    read_copyright,
    read_qt_resources,
    sharpened_by_scaling,
    thumbnail,
)

COPYRIGHT = """\
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: pictures

Files: *
Copyright: 2001 Ann
           2002 Bob
License: GPL-2+

Files: src/zoo/cat*.jpg
 src/zoo/dog.jpg
Copyright: 2003 Cid
License: CC-BY-4.0
 The long text.

Files: 16.04/Bridge_by_Dee.jpg
Copyright: 2004 Dee
License: CC0-1.0

Files: debian/*
Copyright: 2005 Eve
License: MIT
"""


def noise(seed: int, side: int = 512) -> Picture:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(256, size=(8, 8, 3), dtype=np.uint8)
    picture = np.asarray(Image.fromarray(coarse).resize((side, side))).astype(int)
    picture += rng.integers(-30, 30, size=picture.shape)
    return picture.clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    ("path", "author", "licence"),
    [
        ("usr/share/other.png", "2001 Ann; 2002 Bob", "GPL-2+"),
        ("game/src/zoo/cat2.webp", "2003 Cid", "CC-BY-4.0"),
        ("game/src/zoo/dog.webp", "2003 Cid", "CC-BY-4.0"),
        ("game/src/farm/dog.webp", "2001 Ann; 2002 Bob", "GPL-2+"),
        ("usr/share/backgrounds/Bridge_by_Dee.jpg", "2004 Dee", "CC0-1.0"),
    ],
)
def test_the_last_matching_entry_of_the_copyright_file_is_credited(
    path: str, author: str, licence: str
) -> None:
    credit = credit_for(path, "pictures", read_copyright(COPYRIGHT))
    assert (credit.author, credit.licence) == (author, licence)
    assert path in credit.source


def qt_resources(files: dict[str, bytes], version: int) -> bytes:
    """A resource file with one folder `a` that holds `files`, every second packed."""
    names, data, nodes = b"", b"", b""
    tail = b"" if version == 1 else bytes(8)

    def add_name(name: str) -> int:
        nonlocal names
        offset = len(names)
        names += struct.pack(">HI", len(name), 0) + name.encode("utf-16-be")
        return offset

    nodes += struct.pack(">IHII", 0, 2, 1, 1) + tail
    nodes += struct.pack(">IHII", add_name("a"), 2, len(files), 2) + tail
    for i, (name, content) in enumerate(files.items()):
        if i % 2:
            content = struct.pack(">I", len(content)) + zlib.compress(content)
        nodes += struct.pack(">IHHHI", add_name(name), i % 2, 0, 0, len(data)) + tail
        data += struct.pack(">I", len(content)) + content
    start = 20 if version < 3 else 24
    header = struct.pack(
        ">4I", version, start, start + len(nodes), start + len(nodes) + len(data)
    )
    return b"qres" + header + bytes(start - 20) + nodes + data + names


@pytest.mark.parametrize("version", [1, 2, 3])
def test_qt_resources_are_read(version: int) -> None:
    files = {"ä.webp": b"picture", "b.txt": b"text" * 50, "c": b""}
    found = dict(read_qt_resources(qt_resources(files, version)))
    assert found == {f"a/{name}": content for name, content in files.items()}
    with pytest.raises(DataError, match="not a Qt resource file"):
        list(read_qt_resources(b"PNG" + bytes(30)))


def test_soft_pictures_are_halved_until_sharp() -> None:
    sharp = noise(0)
    result = sharpened_by_scaling(sharp)
    assert result is not None
    np.testing.assert_array_equal(result, sharp)
    soft = np.asarray(
        Image.fromarray(noise(0, 1024)).filter(ImageFilter.GaussianBlur(3))
    )
    halved = sharpened_by_scaling(soft)
    assert halved is None or halved.shape[0] < 1024
    assert sharpened_by_scaling(np.full((512, 512, 3), 7, np.uint8)) is None


def test_scaled_recompressed_and_mirrored_pictures_are_known(tmp_path: Path) -> None:
    picture = noise(0)
    known = [thumbnail(picture)]
    Image.fromarray(picture).resize((200, 200)).save(tmp_path / "a.jpg", quality=60)
    again = np.asarray(Image.open(tmp_path / "a.jpg"))
    assert is_known(again, known)
    assert is_known(again[:, ::-1], known)
    assert not is_known(noise(1), known)


def package(folder: Path) -> Path:
    """A `.deb` of the package palapeli-data, with three pictures and one example."""
    root = folder / "root"
    pictures = root / "usr/share/palapeli/collection"
    documents = root / "usr/share/doc/palapeli-data"
    for path in (pictures, documents, root / "DEBIAN"):
        path.mkdir(parents=True)
    for seed in range(3):
        Image.fromarray(noise(seed)).save(pictures / f"{seed}.jpg", quality=98)
    Image.fromarray(noise(9)).save(pictures / "citrus-fruits.jpg", quality=98)
    (documents / "copyright").write_text(COPYRIGHT)
    (root / "DEBIAN/control").write_text(
        "Package: palapeli-data\nVersion: 1\nArchitecture: all\n"
        "Maintainer: A <a@example.org>\nDescription: test\n"
    )
    archive = folder / "palapeli-data_1_all.deb"
    subprocess.run(
        ["dpkg-deb", "-b", str(root), str(archive)], check=True, capture_output=True
    )
    return archive


def test_a_package_becomes_pictures_and_an_attribution(tmp_path: Path) -> None:
    archive = package(tmp_path)
    for name, seed in (("evaluation", 0), ("listed", 1)):
        (tmp_path / name).mkdir()
        Image.fromarray(noise(seed)).save(tmp_path / name / "p.png")
    (tmp_path / "listed/README.md").write_text(
        "Pages:\n* https://example.org/wiki/File%3ABlue_cat_%281%29.jpg\n"
    )
    lines: list[str] = []
    output = tmp_path / "out"
    count = prepare(
        [archive],
        [tmp_path / "listed"],
        [tmp_path / "evaluation"],
        output,
        lines.append,
        ["A film, by its author, CC-BY-3.0"],
    )
    assert count == 1
    assert [p.name for p in output.glob("*.png")] == ["001-palapeli-data-2.png"]
    text = (output / sources.ATTRIBUTION).read_text(encoding="utf-8")
    assert "- A film, by its author, CC-BY-3.0\n" in text
    assert "[Blue cat (1)](https://example.org" in text
    assert "001-palapeli-data-2.png: Debian package palapeli-data" in text
    assert "2001 Ann; 2002 Bob; GPL-2+" in text
    with pytest.raises(DataError, match=r"ATTRIBUTION.md: exists already"):
        prepare([], [], [], output, lines.append)
    assert (output / sources.ATTRIBUTION).read_text(encoding="utf-8") == text
    # A second folder's file names the first one's pictures as that one's did.
    prepare([], [tmp_path / "listed", output], [], tmp_path / "second", lines.append)
    again = (tmp_path / "second" / sources.ATTRIBUTION).read_text(encoding="utf-8")
    assert again == text.replace(
        "\n## Videos\n\n- A film, by its author, CC-BY-3.0\n", ""
    )


def test_pictures_that_show_their_compression_are_scaled_down_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = package(tmp_path)
    lossy = sources.DebianSource(
        "palapeli-data", ("usr/share/palapeli/collection/0.jpg",), shrink=2
    )
    monkeypatch.setattr(sources, "DEBIAN_SOURCES", (lossy,))
    assert prepare([archive], [], [], tmp_path / "out", print) == 1
    with Image.open(next((tmp_path / "out").glob("*.png"))) as picture:
        assert picture.size == (256, 256)


def test_no_picture_stays_without_an_attribution(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unpacked(_: Path) -> Iterator[tuple[str, Picture, sources.Credit]]:
        yield "a", noise(0), sources.Credit("a package", "Ann", "CC0-1.0")
        assert len(list(output.iterdir())) == 1
        raise DataError("cannot be unpacked")

    archive, output = package(tmp_path), tmp_path / "out"
    monkeypatch.setattr(sources, "debian_pictures", unpacked)
    with pytest.raises(DataError, match="cannot be unpacked"):
        prepare([archive], [], [], output, print)
    assert not list(output.iterdir())


def test_of_drawings_some_are_taken_and_transparency_becomes_paper(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = package(tmp_path)
    drawings = sources.DebianSource(
        "palapeli-data",
        ("usr/share/palapeli/collection/?.jpg",),
        every=2,
        credit=("artists", "CC0-1.0"),
    )
    monkeypatch.setattr(sources, "DEBIAN_SOURCES", (drawings,))
    found = list(sources.debian_pictures(archive))
    assert [name for name, _, _ in found] == ["palapeli-data-0", "palapeli-data-2"]
    assert {(c.author, c.licence) for _, _, c in found} == {("artists", "CC0-1.0")}
    drawn = Image.new("RGBA", (2, 1), (10, 20, 30, 255))
    drawn.putpixel((1, 0), (10, 20, 30, 0))
    for image in (drawn, drawn.quantize()):
        content = BytesIO()
        image.save(content, "png")
        picture = sources.decoded(content.getvalue())
        assert picture.tolist() == [[[10, 20, 30], [255, 255, 255]]]


def test_an_unknown_or_missing_package_is_refused_before_any_is_unpacked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    known = package(tmp_path)
    unknown = tmp_path / "hello_1_all.deb"
    unknown.write_bytes(b"")
    missing = tmp_path / "lxqt-themes_1_all.deb"
    output = tmp_path / "out"
    misspelt = tmp_path / "gcompris_1_all.deb"
    for archive, said in (
        (unknown, "not named as one of the known packages are: gcompris-qt-data, "),
        (missing, "no such file; `apt-get download lxqt-themes` gets the package"),
        (misspelt, "no such file"),
    ):
        assert main(["data", str(output), str(known), str(archive)]) == 1
        printed = capsys.readouterr()
        assert printed.err.startswith(f"upfrost-train: {archive}: {said}")
        assert printed.err.count("\n") == 1
        assert not printed.out
    assert not output.exists()


def test_a_folder_that_says_of_no_picture_whose_it_is_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    archive, folder = package(tmp_path), tmp_path / "mine"
    folder.mkdir()
    Image.new("RGB", (8, 8)).save(folder / "a.png")
    words = ["data", str(tmp_path / "out"), str(archive), "--listed", str(folder)]
    assert main(words) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "nothing says whose its pictures are" in line
    assert not (tmp_path / "out").exists()
    (folder / "README.md").write_text("https://commons.wikimedia.org/wiki/File:A.jpg")
    assert main(words) == 0


def test_a_damaged_package_is_one_clear_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    archive = package(tmp_path)
    archive.write_bytes(archive.read_bytes()[:5000])
    assert main(["data", str(tmp_path / "out"), str(archive)]) == 1
    # Of the file descriptor, which dpkg-deb would write to as well.
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith(f"upfrost-train: {archive}: cannot be unpacked (")
    assert line.endswith("); if it is damaged, download it again")


def test_where_packages_cannot_be_unpacked_one_line_says_what_is_needed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = package(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["data", str(tmp_path / "out"), str(archive)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "dpkg-deb, which unpacks it, is not there" in line


def test_an_attribution_of_nothing_is_not_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    assert main(["data", str(output)]) == 1
    assert "nothing to prepare: name packages" in capsys.readouterr().err
    assert not output.exists()
