"""Prepare freely licensed pictures for training, and say whose they are.

Sources are Debian packages (nothing is installed: their files are unpacked and read)
and folders whose README lists the page of each picture. The result is a folder of PNG
pictures and an `ATTRIBUTION.md` that ships beside weights trained on them.
"""

import io
import re
import struct
import subprocess
import tempfile
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import islice
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

import numpy as np
from PIL import Image

from upfrost.files import check_folder
from upfrost.text import printable
from upfrost_training.data import (
    PICTURE_SUFFIXES,
    DataError,
    crop_to_multiple,
    laplacian_sums,
    picture_files,
    read_rgb,
    sharpness,
)
from upfrost_training.resize import Picture, shrink

ATTRIBUTION = "ATTRIBUTION.md"
TILE = 256
# Mean |Laplacian| of a tile, in 8-bit units, from which on it counts as sharp.
SHARP = 4.0
# Mean difference of 16x16 thumbnails under which two pictures are the same one.
# Different photographs differ by 30 and more, recompressed ones by less than 3.
SAME = 8.0


@dataclass(frozen=True)
class DebianSource:
    """A package, and which of its pictures are taken."""

    package: str
    patterns: tuple[str, ...]
    # Those among them that are shown in examples/, and so are never trained on.
    shown: tuple[str, ...] = ()
    # What they are scaled down by first: small lossy files show their compression.
    shrink: int = 1
    # One in so many of those that the patterns find: there are more drawings than
    # photographs, and photographs are what most people enlarge.
    every: int = 1
    # Author and licence, where the copyright file is not machine-readable or lies in
    # another package.
    credit: tuple[str, str] | None = None


# Photographs first. The rest of their packages is drawings, gradients and the same
# picture cut to other sizes. Paths inside Qt resource files (.rcc) begin at the
# resource's root.
DEBIAN_SOURCES = (
    DebianSource(
        "gcompris-qt-data",
        tuple(
            f"gcompris/src/activities/{name}/resource/*"
            for name in (
                "erase",
                "explore_farm_animals",
                "explore_monuments",
                "explore_world_animals",
                "explore_world_music",
            )
        ),
        shrink=2,
    ),
    DebianSource(
        "lomiri-wallpapers-16.04",
        ("usr/share/backgrounds/*.jpg",),
        shown=("*/friends_by_*",),
    ),
    DebianSource("lomiri-wallpapers-20.04", ("usr/share/backgrounds/*.jpg",)),
    DebianSource("lxqt-themes", ("usr/share/lxqt/wallpapers/[a-dV]*",)),
    DebianSource("mate-backgrounds", ("usr/share/backgrounds/mate/nature/*.jpg",)),
    DebianSource(
        "palapeli-data",
        ("usr/share/palapeli/collection/*.jpg",),
        shown=("*/european-honey-bee.*", "*/cincinnati-bridge.*", "*/citrus-fruits.*"),
    ),
    DebianSource(
        "plasma-workspace-wallpapers",
        (
            "usr/share/wallpapers/*/contents/images/2560x1600.jpg",
            "usr/share/wallpapers/*/contents/images/3200x2000.jpg",
        ),
    ),
    DebianSource(
        "krank",
        ("usr/share/games/krank/levels/unera-backgrounds/*.jpg",),
        # The camera gave more pixels than its lens did.
        shrink=2,
        credit=("Slava Anishenko", "public domain"),
    ),
    DebianSource(
        "libjs-jquery-backstretch",
        tuple(
            f"usr/share/doc/libjs-jquery-backstretch/examples/{name}.jpg"
            for name in ("coffee", "dome", "pot-holder")
        ),
    ),
    # Drawings, paintings and screens: hard edges, lines and text, of which photographs
    # hold little. They go into a folder of their own (`drawings` of a run's settings).
    DebianSource(
        "openclipart-png",
        tuple(
            f"usr/share/openclipart/png/{name}/*"
            for name in (
                "animals",
                "buildings",
                "education",
                "electronics",
                "food",
                "office",
                "people",
                "plants",
                "recreation",
                "tools",
                "transportation",
            )
        ),
        every=8,
        credit=("contributors of the Open Clip Art Library", "public domain"),
    ),
    DebianSource(
        "wesnoth-1.16-data",
        ("usr/share/games/wesnoth/1.16/data/*/portraits/*.png",),
        every=3,
        credit=("artists of Battle for Wesnoth", "GPL-2+"),
    ),
    DebianSource(
        "gimp-help-en",
        ("usr/share/gimp/2.0/help/en/images/*.png",),
        every=6,
        credit=("The GIMP Documentation Team", "GFDL-NIV-1.2+"),
    ),
)


