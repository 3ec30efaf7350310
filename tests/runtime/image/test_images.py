"""Picture files: every kind comes back as its kind, every bad one gets one line."""

from __future__ import annotations

import errno
import io
import os
import resource
import shutil
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import ExifTags, Image, ImageCms, PngImagePlugin, TiffImagePlugin
from PIL import __version__ as PILLOW  # noqa: N812

from upfrost import files
from upfrost.arrays import Bytes
from upfrost.files import new_file
from upfrost.image import images
from upfrost.image.images import (
    FORMATS,
    Picture,
    PictureError,
    new_picture_path,
    read_header,
    read_picture,
    sniff_format,
    upscale_picture,
    write_picture,
)

ALL_SUFFIXES = [suffix for entry in FORMATS for suffix in entry.suffixes]
LOSSLESS = [".png", ".webp", ".tif", ".bmp"]
ORIENTATION, PIXEL_WIDTH, SUBJECT_AREA = 0x0112, 0xA002, 0x9214
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def gradient(height: int = 13, width: int = 21) -> Bytes:
    """(height, width, 3), no two pixels alike, no symmetry that hides a turn."""
    y, x = np.mgrid[:height, :width]
    rgb = np.stack([x * 255 // width, y * 255 // height, (x + y) * 4 % 256], axis=2)
    return rgb.astype(np.uint8)


def nearest(scale: int) -> Callable[[Bytes], Bytes]:
    """Stands in for a network: every pixel `scale` times."""
    return lambda rgb: rgb.repeat(scale, axis=0).repeat(scale, axis=1)


def parts(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.suffix == ".part")


def one_line(caught: pytest.ExceptionInfo[PictureError], path: Path) -> str:
    text = str(caught.value)
    assert "\n" not in text
    assert text.startswith(f"{path}: ")
    return text


@pytest.mark.parametrize("suffix", LOSSLESS)
def test_lossless_formats_return_the_pixels(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    assert write_picture(path, Picture(gradient())) == ()
    back = read_picture(path)
    np.testing.assert_array_equal(back.rgb, gradient())
    assert back.alpha is None
    assert not back.grey
    assert back.notes == ()


@pytest.mark.parametrize("suffix", ALL_SUFFIXES)
def test_the_suffix_chooses_the_format(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix.upper()}"
    write_picture(path, Picture(gradient()))
    entry = images.FORMAT_OF_SUFFIX[suffix]
    assert read_picture(path).format == entry.name
    assert sniff_format(path) == entry


def test_jpeg_is_written_at_95_with_colour_at_full_resolution(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    write_picture(path, Picture(gradient()))
    with Image.open(path) as image:
        assert image.layer[0][1:3] == image.layer[1][1:3] == (1, 1)  # type: ignore[attr-defined]
        expected = io.BytesIO()
        Image.fromarray(gradient()).save(expected, "JPEG", quality=95)
        with Image.open(expected) as reference:
            assert image.quantization == reference.quantization  # type: ignore[attr-defined]


def test_quality_is_for_jpeg_and_webp(tmp_path: Path) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    for suffix in (".jpg", ".webp"):
        sizes = []
        for quality in (20, 80, None):
            path = tmp_path / f"{quality}{suffix}"
            write_picture(path, Picture(noise), quality=quality)
            sizes.append(path.stat().st_size)
        assert sizes == sorted(sizes)
        assert sizes[0] < sizes[1] < sizes[2]


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".bmp", ".webp"])
def test_grey_stays_grey(tmp_path: Path, suffix: str) -> None:
    path, out = tmp_path / f"a{suffix}", tmp_path / f"b{suffix}"
    Image.fromarray(gradient()[..., 0]).save(path)
    picture = upscale_picture(read_picture(path), nearest(2), 2)
    # WebP has no grey: its pixels come back as they went.
    assert picture.grey == (suffix != ".webp")
    write_picture(out, picture)
    with Image.open(out) as image:
        assert image.mode == ("RGB" if suffix == ".webp" else "L")
        assert image.size == (42, 26)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_grey_with_alpha_stays_grey_with_alpha(tmp_path: Path, suffix: str) -> None:
    path, out = tmp_path / f"a{suffix}", tmp_path / f"b{suffix}"
    image = Image.fromarray(gradient()[..., 0])
    image.putalpha(Image.fromarray(gradient()[..., 1]))
    image.save(path)
    picture = read_picture(path)
    assert picture.grey
    np.testing.assert_array_equal(picture.alpha, gradient()[..., 1])
    write_picture(out, picture)
    with Image.open(out) as back:
        assert back.mode == "LA"
        np.testing.assert_array_equal(np.array(back), np.array(image))


@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp"])
def test_alpha_is_kept_and_enlarged(tmp_path: Path, suffix: str) -> None:
    path, out = tmp_path / f"a{suffix}", tmp_path / f"b{suffix}"
    alpha = gradient()[..., 1]
    write_picture(path, Picture(gradient(), alpha))
    picture = upscale_picture(read_picture(path), nearest(2), 2)
    write_picture(out, picture)
    with Image.open(out) as back:
        assert back.mode == "RGBA"
        expected = Image.fromarray(alpha).resize((42, 26), Image.Resampling.BICUBIC)
        np.testing.assert_array_equal(np.array(back)[..., 3], np.array(expected))


@pytest.mark.parametrize("suffix", [".jpg", ".bmp"])
def test_alpha_is_laid_on_white_where_a_format_has_none(
    tmp_path: Path, suffix: str
) -> None:
    path = tmp_path / f"a{suffix}"
    alpha = np.zeros((13, 21), np.uint8)
    (note,) = write_picture(path, Picture(np.zeros((13, 21, 3), np.uint8), alpha))
    assert "white" in note
    assert read_picture(path).rgb.min() >= 254


def test_hidden_colours_do_not_reach_the_visible_edge() -> None:
    rgb = np.zeros((40, 40, 3), np.uint8)
    alpha = np.zeros((40, 40), np.uint8)
    rgb[10:30, 10:30], alpha[10:30, 10:30] = (200, 100, 50), 255
    seen: list[Bytes] = []

    def upscale(pixels: Bytes) -> Bytes:
        seen.append(pixels)
        return nearest(2)(pixels)

    upscale_picture(Picture(rgb, alpha), upscale, 2)
    np.testing.assert_array_equal(seen[0][10:30, 10:30], rgb[10:30, 10:30])
    # What was black and hidden is now within a rounding or two of the visible colour.
    assert np.abs(seen[0].astype(int) - (200, 100, 50)).max() <= 4


@pytest.mark.parametrize("value", [0, 255])
def test_a_picture_of_one_opacity_keeps_its_colours(value: int) -> None:
    alpha = np.full((13, 21), value, np.uint8)
    result = upscale_picture(Picture(gradient(), alpha), nearest(2), 2)
    np.testing.assert_array_equal(result.rgb, nearest(2)(gradient()))
    assert (result.alpha == value).all() if result.alpha is not None else False


def test_palette_becomes_rgb(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    image = Image.fromarray(gradient()).quantize(16)
    image.save(path)
    picture = read_picture(path)
    np.testing.assert_array_equal(picture.rgb, np.array(image.convert("RGB")))
    assert picture.alpha is None


def test_transparent_palette_entry_becomes_alpha(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    image = Image.new("P", (4, 3), 0)
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putpixel((1, 1), 1)
    image.save(path, transparency=1)
    picture = read_picture(path)
    assert picture.alpha is not None
    assert picture.alpha[1, 1] == 0
    assert picture.alpha.sum() == 11 * 255


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_transparent_colour_becomes_alpha(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "a.png"
    image = Image.new(mode, (4, 3), "white")
    image.putpixel((2, 1), 0 if mode == "L" else (0, 0, 0))
    image.save(path, transparency=0 if mode == "L" else (0, 0, 0))
    picture = read_picture(path)
    assert picture.grey == (mode == "L")
    assert picture.alpha is not None
    assert picture.alpha[1, 2] == 0
    assert picture.alpha.sum() == 11 * 255


@pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp"])
def test_one_bit_becomes_grey(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    bits = gradient()[..., 0] > 100
    Image.fromarray(bits).save(path)
    picture = read_picture(path)
    assert picture.grey
    np.testing.assert_array_equal(picture.rgb[..., 0], np.where(bits, 255, 0))


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bit_grey_is_reduced_and_said_to_be(
    tmp_path: Path, suffix: str
) -> None:
    path = tmp_path / f"a{suffix}"
    values = np.linspace(0, 65535, 13 * 21).astype(np.uint16).reshape(13, 21)
    Image.fromarray(values).save(path)
    picture = read_picture(path)
    assert picture.grey
    np.testing.assert_array_equal(picture.rgb[..., 1], np.round(values / 257))
    assert picture.notes == ("16 bits a channel reduced to 8",)


def png(
    width: int, height: int, depth: int, color_type: int, *chunks: tuple[bytes, bytes]
) -> bytes:
    """A PNG file of these chunks, for kinds that Pillow does not write."""
    header = struct.pack(">IIBBBBB", width, height, depth, color_type, 0, 0, 0)
    result = b"\x89PNG\r\n\x1a\n"
    for kind, data in ((b"IHDR", header), *chunks, (b"IEND", b"")):
        crc = zlib.crc32(kind + data)
        result += struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc)
    return result


def png_16(
    path: Path,
    color_type: int,
    values: npt.NDArray[np.uint16],
    transparent: bytes = b"",
) -> None:
    """Write a 16-bit PNG; `values` is (height, width, channels)."""
    height, width, _ = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    chunks = [(b"tRNS", transparent)] if transparent else []
    chunks.append((b"IDAT", zlib.compress(rows)))
    path.write_bytes(png(width, height, 16, color_type, *chunks))


@pytest.mark.parametrize(
    ("color_type", "channels", "grey", "alpha"),
    [(2, 3, False, False), (4, 2, True, True), (6, 4, False, True)],
)
def test_sixteen_bit_png_of_every_kind(
    tmp_path: Path, color_type: int, channels: int, grey: bool, alpha: bool
) -> None:
    path = tmp_path / "a.png"
    values = np.random.default_rng(2).integers(
        0, 65536, (5, 7, channels), dtype=np.uint16
    )
    png_16(path, color_type, values)
    picture = read_picture(path)
    assert picture.grey == grey
    # Pillow cuts where rounding would be right: at most one level of difference.
    np.testing.assert_allclose(picture.rgb[..., 0], values[..., 0] / 257, atol=1)
    assert (picture.alpha is not None) == alpha
    if picture.alpha is not None:
        np.testing.assert_allclose(picture.alpha, values[..., -1] / 257, atol=1)
    assert picture.notes == ("16 bits a channel reduced to 8",)


@pytest.mark.parametrize(("color_type", "channels"), [(0, 1), (2, 3)])
def test_sixteen_bit_png_with_a_transparent_colour(
    tmp_path: Path, color_type: int, channels: int
) -> None:
    path = tmp_path / "a.png"
    values = np.full((3, 4, channels), 0x1234, np.uint16)
    values[1, 2] = 0xABCD
    png_16(path, color_type, values, struct.pack(">H", 0xABCD) * channels)
    picture = read_picture(path)
    assert picture.alpha is not None
    assert picture.alpha[1, 2] == 0
    assert picture.alpha.sum() == 11 * 255


def test_twelve_bit_tiff_uses_its_own_range(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    packed = bytes([0xFF, 0xF0, 0x00, 0x80, 0x0F, 0xFF])  # fff 000 800 fff
    tags = {256: 4, 257: 1, 258: 12, 259: 1, 262: 1, 277: 1, 278: 1, 279: 6}
    count = len(tags) + 1
    offset = 8 + 2 + 12 * count + 4
    tags[273] = offset
    entries = b"".join(struct.pack("<HHII", t, 4, 1, tags[t]) for t in sorted(tags))
    path.write_bytes(
        b"II*\0" + struct.pack("<IH", 8, count) + entries + b"\0" * 4 + packed
    )
    picture = read_picture(path)
    assert picture.rgb[0, :, 0].tolist() == [255, 0, 128, 255]
    assert picture.notes == ("12 bits a channel reduced to 8",)


def test_white_is_zero_tiff_is_turned_round(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    values = np.array([[0, 65535, 257]], np.uint16)
    Image.fromarray(values).save(path, tiffinfo={262: 0})
    assert read_picture(path).rgb[0, :, 0].tolist() == [255, 0, 254]


@pytest.mark.parametrize("suffix", [".jpg", ".tif"])
@pytest.mark.parametrize("profile", [None, b"damaged"])
def test_cmyk_becomes_rgb(tmp_path: Path, suffix: str, profile: bytes | None) -> None:
    path = tmp_path / f"a{suffix}"
    image = Image.new("CMYK", (16, 16), (255, 0, 0, 0))
    image.save(path, icc_profile=profile)
    picture = read_picture(path)
    red, green, blue = picture.rgb[8, 8]
    assert red < 30
    assert min(green, blue) > 200
    assert picture.icc_profile is None
    assert picture.notes == ("CMYK converted to RGB",)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif"])
def test_profile_exif_and_resolution_come_back(tmp_path: Path, suffix: str) -> None:
    path, out = tmp_path / f"a{suffix}", tmp_path / f"b{suffix}"
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "Maker"
    exif[ExifTags.Base.Copyright] = "someone"
    exif[ExifTags.IFD.Exif] = {
        0x829A: TiffImagePlugin.IFDRational(1, 250),
        PIXEL_WIDTH: 21,
        0xA003: 13,
        SUBJECT_AREA: (3, 4),
        0x9003: "2026:01:02 03:04:05",
    }
    exif[ExifTags.IFD.GPSInfo] = {1: "N"}
    Image.fromarray(gradient()).save(
        path, icc_profile=SRGB, exif=exif.tobytes(), dpi=(300, 300)
    )
    picture = upscale_picture(read_picture(path), nearest(2), 2)
    assert write_picture(out, picture) == ()
    with Image.open(out) as image:
        assert image.info["icc_profile"] == SRGB
        back = image.getexif()
        assert back[ExifTags.Base.Make] == "Maker"
        assert back[ExifTags.Base.Copyright] == "someone"
        photograph = back.get_ifd(ExifTags.IFD.Exif)
        assert photograph[0x829A] == pytest.approx(1 / 250)
        assert photograph[0x9003] == "2026:01:02 03:04:05"
        assert (photograph[PIXEL_WIDTH], photograph[0xA003]) == (42, 26)
        assert SUBJECT_AREA not in photograph
        assert back.get_ifd(ExifTags.IFD.GPSInfo)[1] == "N"
        if suffix != ".webp":
            assert image.info["dpi"] == pytest.approx((300, 300), abs=0.1)


XMP = b"""<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF>
<rdf:Description dc:title="a hill" tiff:Orientation="6" tiff:ImageWidth='21'
 exif:PixelXDimension="21">
<tiff:ImageLength>13</tiff:ImageLength><tiff:Make>Maker</tiff:Make>
<xmp:Thumbnails><rdf:Alt><xmpGImg:image>QUJD</xmpGImg:image></rdf:Alt></xmp:Thumbnails>
</rdf:Description></rdf:RDF></x:xmpmeta>"""


def save_with_xmp(path: Path) -> None:
    image = Image.fromarray(gradient())
    if path.suffix == ".png":
        info = PngImagePlugin.PngInfo()
        info.add_itxt("XML:com.adobe.xmp", XMP.decode())
        image.save(path, pnginfo=info)
    elif path.suffix == ".tif":
        image.save(path, tiffinfo={700: XMP})
    else:
        image.save(path, xmp=XMP)


@pytest.mark.skipif(
    int(PILLOW.split(".")[0]) < 11, reason="older Pillow has no XMP in JPEG"
)
@pytest.mark.parametrize("target", [".png", ".jpg", ".webp", ".tif"])
@pytest.mark.parametrize("source", [".png", ".jpg", ".webp", ".tif"])
def test_xmp_is_kept_but_for_what_is_no_longer_true(
    tmp_path: Path, source: str, target: str
) -> None:
    given, out, again = (tmp_path / f"{n}{target}" for n in "abc")
    given = given.with_suffix(source)
    save_with_xmp(given)
    picture = read_picture(given)
    assert picture.size == (13, 21), "turned, as the orientation in the XMP says"
    assert write_picture(out, picture) == ()
    kept = read_picture(out).xmp
    assert kept is not None
    for word in (b'dc:title="a hill"', b"<tiff:Make>Maker</tiff:Make>"):
        assert word in kept
    for word in (b"Orientation", b"Image", b"PixelX", b"Thumbnails", b"QUJD"):
        assert word not in kept
    write_picture(again, read_picture(out))
    assert read_picture(again).xmp == kept


def test_text_that_is_not_kept_is_named(tmp_path: Path) -> None:
    text = PngImagePlugin.PngInfo()
    text.add_text("Author", "somebody")
    text.add_text("Software", "a program, whose name is no loss")
    text.add_text("comment", "as ImageMagick spells it")
    text.add_itxt("XML:com.adobe.xmp", XMP.decode())
    png, jpeg = tmp_path / "a.png", tmp_path / "b.jpg"
    Image.fromarray(gradient()).save(png, pnginfo=text)
    # IPTC-IIM, 2:05, in a block of Photoshop's in a segment APP13.
    iptc = b"\x1c\x02\x05\x00\x04Hill"
    block = b"Photoshop 3.0\0008BIM\x04\x04\0\0" + len(iptc).to_bytes(4, "big") + iptc
    block += b"\0" * (len(iptc) % 2)
    segment = b"\xff\xed" + (len(block) + 2).to_bytes(2, "big") + block
    Image.fromarray(gradient()).save(jpeg, extra=segment, comment=b"a hill")
    lost = ("the IPTC data is left out", "the JPEG's comment is left out")
    for read in (read_picture, read_header):
        assert read(png).notes == ("the PNG's text is left out: Author, comment",)
        assert read(jpeg).notes == lost


def test_xmp_too_long_for_jpeg_is_left_out(tmp_path: Path) -> None:
    picture = Picture(gradient(), xmp=b"<x/>" * 20000)
    (note,) = write_picture(tmp_path / "a.jpg", picture)
    assert "XMP" in note
    assert write_picture(tmp_path / "a.webp", picture) == ()


@pytest.mark.parametrize("target", [".png", ".jpg", ".webp", ".tif"])
@pytest.mark.parametrize("source", [".png", ".jpg", ".webp", ".tif"])
@pytest.mark.parametrize("rest", [{}, {ExifTags.IFD.Exif: {PIXEL_WIDTH: 21}}])
def test_exif_crosses_formats(
    tmp_path: Path, source: str, target: str, rest: dict[int, dict[int, int]]
) -> None:
    given, out = tmp_path / f"a{source}", tmp_path / f"b{target}"
    exif = Image.Exif()
    exif[ExifTags.Base.Artist] = "someone"
    for tag, values in rest.items():
        exif[tag] = values
    Image.fromarray(gradient()).save(given, exif=exif.tobytes())
    for _ in range(2):
        picture = upscale_picture(read_picture(given), nearest(2), 2)
        assert write_picture(out, picture, overwrite=True) == ()
        with Image.open(out) as image:
            assert image.getexif()[ExifTags.Base.Artist] == "someone"
            photograph = image.getexif().get_ifd(ExifTags.IFD.Exif)
            assert photograph.get(PIXEL_WIDTH) == (image.width if rest else None)
        given = out


def test_metadata_crosses_formats(tmp_path: Path) -> None:
    path, out = tmp_path / "a.tif", tmp_path / "b.jpg"
    Image.fromarray(gradient()).save(
        path, icc_profile=SRGB, description="a hill", dpi=(150, 150), compression="lzw"
    )
    write_picture(out, upscale_picture(read_picture(path), nearest(2), 2))
    with Image.open(out) as image:
        exif = image.getexif()
        assert exif[ExifTags.Base.ImageDescription] == "a hill"
        assert 273 not in exif, "where strips lie in the TIFF is not for a JPEG"
        assert 256 not in exif
        assert image.info["icc_profile"] == SRGB
        assert image.info["dpi"] == (150, 150)


def test_bmp_says_what_it_cannot_carry(tmp_path: Path) -> None:
    (note,) = write_picture(tmp_path / "a.bmp", Picture(gradient(), icc_profile=SRGB))
    assert "BMP cannot carry" in note


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_goes_into_the_pixels(
    tmp_path: Path, suffix: str, orientation: int
) -> None:
    path, out = tmp_path / f"a{suffix}", tmp_path / f"b{suffix}"
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    rgb = np.zeros((16, 32, 3), np.uint8)
    rgb[:8, :16] = 255  # white in the top left quarter
    Image.fromarray(rgb).save(path, exif=exif.tobytes())
    picture = read_picture(path)
    # TIFF 6.0, tag 274: where row 0 and column 0 of the file belong.
    turned = {
        1: rgb,
        2: rgb[:, ::-1],
        3: rgb[::-1, ::-1],
        4: rgb[::-1],
        5: rgb.swapaxes(0, 1),
        6: rgb.swapaxes(0, 1)[:, ::-1],
        7: rgb[::-1, ::-1].swapaxes(0, 1),
        8: rgb.swapaxes(0, 1)[::-1],
    }[orientation]
    assert picture.rgb.shape == turned.shape
    np.testing.assert_array_equal(picture.rgb > 127, turned > 127)
    write_picture(out, picture)
    with Image.open(out) as image:
        assert image.getexif().get(ORIENTATION, 1) == 1


def test_the_thumbnail_is_dropped(tmp_path: Path) -> None:
    path, out = tmp_path / "a.jpg", tmp_path / "b.jpg"
    thumbnail = io.BytesIO()
    Image.new("RGB", (16, 16), "red").save(thumbnail, "JPEG")
    data = thumbnail.getvalue()
    # IFD0 with Make, then IFD1 with a JPEG thumbnail (EXIF 2.32, 4.6.5).
    ifd0 = struct.pack("<HHHI4sI", 1, 0x010F, 2, 4, b"Mee\0", 26)
    ifd1 = struct.pack("<HHHIIHHIII", 2, 0x0201, 4, 1, 56, 0x0202, 4, 1, len(data), 0)
    exif = b"Exif\0\0II*\0\x08\0\0\0" + ifd0 + ifd1 + data
    Image.fromarray(gradient()).save(path, exif=exif)
    with Image.open(path) as image:
        assert image.getexif().get_ifd(ExifTags.IFD.IFD1), "the input has a thumbnail"
    write_picture(out, read_picture(path))
    with Image.open(out) as image:
        assert image.getexif()[0x010F] == "Mee"
        assert not image.getexif().get_ifd(ExifTags.IFD.IFD1)
    assert data not in out.read_bytes()


@pytest.mark.parametrize(
    "exif", [b"Exif\0\0nonsense!", b"Exif\0\0II*\0\xff\xff\xff\xff"]
)
def test_damaged_exif_does_not_cost_the_picture(tmp_path: Path, exif: bytes) -> None:
    path = tmp_path / "a.jpg"
    Image.fromarray(gradient()).save(path, exif=b"Exif\0\0" + exif)
    picture = read_picture(path)
    assert picture.rgb.shape == (13, 21, 3)
    assert picture.exif is None
    write_picture(tmp_path / "b.jpg", picture)


def test_exif_too_long_for_jpeg_is_left_out(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.ImageDescription] = "x" * 70000
    picture = Picture(gradient(), exif=exif.tobytes())
    (note,) = write_picture(tmp_path / "a.jpg", picture)
    assert "EXIF" in note
    assert write_picture(tmp_path / "a.png", picture) == ()


def test_a_profile_for_other_channels_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    grey_profile = SRGB[:16] + b"GRAY" + SRGB[20:]
    Image.fromarray(gradient()).save(path, icc_profile=grey_profile)
    picture = read_picture(path)
    assert picture.icc_profile is None
    assert "profile" in picture.notes[0]


@pytest.mark.parametrize("suffix", [".png", ".webp", ".tif"])
def test_only_the_first_of_several_pictures(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    first, second = Image.fromarray(gradient()), Image.new("RGB", (21, 13), "red")
    first.save(path, save_all=True, append_images=[second], lossless=True)
    picture = read_picture(path)
    assert picture.frames == 2
    assert picture.notes == ("the file holds 2 pictures; only the first is used",)
    np.testing.assert_array_equal(picture.rgb, gradient())


def test_content_decides_not_the_name(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(gradient()).save(path, "BMP")
    assert read_picture(path).format == "BMP"


def bomb(path: Path) -> None:
    """60,000 × 60,000 pixels in a file of 400 KB."""
    deflate = zlib.compressobj(9)
    # One bit a pixel: 7,501 bytes a row.
    body = b"".join(deflate.compress(bytes(7501)) for _ in range(60000))
    body += deflate.flush()
    path.write_bytes(png(60000, 60000, 1, 0, (b"IDAT", body)))


def test_a_decompression_bomb_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    bomb(path)
    with pytest.raises(PictureError) as caught:
        read_picture(path)
    text = one_line(caught, path)
    assert "60000×60000" in text
    assert "--max-megapixels" in text


def test_the_limit_can_be_moved(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    write_picture(path, Picture(gradient()))
    limit = Image.MAX_IMAGE_PIXELS
    with pytest.raises(PictureError, match="21×13"):
        read_picture(path, max_pixels=21 * 13 - 1)
    assert read_picture(path, max_pixels=21 * 13).size == (21, 13)
    assert limit == Image.MAX_IMAGE_PIXELS, "Pillow's own limit is left as it was"


def jpeg(path: Path) -> bytes:
    Image.fromarray(gradient(200, 300)).save(path, "JPEG")
    return path.read_bytes()


def test_bad_files_get_one_line(tmp_path: Path) -> None:
    path = tmp_path / "bad"
    good = jpeg(path)

    def refused(what: str) -> str:
        with pytest.raises(PictureError) as caught:
            read_picture(path)
        text = one_line(caught, path)
        assert what in text, text
        return text

    path.write_bytes(b"")
    refused("empty")
    path.write_text("just text\n" * 100)
    refused("not a PNG, JPEG, WebP, TIFF or BMP picture")
    path.write_bytes(good[: len(good) // 2])
    refused("cut short")
    path.write_bytes(good[:20])
    refused("")
    path.unlink()
    refused("No such file")
    path.mkdir()
    refused("is a folder")
    path.rmdir()
    path.symlink_to(path)
    refused("symbolic links")
    path.unlink()
    os.mkfifo(path)
    refused("not a regular file")


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif", ".bmp"])
@pytest.mark.parametrize("seed", range(3))
def test_damage_anywhere_is_an_error_or_a_picture(
    tmp_path: Path, suffix: str, seed: int
) -> None:
    """Nothing but `PictureError` comes out, whatever a decoder trips over."""
    rng = np.random.default_rng(seed)
    path = tmp_path / f"a{suffix}"
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "Maker"
    Image.fromarray(gradient(40, 60)).save(path, exif=exif, icc_profile=SRGB)
    good = path.read_bytes()
    for _ in range(60):
        data = bytearray(good)
        if rng.random() < 0.5:
            data = data[: rng.integers(1, len(data))]
        for position in rng.integers(0, len(data), 3):
            data[position] = rng.integers(0, 256)
        path.write_bytes(data)
        try:
            picture = read_picture(path, max_pixels=10**6)
        except PictureError as error:
            assert "\n" not in str(error)  # noqa: PT017
        else:
            write_picture(tmp_path / "out.png", picture, overwrite=True)


@pytest.mark.parametrize("mode", ["F", "I"])
def test_grey_without_a_range_is_refused(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "a.tif"
    Image.new(mode, (4, 4)).save(path)
    with pytest.raises(PictureError, match="convert it to 8 or 16 bits"):
        read_picture(path)


def test_lab_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    Image.new("LAB", (4, 4)).save(path)
    with pytest.raises(PictureError, match="LAB"):
        read_picture(path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_file_gets_one_line(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    write_picture(path, Picture(gradient()))
    path.chmod(0)
    with pytest.raises(PictureError, match="Permission denied"):
        read_picture(path)


def test_control_characters_in_names_stay_out_of_the_line(tmp_path: Path) -> None:
    path = tmp_path / "two\nlines\x1b[31m.png"
    with pytest.raises(PictureError) as caught:
        read_picture(path)
    assert str(caught.value).isprintable()


# Writing


@pytest.mark.parametrize(
    ("suffix", "width"), [(".webp", 16384), (".jpg", 65501), (".bmp", 32768)]
)
def test_too_large_for_the_format(tmp_path: Path, suffix: str, width: int) -> None:
    path = tmp_path / f"a{suffix}"
    with pytest.raises(PictureError, match="more than"):
        write_picture(path, Picture(np.zeros((1, width, 3), np.uint8)))
    assert not list(tmp_path.iterdir())


def test_an_unknown_suffix_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PictureError, match=r"such as \.png"):
        write_picture(tmp_path / "a.gif", Picture(gradient()))


def test_an_existing_file_is_kept_unless_told(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_text("precious")
    with pytest.raises(PictureError, match="--overwrite"):
        write_picture(path, Picture(gradient()))
    assert path.read_text() == "precious"
    write_picture(path, Picture(gradient()), overwrite=True)
    assert read_picture(path).size == (21, 13)
    assert not parts(tmp_path)


def race(path: Path) -> None:
    """Write `path`, and have somebody else do so meanwhile."""
    with new_picture_path(path) as temporary:
        temporary.write_bytes(b"ours")
        path.write_bytes(b"theirs")


def test_a_file_that_appears_meanwhile_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    with pytest.raises(PictureError, match="exists"):
        race(path)
    assert path.read_bytes() == b"theirs"
    assert not parts(tmp_path)


@pytest.mark.parametrize("exists", [False, True])
def test_a_file_system_without_hard_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exists: bool
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    path = tmp_path / "a.png"
    if exists:
        with pytest.raises(PictureError, match="exists"):
            race(path)
        assert path.read_bytes() == b"theirs"
    else:
        write_picture(path, Picture(gradient()))
        assert read_picture(path).size == (21, 13)
    assert not parts(tmp_path)


def test_a_new_file_has_the_permissions_of_any_other(tmp_path: Path) -> None:
    path, plain = tmp_path / "a.png", tmp_path / "plain"
    write_picture(path, Picture(gradient()))
    plain.touch()
    assert path.stat().st_mode == plain.stat().st_mode


def test_a_link_at_the_output_is_followed(tmp_path: Path) -> None:
    target, link = tmp_path / "real.png", tmp_path / "link.png"
    target.write_text("old")
    link.symlink_to(target)
    write_picture(link, Picture(gradient()), overwrite=True)
    assert link.is_symlink()
    assert read_picture(target).size == (21, 13)


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit, OSError(28, "full")])
def test_nothing_is_left_when_writing_stops(
    tmp_path: Path, stop: BaseException | type[BaseException]
) -> None:
    path = tmp_path / "a.png"

    def write() -> None:
        with new_file(path) as file:
            file.write(b"half")
            assert parts(tmp_path)
            raise stop

    with pytest.raises((KeyboardInterrupt, SystemExit, OSError)):
        write()
    assert not list(tmp_path.iterdir())
    assert not files._unfinished


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif", ".bmp"])
def test_a_full_disk(tmp_path: Path, suffix: str) -> None:
    """A real failure of the kernel's: a limit on file sizes, in another process."""
    code = (
        "import sys, numpy as np\n"
        "from pathlib import Path\n"
        "from upfrost.image.images import *\n"
        "pixels = np.random.default_rng(1).integers(0, 256, (300, 300, 3), np.uint8)\n"
        "try:\n"
        "    write_picture(Path(sys.argv[1]), Picture(pixels))\n"
        "except PictureError as error:\n"
        "    print(error)\n"
    )
    path = tmp_path / f"a{suffix}"
    result = subprocess.run(
        [sys.executable, "-c", code, str(path)],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000)),
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout == f"{path}: cannot be written: File too large\n"
    assert not list(tmp_path.iterdir())


def test_a_folder_that_vanished(tmp_path: Path) -> None:
    path = tmp_path / "gone" / "a.png"
    with pytest.raises(PictureError, match="No such file or directory"):
        write_picture(path, Picture(gradient()))


def test_a_folder_that_vanishes_while_writing(tmp_path: Path) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()

    def write() -> None:
        with new_file(folder / "a.png") as file:
            file.write(b"half")
            shutil.rmtree(folder)

    with pytest.raises(FileNotFoundError):
        write()
    assert not folder.exists()


def test_png_text_that_explodes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    info = PngImagePlugin.PngInfo()
    info.add_text("comment", "x" * (PngImagePlugin.MAX_TEXT_CHUNK + 1), zip=True)
    Image.fromarray(gradient()).save(path, pnginfo=info)
    try:
        picture = read_picture(path)
    except PictureError as error:
        assert "\n" not in str(error)  # noqa: PT017
    else:
        assert picture.size == (21, 13)
