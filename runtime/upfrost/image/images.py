"""Picture files in and out: pixels, and all that a file says about them.

A network takes 8-bit RGB. `read_picture` brings any PNG, JPEG, WebP, TIFF or BMP file
to that and remembers what it was; `write_picture` writes the same kind back. What gets
lost on the way is said in notes, one line each.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import re
import stat
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from PIL import ExifTags, Image, PngImagePlugin, UnidentifiedImageError

from upfrost.arrays import Bytes
from upfrost.errors import UpfrostError
from upfrost.files import ExistsError, exists_already, new_path
from upfrost.text import printable

# Pillow's own limit, at which it refuses a file as a decompression bomb.
MAX_PIXELS = 2 * (1 << 30) // (4 * 3)
DEFAULT_QUALITY = 95


class PictureError(UpfrostError, ValueError):
    """A file that cannot be read or written; the message names it and the reason."""


class PictureExistsError(PictureError, ExistsError):
    """A file that is in the way of a new one."""


@dataclass(frozen=True)
class Format:
    """What a file format is called and what it can hold."""

    name: str  # as Pillow calls it
    suffixes: tuple[str, ...]  # the first is the one to write
    max_side: int
    alpha: bool
    metadata: bool  # colour profile and EXIF


FORMATS = (
    Format("PNG", (".png",), (1 << 31) - 1, alpha=True, metadata=True),
    Format(
        "JPEG", (".jpg", ".jpeg", ".jpe", ".jfif"), 65500, alpha=False, metadata=True
    ),
    Format("WEBP", (".webp",), 16383, alpha=True, metadata=True),
    Format("TIFF", (".tif", ".tiff"), (1 << 31) - 1, alpha=True, metadata=True),
    Format("BMP", (".bmp", ".dib"), (1 << 15) - 1, alpha=False, metadata=False),
)
FORMAT_OF_SUFFIX = {suffix: entry for entry in FORMATS for suffix in entry.suffixes}
FORMAT_NAMES = "PNG, JPEG, WebP, TIFF or BMP"

# Tags of a picture file's first directory that describe the photograph. The others
# describe how its pixels lie in the file that was read.
_DESCRIPTIVE_TAGS: tuple[int, ...] = (
    *(ExifTags.Base.ImageDescription, ExifTags.Base.Make, ExifTags.Base.Model),
    *(ExifTags.Base.Software, ExifTags.Base.DateTime, ExifTags.Base.Artist),
    *(ExifTags.Base.HostComputer, ExifTags.Base.Copyright),
    *(ExifTags.Base.Rating, ExifTags.Base.RatingPercent),
    *(ExifTags.Base.XPTitle, ExifTags.Base.XPComment, ExifTags.Base.XPAuthor),
    *(ExifTags.Base.XPKeywords, ExifTags.Base.XPSubject),
    *(ExifTags.Base.XResolution, ExifTags.Base.YResolution),
    ExifTags.Base.ResolutionUnit,
)
# What turns a picture of each orientation upright (TIFF 6.0, tag 274).
_UPRIGHT: dict[object, Image.Transpose] = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# In XMP: what is true of the file that was read only. ISO 16684-1, serialised either as
# attributes or as elements.
_XMP_OF_FILE = (
    rb"(?:tiff:Orientation|tiff:Image(?:Width|Length)|exif:Pixel[XY]Dimension)"
)
_XMP_REMOVED = re.compile(
    rb"""\s%(name)s=(?:"[^"]*"|'[^']*')"""
    rb"|<(%(name)s)>[^<]*</\1>"
    rb"|<(xmp:Thumbnails)\b.*?</\2>" % {b"name": _XMP_OF_FILE},
    re.DOTALL,
)
_XMP_IN_PNG, _XMP_IN_TIFF = "XML:com.adobe.xmp", 700
_IPTC_IN_JPEG = 0x0404  # among Photoshop's blocks
# Text that programs write of the file, not people of the picture: no loss.
_OF_THE_FILE = ("software", "date:", "creation time", "thumb::", "exif:", "icc:")
_OF_A_PROGRAM = (b"CREATOR: gd-jpeg", b"Lavc", b"Created with GIMP")
_JPEG_SEGMENT = 65533  # bytes
_DIRECTORIES = (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo)
# Places and lengths in pixels of the picture that was read, and an offset: subject
# area, subject location, focal plane resolutions, interoperability directory.
_PIXEL_TAGS = (0x9214, 0xA214, 0xA20E, 0xA20F, 0xA005)


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture, the right way up, and what its file said about it."""

    rgb: Bytes  # (height, width, 3)
    alpha: Bytes | None = None  # (height, width)
    grey: bool = False  # all three channels were one: written as one
    format: str = "PNG"
    icc_profile: bytes | None = None
    exif: bytes | None = None  # without orientation, thumbnail, places in pixels
    xmp: bytes | None = None  # without orientation, thumbnail, size in pixels
    dpi: tuple[float, float] | None = None
    frames: int = 1  # in the file; the picture is the first
    notes: tuple[str, ...] = ()
    pixel_notes: tuple[str, ...] = ()  # those of them that are about pixels

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self.rgb.shape[1], self.rgb.shape[0]

    @property
    def on_white(self) -> Bytes:
        """Its colours as they are seen on a white page: (height, width, 3)."""
        if self.alpha is None or self.alpha.min() == 255:
            return self.rgb
        white = Image.new("RGB", self.size, "white")
        alpha = Image.fromarray(self.alpha)
        return np.array(Image.composite(Image.fromarray(self.rgb), white, alpha))


def output_format(path: Path) -> Format:
    """The format that the name of `path` asks for. Raises `PictureError`."""
    try:
        return FORMAT_OF_SUFFIX[path.suffix.lower()]
    except KeyError:
        raise _error(
            path, f"the name does not end in that of {FORMAT_NAMES}, such as .png"
        ) from None


def sniff_format(path: Path) -> Format | None:
    """The format that the first bytes of a file show, None when they show none."""
    try:
        if not path.is_file():
            return None
        with path.open("rb") as file:
            head = file.read(12)
    except OSError:
        return None
    for name, starts in {
        "PNG": (b"\x89PNG",),
        "JPEG": (b"\xff\xd8\xff",),
        "TIFF": (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),
        "BMP": (b"BM",),
    }.items():
        if head.startswith(starts):
            return _format_named(name)
    if head[:4] == b"RIFF" and head[8:] == b"WEBP":
        return _format_named("WEBP")
    return None


@dataclass(frozen=True)
class Header:
    """What a file says of its first picture, before a pixel is read."""

    size: tuple[int, int]  # width, height as they lie in the file
    format: str
    depth: int  # bits a channel
    grey: bool
    sequential: bool  # nothing but rows of grey or RGB, top to bottom, the right way up
    icc_profile: bytes | None
    exif: bytes | None
    xmp: bytes | None
    dpi: tuple[float, float] | None
    notes: tuple[str, ...]


def read_header(path: Path, *, max_pixels: int = MAX_PIXELS) -> Header:
    """What the file at `path` holds. Errors are those of `read_picture`."""
    with _reading(path) as file, _opened(path, file, max_pixels) as image:
        notes = [*_notes_on_frames(image), *_notes_on_text(image)]
        depth, grey = _depth_and_grey(image, file)
        if depth > 8:
            notes.append(_depth_note(depth))
        return Header(
            size=image.size,
            format=_format_of(image),
            depth=depth,
            grey=grey,
            sequential=_is_sequential(image, depth),
            icc_profile=_profile(image, grey, notes),
            exif=_descriptive_exif(image, notes),
            xmp=_descriptive_xmp(image),
            dpi=_dpi(image),
            notes=tuple(notes),
        )


def read_picture(path: Path, *, max_pixels: int = MAX_PIXELS) -> Picture:
    """Read the first picture of a file, turned the right way up.

    Raises `PictureError` for whatever cannot be read, and for pictures of more than
    `max_pixels` pixels, which a small file can claim to hold (decompression bomb).
    """
    with _reading(path) as file:
        return _decode(path, file, max_pixels)


@contextmanager
def _reading(path: Path) -> Iterator[BinaryIO]:
    """The file at `path`, and `PictureError` for all that goes wrong with it."""
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise _error(path, "is a folder, not a picture")
        if not stat.S_ISREG(status.st_mode):
            raise _error(path, "is not a regular file")
        if not status.st_size:
            raise _error(path, "the file is empty")
        with path.open("rb") as file, _pillow_quiet():
            yield file
    except PictureError:
        raise
    except UnidentifiedImageError:
        raise _error(
            path,
            f"not a {FORMAT_NAMES} picture, or damaged; convert other kinds to one of "
            "these",
        ) from None
    except MemoryError:
        raise _error(path, "not enough memory to read it") from None
    except OSError as error:
        if error.errno is not None:
            raise _error(path, reason_of(error)) from error
        raise _error(path, f"damaged or cut short ({error})") from error
    except Exception as error:
        # Pillow's decoders raise nearly anything on a damaged file.
        raise _error(path, f"damaged ({error or type(error).__name__})") from error


def check_writable(path: Path, width: int, height: int) -> None:
    """Raise `PictureError` if the format of `path` cannot hold a picture this large."""
    entry = output_format(path)
    if max(width, height) > entry.max_side:
        raise _error(
            path,
            f"{width}×{height} pixels are more than {entry.name} can hold "
            f"({entry.max_side} a side); choose another with --format",
        )


def write_picture(
    path: Path,
    picture: Picture,
    *,
    quality: int | None = None,
    overwrite: bool = False,
) -> tuple[str, ...]:
    """Write `picture` in the format of the name and return what got lost, as notes.

    The file appears under its name complete or not at all. `quality`, 1 to 100, is for
    JPEG (default 95, colour at full resolution) and WebP (default lossless).
    Raises `PictureError`, also when the file exists and `overwrite` is not given.
    """
    entry = output_format(path)
    check_writable(path, *picture.size)
    notes = []
    if picture.alpha is not None and not entry.alpha:
        notes.append(f"{entry.name} has no transparency: laid on white")
    if not entry.metadata and (picture.icc_profile or picture.exif or picture.xmp):
        notes.append(f"{entry.name} cannot carry the colour profile and metadata")
    exif = exif_for_size(picture.exif, picture.size)
    options = _metadata_options(picture, entry, exif, notes)
    image = _to_pillow(picture, entry)
    if entry.name == "JPEG":
        options |= {"quality": quality or DEFAULT_QUALITY, "subsampling": 0}
    elif entry.name == "WEBP":
        # exact: colours under transparent pixels are somebody's, too.
        options |= (
            {"quality": quality} if quality else {"lossless": True, "exact": True}
        )
    elif entry.name == "TIFF" and not (set(exif) & set(_DIRECTORIES)):
        # Pillow writes EXIF directories into uncompressed TIFF files only.
        options |= {"compression": "tiff_adobe_deflate"}
    try:
        with (
            _pillow_quiet(),
            new_picture_path(path, overwrite=overwrite) as temporary,
            temporary.open("wb") as file,
        ):
            image.save(cast(BinaryIO, _Stream(file)), format=entry.name, **options)
    except PictureError:
        raise
    except MemoryError:
        raise _error(path, "not enough memory to write it") from None
    except OSError as error:
        raise _error(path, f"cannot be written: {reason_of(error)}") from error
    except Exception as error:
        # Pillow's encoders raise ValueError, struct.error and others.
        raise _error(path, f"cannot be written: {error}") from error
    return tuple(notes)


def _metadata_options(
    picture: Picture, entry: Format, exif: Image.Exif, notes: list[str]
) -> dict[str, Any]:
    """How Pillow is told of resolution, profile, EXIF and XMP."""
    options: dict[str, Any] = {"dpi": picture.dpi} if picture.dpi else {}
    if not entry.metadata:
        return options
    if picture.icc_profile:
        options["icc_profile"] = picture.icc_profile
    if picture.xmp:
        if entry.name == "PNG":
            options["pnginfo"] = PngImagePlugin.PngInfo()
            text = picture.xmp.decode(errors="replace")
            options["pnginfo"].add_itxt(_XMP_IN_PNG, text)
        elif entry.name == "TIFF":
            exif[_XMP_IN_TIFF] = picture.xmp
        elif entry.name == "JPEG" and len(picture.xmp) > _JPEG_SEGMENT - 32:
            notes.append("the XMP data is too long for JPEG and is left out")
        else:
            options["xmp"] = picture.xmp
    if entry.name == "JPEG" and len(exif.tobytes()) > _JPEG_SEGMENT:
        notes.append("the EXIF data is too long for JPEG and is left out")
    elif exif:
        options["exif"] = exif.tobytes()
    return options


def upscale_picture(
    picture: Picture, upscale: Callable[[Bytes], Bytes], scale: int
) -> Picture:
    """`picture` with its colours through `upscale` and its alpha by bicubic.

    `upscale` takes (height, width, 3) to (scale · height, scale · width, 3).
    """
    rgb, alpha = picture.rgb, picture.alpha
    if alpha is None:
        return dataclasses.replace(picture, rgb=upscale(rgb))
    if alpha.any() and not alpha.all():
        rgb = _fill_hidden(rgb, alpha)
    height, width = alpha.shape
    large = Image.fromarray(alpha).resize(
        (width * scale, height * scale), Image.Resampling.BICUBIC
    )
    return dataclasses.replace(picture, rgb=upscale(rgb), alpha=np.array(large))


def reason_of(error: OSError) -> str:
    """What an `OSError` says, without Python's number and quotes."""
    return error.strerror or str(error) or type(error).__name__