@dataclass(frozen=True)
class Credit:
    """Where a picture comes from."""

    source: str
    author: str
    licence: str


def read_qt_resources(content: bytes) -> Iterator[tuple[str, bytes]]:
    """Names and contents of a Qt resource file (.rcc), formats 1 to 3.

    The layout is that of Qt's `rcc.cpp`: a header, a tree of fixed-size nodes, names
    in UTF-16, and sized data, zlib-compressed where a flag says so. Contents that are
    compressed otherwise are left out. Raises DataError when it is something else.
    """
    if content[:4] != b"qres":
        raise DataError("not a Qt resource file")
    version, tree, data, names = struct.unpack_from(">4I", content, 4)
    node_size = 14 if version == 1 else 22

    def name_at(offset: int) -> str:
        (length,) = struct.unpack_from(">H", content, names + offset)
        start = names + offset + 6
        return content[start : start + 2 * length].decode("utf-16-be")

    pending = [(0, "")]
    while pending:
        number, folder = pending.pop()
        node = tree + number * node_size
        name_offset, flags = struct.unpack_from(">IH", content, node)
        path = f"{folder}{name_at(name_offset)}" if number else ""
        if flags & 2:
            count, first = struct.unpack_from(">II", content, node + 6)
            inside = f"{path}/" if path else ""
            pending.extend((first + i, inside) for i in reversed(range(count)))
            continue
        (offset,) = struct.unpack_from(">I", content, node + 10)
        (size,) = struct.unpack_from(">I", content, data + offset)
        start = data + offset + 4
        if flags & 1:
            yield path, zlib.decompress(content[start + 4 : start + size])
        elif not flags & 4:
            yield path, content[start : start + size]


def read_copyright(text: str) -> list[tuple[str, str, str]]:
    """(pattern, author, licence) of a Debian copyright file, in its order.

    Debian's machine-readable format 1.0: the last pattern that matches a file holds.
    """
    found: list[tuple[str, str, str]] = []
    for paragraph in re.split(r"\n\s*\n", text):
        fields: dict[str, str] = {}
        key = ""
        for line in paragraph.splitlines():
            start = re.match(r"(\S+):\s*(.*)", line)
            if start:
                key = start[1].lower()
                fields[key] = start[2]
            elif key:
                fields[key] += "\n" + line.strip()
        licence = fields.get("license", "").splitlines()
        author = "; ".join(filter(None, fields.get("copyright", "").splitlines()))
        found.extend(
            (pattern, author, licence[0] if licence else "")
            for pattern in fields.get("files", "").split()
        )
    return found


def credit_for(path: str, package: str, entries: list[tuple[str, str, str]]) -> Credit:
    """Who made the file at `path` of a package, by the package's copyright file.

    That file names paths of the source, which end like the package's; the suffix is
    left out, since packages convert pictures.
    """
    author, licence = "", ""
    file = PurePosixPath(path).with_suffix("")
    for pattern, who, what in entries:
        wanted = pattern if pattern.endswith("*") else re.sub(r"\.\w+$", "", pattern)
        folder, _, name = wanted.rpartition("/")
        # A path as short as `nature/Dune.jpg` was moved to elsewhere by the package.
        moved = "/" not in folder and "*" not in name and name == file.name
        if (
            moved
            or fnmatchcase(str(file), wanted)
            or fnmatchcase(str(file), f"*/{wanted}")
        ):
            author, licence = who, what
    if len(author) > 200:
        author = f"{author[:200].rsplit(';', 1)[0]}; and others"
    return Credit(f"Debian package {package}, {path}", author, licence)


def source_of(archive: Path) -> DebianSource:
    """What is taken of a downloaded `.deb`, by its name.

    Raises DataError for one that is not there, or not of a known package.
    """
    package = archive.name.split("_")[0]
    source = next((s for s in DEBIAN_SOURCES if s.package == package), None)
    if not archive.is_file():
        hint = f"; `apt-get download {package}` gets the package" if source else ""
        raise DataError(f"{archive}: no such file{hint}")
    if source is None:
        known = ", ".join(s.package for s in DEBIAN_SOURCES)
        raise DataError(
            f"{archive}: not named as one of the known packages are: {known}"
        )
    return source


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a `.deb` into a folder. Raises DataError where that cannot be."""
    command = ["dpkg-deb", "-x", str(archive), str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, check=False)
    except FileNotFoundError as error:
        raise DataError(
            f"{archive}: dpkg-deb, which unpacks it, is not there; on Debian it is in "
            "the package dpkg"
        ) from error
    if done.returncode:
        lines = done.stderr.decode(errors="replace").splitlines()
        reason = lines[-1].removeprefix("dpkg-deb: error: ") if lines else "no reason"
        raise DataError(
            f"{archive}: cannot be unpacked ({printable(reason)}); if it is damaged, "
            "download it again"
        )


def debian_pictures(archive: Path) -> Iterator[tuple[str, Picture, Credit]]:
    """(name, picture, credit) of the known pictures in a downloaded `.deb`."""
    source = source_of(archive)
    package = source.package
    with tempfile.TemporaryDirectory() as unpacked:
        root = Path(unpacked)
        unpack(archive, root)
        if source.credit is not None:
            entries = [("*", *source.credit)]
        else:
            copyright_file = root / "usr/share/doc" / package / "copyright"
            entries = read_copyright(copyright_file.read_text(encoding="utf-8"))
        wanted = (
            (path, content)
            for path, content in _files(root)
            if any(fnmatchcase(path, p) for p in source.patterns)
            and not any(fnmatchcase(path, p) for p in source.shown)
        )
        for path, content in islice(wanted, 0, None, source.every):
            try:
                picture = decoded(content)
            except (
                OSError,  # a pattern takes in more than pictures
                Image.DecompressionBombWarning,  # drawn at the size of a poster
                Image.DecompressionBombError,
            ):
                continue
            if source.shrink > 1:
                picture = shrink(
                    crop_to_multiple(picture, source.shrink), source.shrink
                )
            yield (
                f"{package}-{PurePosixPath(path).stem}",
                picture,
                credit_for(path, package, entries),
            )


def decoded(content: bytes) -> Picture:
    """A picture file's content as (H, W, 3) uint8, on white where it is transparent."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with Image.open(io.BytesIO(content)) as image:
            if "A" not in image.getbands() and "transparency" not in image.info:
                return np.array(image.convert("RGB"))
            drawn = image.convert("RGBA")
    paper = Image.new("RGBA", drawn.size, "white")
    return np.array(Image.alpha_composite(paper, drawn).convert("RGB"))


def _files(root: Path) -> Iterator[tuple[str, bytes]]:
    """Paths and contents of all picture files, those in Qt resources included."""
    for path in sorted(p for p in root.rglob("*") if p.is_file()):
        if path.suffix == ".rcc":
            for name, content in read_qt_resources(path.read_bytes()):
                if name.lower().endswith(PICTURE_SUFFIXES):
                    yield name, content
        elif path.suffix.lower() in PICTURE_SUFFIXES and not path.is_symlink():
            yield path.relative_to(root).as_posix(), path.read_bytes()


def listed_pages(folder: Path) -> list[str]:
    """The pages that a picture folder's README lists, one a line, for attribution."""
    readme = folder / "README.md"
    if not readme.is_file():
        return []
    return re.findall(r"https?://\S+", readme.read_text(encoding="utf-8"))


def sharp_share(picture: Picture) -> float:
    """Share of the picture's tiles that are sharp; 0 when it is smaller than one."""
    tops = np.arange(0, picture.shape[0] - TILE + 1, TILE)
    lefts = np.arange(0, picture.shape[1] - TILE + 1, TILE)
    if not len(tops) or not len(lefts):
        return 0.0
    top, left = (a.ravel() for a in np.meshgrid(tops, lefts, indexing="ij"))
    return float(np.mean(sharpness(laplacian_sums(picture), top, left, TILE) > SHARP))


def sharpened_by_scaling(picture: Picture) -> Picture | None:
    """The picture, halved until a third of its tiles are sharp; None if never.

    A large photograph out of a camera is soft pixel by pixel, and its compression
    shows; halving removes both.
    """
    while min(picture.shape[:2]) >= TILE:
        if max(picture.shape[:2]) <= 2048 and sharp_share(picture) > 1 / 3:
            return picture
        picture = shrink(crop_to_multiple(picture, 2), 2)
    return None


def thumbnail(picture: Picture) -> Picture:
    """16x16 means, which survive scaling and recompression."""
    small = Image.fromarray(picture).resize((16, 16), Image.Resampling.BOX)
    return np.asarray(small)


def is_known(picture: Picture, known: list[Picture]) -> bool:
    """Whether a picture, or its mirror image, is among the known thumbnails."""
    small = thumbnail(picture).astype(np.int64)
    return any(
        float(np.abs(view - other).mean()) < SAME
        for other in known
        for view in (small, small[:, ::-1])
    )