@contextmanager
def new_picture_path(path: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """`files.new_path`, with errors that name the picture."""
    try:
        with new_path(path, overwrite=overwrite) as temporary:
            yield temporary
    except FileExistsError:
        raise _exists(path) from None
    except IsADirectoryError:
        raise _error(path, "is a folder") from None


class _Stream(io.RawIOBase):
    """A file without a descriptor that Pillow could hand to its C encoders.

    Pillow then writes piece by piece from Python, so that a signal is handled between
    two pieces and a full disk is reported as one.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def writable(self) -> bool:
        return True

    def readable(self) -> bool:
        return False

    def seekable(self) -> bool:
        return True

    def write(self, data: object, /) -> int:
        return self._file.write(cast(bytes, data))

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()


def _error(path: Path, reason: str) -> PictureError:
    return PictureError(f"{printable(path)}: {reason}")


def _exists(path: Path) -> PictureExistsError:
    return PictureExistsError(exists_already(path))


def _format_named(name: str) -> Format:
    return next(entry for entry in FORMATS if entry.name == name)


_pillow_lock = threading.RLock()


@contextmanager
def _pillow_quiet() -> Iterator[None]:
    """Pillow without its own pixel limit and without warnings on stderr."""
    with _pillow_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = limit


@contextmanager
def _opened(path: Path, file: BinaryIO, max_pixels: int) -> Iterator[Image.Image]:
    """The picture in `file`, its pixels not yet read."""
    with Image.open(file, formats=[entry.name for entry in FORMATS]) as image:
        width, height = image.size
        if width * height > max_pixels:
            raise _error(
                path,
                f"{width}×{height} pixels are more than the limit of "
                f"{max_pixels / 1e6:.0f} megapixels; if you trust the file, raise it "
                "with --max-megapixels",
            )
        yield image


def _decode(path: Path, file: BinaryIO, max_pixels: int) -> Picture:
    with _opened(path, file, max_pixels) as image:
        pixel_notes = _notes_on_frames(image)
        notes = [*pixel_notes]
        depth, grey = _depth_and_grey(image, file)
        image.seek(0)
        if image.format != "TIFF":
            image.load()  # EXIF data of a PNG may follow its pixels
        notes += _notes_on_text(image)
        dpi = _dpi(image)
        exif = _descriptive_exif(image, notes)
        image.load()  # after which Pillow 9 has closed a TIFF
        # Pillow itself turns a TIFF as it loads it.
        turn = None if image.format == "TIFF" else _UPRIGHT.get(_orientation(image))
        begin = len(notes)
        plain = _to_rgb(path, image, depth, grey, notes)
        pixel_notes += notes[begin:]
        if turn is not None:
            plain = plain.transpose(turn)
        pixels = np.array(plain)
        bands = plain.getbands()
        return Picture(
            rgb=_three_channels(pixels, len(bands)),
            alpha=np.ascontiguousarray(pixels[..., -1]) if "A" in bands else None,
            grey=bands[0] == "L",
            format=_format_of(image),
            icc_profile=_profile(image, bands[0] == "L", notes),
            exif=exif,
            xmp=_descriptive_xmp(image),
            dpi=dpi,
            frames=getattr(image, "n_frames", 1),
            notes=tuple(notes),
            pixel_notes=tuple(pixel_notes),
        )


def _format_of(image: Image.Image) -> str:
    # Multi-picture JPEGs, as some telephones write them.
    return "JPEG" if image.format == "MPO" else str(image.format)


def _notes_on_frames(image: Image.Image) -> list[str]:
    frames = getattr(image, "n_frames", 1)
    if frames > 1:
        return [f"the file holds {frames} pictures; only the first is used"]
    return []


def _notes_on_text(image: Image.Image) -> list[str]:
    """What the file says of the photograph in places that are not kept."""
    info, notes = image.info, []
    profiles = ("Raw profile type exif", "Raw profile type xmp")  # kept as such
    text = [
        printable(str(key))
        for key in (info if image.format == "PNG" else ())
        if isinstance(info.get(key), str)
        and key not in (_XMP_IN_PNG, *profiles)
        and not str(key).lower().startswith(_OF_THE_FILE)
    ]
    if text:
        more = f" and {len(text) - 5} more" if len(text) > 5 else ""
        notes.append(f"the PNG's text is left out: {', '.join(text[:5])}{more}")
    blocks = info.get("photoshop")
    if isinstance(blocks, dict) and _IPTC_IN_JPEG in blocks:
        notes.append("the IPTC data is left out")
    comment = info.get("comment") or ""
    # Of a PNG it is text, named above.
    if isinstance(comment, bytes) and not comment.startswith(_OF_A_PROGRAM):
        notes.append("the JPEG's comment is left out")
    return notes


def _depth_note(depth: int) -> str:
    return f"{depth} bits a channel reduced to 8"


def _is_sequential(image: Image.Image, depth: int) -> bool:
    info, tags = image.info, getattr(image, "tag_v2", {})
    return (
        _orientation(image) not in _UPRIGHT
        and image.format in ("PNG", "JPEG", "MPO", "TIFF")
        and image.mode in ("L", "RGB", "I;16", "I;16B")
        and depth in (8, 16)
        and not any(key in info for key in ("transparency", "interlace", "progressive"))
        # TIFF 6.0: photometric interpretation, samples per pixel.
        and tags.get(262, 2) in (1, 2)
        and tags.get(277, 3) in (1, 3)
    )


def _three_channels(pixels: Bytes, bands: int) -> Bytes:
    if bands >= 3:
        return np.ascontiguousarray(pixels[..., :3])
    plane = pixels if bands == 1 else pixels[..., 0]
    return np.repeat(plane[..., None], 3, axis=2)


def _depth_and_grey(image: Image.Image, file: BinaryIO) -> tuple[int, bool]:
    """Bits of a channel in the file, and whether its pixels are grey.

    Pillow opens 16-bit RGB as 8-bit RGB and 16-bit grey with alpha as RGBA, and does
    not say so.
    """
    grey = image.mode in ("1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L", "I;16N")
    if image.format == "PNG":
        position = file.tell()
        file.seek(24)  # IHDR: bit depth, colour type
        depth, color_type = file.read(2)
        file.seek(position)
        return depth, color_type in (0, 4)
    bits = getattr(image, "tag_v2", {}).get(258, (8,))
    return max(bits, default=8) if isinstance(bits, tuple) else int(bits), grey


def _to_rgb(
    path: Path, image: Image.Image, depth: int, grey: bool, notes: list[str]
) -> Image.Image:
    """`image` as L, LA, RGB or RGBA, eight bits a channel."""
    if depth > 8:
        notes.append(_depth_note(depth))
    mode = image.mode
    transparency = image.info.get("transparency")
    if mode in ("I", "I;16", "I;16B", "I;16L", "I;16N"):
        if depth > 16 or (mode == "I" and image.format != "PNG"):
            raise _error(
                path,
                f"{depth}-bit or signed grey has no agreed black and white; "
                "convert it to 8 or 16 bits first",
            )
        return _reduce_grey(image, depth, transparency)
    if mode == "F":
        raise _error(
            path,
            "floating-point grey has no agreed black and white; "
            "convert it to 8 or 16 bits first",
        )
    if mode in ("LAB", "HSV"):
        raise _error(path, f"{mode} colours; convert it to RGB first")
    if mode == "CMYK":
        notes.append("CMYK converted to RGB")
        return _cmyk_to_rgb(image)
    if depth > 8 and isinstance(transparency, tuple):
        image.info["transparency"] = tuple(value >> 8 for value in transparency)
    has_alpha = mode in ("LA", "La", "PA", "RGBA", "RGBa") or transparency is not None
    if mode == "PA":
        image = image.convert("RGBA")
    if grey:
        return image.convert("LA" if has_alpha else "L")
    return image.convert("RGBA" if has_alpha else "RGB")


def _reduce_grey(image: Image.Image, depth: int, transparency: object) -> Image.Image:
    values = np.asarray(image).astype(np.int64)
    full = (1 << depth) - 1
    # 12-bit and 16-bit TIFF whose zero is white: Pillow does not turn them round.
    if getattr(image, "tag_v2", {}).get(262) == 0:
        values = full - values
    reduced = np.clip((values * 255 + full // 2) // full, 0, 255).astype(np.uint8)
    plain = Image.fromarray(reduced)
    if isinstance(transparency, int):
        opaque = np.where(values == transparency, 0, 255).astype(np.uint8)
        plain.putalpha(Image.fromarray(opaque))
    return plain


def _cmyk_to_rgb(image: Image.Image) -> Image.Image:
    profile = image.info.get("icc_profile")
    if profile:
        try:
            from PIL import ImageCms

            converted = ImageCms.profileToProfile(
                image,
                ImageCms.ImageCmsProfile(io.BytesIO(profile)),
                ImageCms.createProfile("sRGB"),
                outputMode="RGB",
            )
        except (ImportError, OSError, ImageCms.PyCMSError):
            # A Pillow without LittleCMS, or a damaged profile.
            return image.convert("RGB")
        if converted is not None:
            return converted
    return image.convert("RGB")


def _profile(image: Image.Image, grey: bool, notes: list[str]) -> bytes | None:
    """The colour profile, unless it is for other channels than those that are kept."""
    profile = image.info.get("icc_profile")
    if not isinstance(profile, bytes) or not profile:
        return None
    # ICC.1:2022, 7.2.6: the header's data colour space.
    if profile[16:20] in ((b"GRAY", b"RGB ") if grey else (b"RGB ",)):
        return profile
    if image.mode != "CMYK":
        notes.append("the colour profile does not fit the picture and is left out")
    return None


def _dpi(image: Image.Image) -> tuple[float, float] | None:
    try:
        x, y = (float(value) for value in image.info["dpi"])
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None
    # Pillow says 1 for a TIFF that says nothing.
    return (x, y) if 1 < x <= 1e5 and 1 < y <= 1e5 else None


def _exif_of(image: Image.Image) -> Image.Exif:
    # Not `image.getexif()`: for a PNG it reads all pixels, in case EXIF data follow.
    return Image.Image.getexif(image)


def _orientation(image: Image.Image) -> object:
    """EXIF's tag of that name; 1, as it lies, where the data are damaged."""
    with contextlib.suppress(Exception):  # they raise nearly anything
        return _exif_of(image).get(ExifTags.Base.Orientation, 1)
    return 1


def _descriptive_exif(image: Image.Image, notes: list[str]) -> bytes | None:
    """What the EXIF data say of the photograph; None when they say nothing."""
    kept = Image.Exif()
    try:
        exif = _exif_of(image)
        for tag in _DESCRIPTIVE_TAGS:
            if tag in exif:
                kept[tag] = exif[tag]
        for group in _DIRECTORIES:
            values = dict(exif.get_ifd(group))
            for tag in _PIXEL_TAGS:
                values.pop(tag, None)
            if values:
                kept[group] = values
        return kept.tobytes() if len(kept) else None
    except Exception:
        # Pillow raises struct.error, SyntaxError, TypeError and more on damaged data.
        notes.append("the EXIF data is damaged and is left out")
        return None


def _descriptive_xmp(image: Image.Image) -> bytes | None:
    """The XMP packet (title, keywords, rights …) without what is no longer true."""
    tags = getattr(image, "tag_v2", {})
    data = (
        image.info.get("xmp") or image.info.get(_XMP_IN_PNG) or tags.get(_XMP_IN_TIFF)
    )
    if isinstance(data, str):
        data = data.encode()
    return _XMP_REMOVED.sub(b"", data) if isinstance(data, bytes) and data else None


def exif_for_size(data: bytes | None, size: tuple[int, int]) -> Image.Exif:
    """EXIF data of a `Picture` or `Header` for a picture of that width and height."""
    exif = Image.Exif()
    if data is None:
        return exif
    exif.load(data)
    if ExifTags.IFD.Exif not in exif:
        # Asking for it would make an empty one, with which Pillow writes no TIFF.
        return exif
    photograph = exif.get_ifd(ExifTags.IFD.Exif)
    for tag, extent in zip(
        (ExifTags.Base.ExifImageWidth, ExifTags.Base.ExifImageHeight),
        size,
        strict=True,
    ):
        if tag in photograph:
            photograph[tag] = extent
    return exif


def _to_pillow(picture: Picture, entry: Format) -> Image.Image:
    image = Image.fromarray(picture.rgb if entry.alpha else picture.on_white)
    if picture.grey:
        image = image.convert("L")
    if picture.alpha is not None and entry.alpha:
        image.putalpha(Image.fromarray(picture.alpha))
    return image


def _fill_hidden(rgb: Bytes, alpha: Bytes) -> Bytes:
    """`rgb` with colours from nearby where the picture is fully transparent.

    What an editor left there, often black, would else be drawn into the visible edge.
    """
    image = Image.fromarray(rgb)
    image.putalpha(Image.fromarray(alpha))
    return np.array(_pull_colors(image).convert("RGB"))


def _pull_colors(image: Image.Image) -> Image.Image:
    """RGB of `image`; hidden pixels from the next coarser level of a pyramid."""
    colors, alpha = image.convert("RGB"), image.getchannel("A")
    if alpha.getextrema()[0] or max(image.size) == 1:
        return colors
    coarse = _pull_colors(image.convert("RGBa").reduce(2).convert("RGBA"))
    below = coarse.resize(image.size, Image.Resampling.BILINEAR)
    return Image.composite(colors, below, alpha.point(lambda value: 255 * (value > 0)))