def prepare(
    archives: list[Path],
    listed: list[Path],
    leave_out: list[Path],
    output: Path,
    say: Callable[[str], None],
    videos: Sequence[str] = (),
) -> int:
    """Fill `output` with sharp, distinct pictures; returns how many.

    `archives` are Debian packages; `listed` are folders of pictures that stay where
    they are, attributed by their README's pages or as this did when it filled them,
    and not taken twice; pictures under `leave_out` (evaluation sets) are never taken.
    `videos` are attributions of videos, which stay where they are too. Raises DataError
    where `output` has an attribution: it would be another one's, its pictures' lost;
    where a listed folder says of none whose it is; and where nothing is given: an
    attribution of nothing would be in the way later.
    """
    check_folder(output)
    if (output / ATTRIBUTION).exists():
        raise DataError(f"{output / ATTRIBUTION}: exists already; name another folder")
    if not (archives or listed or videos):
        raise DataError(
            "nothing to prepare: name packages, or what to attribute by --listed or "
            "--video"
        )
    # Of all, before the first is unpacked, which takes long.
    for archive in archives:
        source_of(archive)
    for folder in listed:
        if not (folder / ATTRIBUTION).is_file() and not listed_pages(folder):
            raise DataError(
                f"{folder}: nothing says whose its pictures are: it has neither an "
                f"{ATTRIBUTION} of this command nor a README.md with their pages"
            )
    known: list[Picture] = []
    for folder in (*leave_out, *listed):
        known.extend(thumbnail(read_rgb(path)) for path in picture_files(folder))
    output.mkdir(parents=True, exist_ok=True)
    taken_from: list[tuple[str, Credit]] = []
    # Where it fails no picture stays: nothing would say whose it is.
    with ExitStack() as undo:
        for archive in archives:
            count = seen = 0
            for name, picture, credit in debian_pictures(archive):
                seen += 1
                if is_known(picture, known):
                    continue
                scaled = sharpened_by_scaling(picture)
                if scaled is None:
                    continue
                known.append(thumbnail(picture))
                file = output / f"{len(taken_from) + 1:03}-{name}.png"
                undo.callback(file.unlink, missing_ok=True)
                Image.fromarray(scaled).save(file)
                taken_from.append((file.name, credit))
                count += 1
            say(f"{archive.name}: {count} of {seen} pictures taken")
        text = attribution_text(output.name, taken_from, listed, videos)
        (output / ATTRIBUTION).write_text(text, encoding="utf-8")
        undo.pop_all()
    say(f"wrote {len(taken_from)} pictures and {output / ATTRIBUTION}")
    return len(taken_from)


def attribution_text(
    folder: str,
    taken_from: list[tuple[str, Credit]],
    listed: Sequence[Path],
    videos: Sequence[str] = (),
) -> str:
    """The attribution file: each picture with source, author and licence, by folder."""
    lines = [
        "# What the models were trained on",
        "",
        "No picture is contained in a model. Thanks to all who gave them freely.",
    ]
    if videos:
        lines += ["", "## Videos", "", *(f"- {video}" for video in videos)]
    for other in listed:
        lines += ["", f"## {other.name}", "", *listed_credits(other)]
    if taken_from:
        lines += ["", f"## {folder}", "", "From Debian packages.", ""]
        lines += [
            f"- {name}: {c.source}; {c.author or 'author not named'}; "
            f"{c.licence or 'licence of the package'}"
            for name, c in taken_from
        ]
    return "\n".join(lines) + "\n"


def listed_credits(folder: Path) -> list[str]:
    """What is said of a folder that stays where it is, in lines.

    Of a folder that `prepare` filled, what it said of it then.
    """
    prepared = folder / ATTRIBUTION
    if prepared.is_file():
        text = prepared.read_text(encoding="utf-8")
        _, _, section = text.partition(f"\n## {folder.name}\n")
        return section.partition("\n## ")[0].strip().splitlines()
    return [
        "From Wikimedia Commons, scaled down. The page of each names its author",
        "and its licence, most of them Creative Commons.",
        "",
        *(f"- [{page_title(url)}]({url})" for url in listed_pages(folder)),
    ]


def page_title(url: str) -> str:
    """A readable title of a Wikimedia Commons page."""
    name = unquote(url.rsplit("/", 1)[-1]).removeprefix("File:")
    return (
        re.sub(r"\.\w+$", "", name)
        .replace("_", " ")
        .replace("[", "(")
        .replace("]", ")")
    )
