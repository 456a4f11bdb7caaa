"""Makes images of callers ready for upstream: upright, without private metadata, as PNG, JPEG or WebP.

Runs only in a child process (`worker.core.media.isolation`). The task reads `source`, writes the result to `target` and
returns a report. Whatever the libraries raise is a refusal of the file.
"""

import io
from collections.abc import Callable
from typing import IO, Any

import pillow_heif
from PIL import Image, ImageChops, ImageCms, ImageFile, ImageOps, UnidentifiedImageError

from worker.core.media.decoders import results
from worker.core.media.image import MAX_INPUT_PIXELS, InvalidImageError
from worker.core.media.image_structure import ImageStructure, copy_parts, read_structure
from worker.core.media.isolation.protocol import UnusableFileError

_JPEG_QUALITY = 95
_MAX_JPEG_SIDE = 65_500
# Explicit: Pillow also knows formats that run programs or read other files.
_FORMATS = ("PNG", "JPEG", "WEBP", "AVIF", "GIF", "BMP", "DIB", "TIFF", "ICO", "CUR", "JPEG2000", "ICNS", "QOI", "PPM")
_HEIF_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1", b"heif"})
_ORIENTATION = 0x0112
_PRIVATE_FIELDS = frozenset({"exif", "xmp", "comment", "XML:com.adobe.xmp", "photoshop"})
# Description, camera, software, time, author, copyright, XMP, IPTC, EXIF, GPS
_PRIVATE_TAGS = frozenset({270, 271, 272, 305, 306, 315, 33432, 700, 33723, 34665, 34853})
_DNG_VERSION, _SUBFILE_TYPE = 50706, 254
# A JPEG without its end lacks up to its last row of blocks; the decoder holds back a few rows more.
_MAX_MISSING_ROWS = 24
_META_BYTES = 1 << 20


def normalize(source: IO[bytes], target: IO[bytes]) -> dict[str, Any]:
    """Return what the image is; `written` = the result is in `target`, otherwise the file is fine as it is."""
    try:
        known = read_structure(source)
    except InvalidImageError as error:
        raise UnusableFileError("pixels" if "million pixels" in str(error) else "damaged") from None
    if known is None or known.needs_decoding:
        return _decode(source, target, known)
    report = {
        "mime": known.info.mime,
        "width": known.info.width,
        "height": known.info.height,
        "private": known.private,
        "written": known.private,
    }
    if known.private:
        copy_parts(source, known.parts, target)
    return report


def _decode(source: IO[bytes], target: IO[bytes], known: ImageStructure | None) -> dict[str, Any]:
    source.seek(0)
    head = source.read(16)
    source.seek(0)
    heif = head[4:8] == b"ftyp" and head[8:12] in _HEIF_BRANDS
    try:
        image = Image.open(source, formats=(*_FORMATS, *(("HEIF",) if heif else ())))
    except UnidentifiedImageError:
        raise UnusableFileError("unknown" if known is None else "damaged") from None
    if image.width * image.height > MAX_INPUT_PIXELS:
        raise UnusableFileError("pixels")
    return _convert(image, source, target, known)


def _convert(image: Any, source: IO[bytes], target: IO[bytes], known: ImageStructure | None) -> dict[str, Any]:
    kind = image.format
    frames = bool(getattr(image, "is_animated", False)) and kind not in {"MPO", "HEIF", "ICNS"}
    _refuse_raw_photo(image, kind, source)
    orientation = _orientation(image, kind, source)
    private = bool(_PRIVATE_FIELDS & set(image.info)) or bool(_PRIVATE_TAGS & set(image.getexif()))
    image = _load(image, known)
    if kind == "HEIF" and orientation != 1:
        image.getexif()[_ORIENTATION] = orientation
    if kind != "TIFF":  # turned while it was loaded
        image = ImageOps.exif_transpose(image)
    profile = image.info.get("icc_profile")
    mode = image.mode
    image, profile = _to_rgb(image, profile)
    image.info = {}
    png = kind == "PNG" or image.mode == "RGBA" or max(image.size) > _MAX_JPEG_SIDE
    options: dict[str, Any] = {"compress_level": 3} if png else {"quality": _JPEG_QUALITY, "subsampling": 0}
    if profile:
        options["icc_profile"] = profile
    image.save(target, "PNG" if png else "JPEG", **options)
    return {
        "mime": "image/png" if png else "image/jpeg",
        "width": image.width,
        "height": image.height,
        "written": True,
        "source": kind,
        "orientation": orientation,
        "mode": mode,
        "frames": frames,
        "private": private or (known is not None and known.private),
        "repaired": known is not None and not known.complete,
    }


def _refuse_raw_photo(image: Any, kind: str, source: IO[bytes]) -> None:
    """Raise for camera raw files, which contain a small preview as their first TIFF image."""
    if kind != "TIFF":
        return
    source.seek(8)
    if source.read(2) == b"CR" or _DNG_VERSION in image.tag_v2 or image.tag_v2.get(_SUBFILE_TYPE, 0) & 1:
        raise UnusableFileError("raw")


def _orientation(image: Any, kind: str, source: IO[bytes]) -> int:
    """Return the EXIF orientation that is still to be applied, or was applied while loading (TIFF)."""
    if kind == "HEIF":
        # The container's own rotation is applied by the library and makes EXIF void; without one EXIF counts.
        source.seek(0)
        head = source.read(_META_BYTES)
        found = 1 if b"irot" in head or b"imir" in head else image.info.get("original_orientation")
    else:
        found = image.getexif().get(_ORIENTATION)
    return found if isinstance(found, int) and 1 <= found <= 8 else 1


def _load(image: Any, known: ImageStructure | None) -> Any:
    """Decode. A JPEG without its end is accepted if all its rows of blocks, or all its scans, have begun."""
    if known is None or known.complete or image.format not in {"JPEG", "MPO"}:
        image.load()
        return image
    content = image.fp
    ImageFile.LOAD_TRUNCATED_IMAGES = True
    content.seek(0)
    partial = Image.open(content, formats=("JPEG",))
    # Without the end marker that Pillow adds, rows that are not in the file stay black.
    partial.load_read = content.read  # type: ignore[attr-defined]
    partial.load()
    content.seek(0)
    whole = Image.open(content, formats=("JPEG",))
    whole.load()
    different = ImageChops.difference(whole, partial).getbbox()
    missing = whole.height - different[1] if different else 0
    if missing > _MAX_MISSING_ROWS and not (missing == whole.height and known.scans_begun):
        raise UnusableFileError("damaged")
    return whole


def _to_rgb(image: Any, profile: bytes | None) -> tuple[Any, bytes | None]:
    """Return the image as RGB, RGBA (only with transparent pixels) or L, and its profile if that still fits."""
    if image.mode in {"CMYK", "LAB", "YCbCr"} and profile:
        return _to_srgb(image, profile), None
    if image.mode.startswith(("I", "F")):
        image = _to_eight_bits(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        if image.getchannel("A").getextrema()[0] == 255:
            image = image.convert("RGB")
    elif image.mode in {"1", "L"}:
        image = image.convert("L")
    else:
        image = image.convert("RGB")
    space = b"GRAY" if image.mode == "L" else b"RGB "
    return image, profile if profile and profile[16:20] == space else None


def _to_srgb(image: Any, profile: bytes) -> Any:
    """Return the image in sRGB: an RGB file cannot keep a profile of another colour model."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        return ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError):
        return image.convert("RGB")


def _to_eight_bits(image: Any) -> Any:
    """Return a grey image of 16 or 32 bits as L; Pillow's own conversion cuts off bright values."""
    if image.mode.startswith("I;16"):
        return image.convert("I").point(lambda value: value * (1 / 257)).convert("L")
    low, high = image.getextrema()
    if image.mode == "I" and low >= 0 and high <= 65535:
        low, high = 0, 65535
    scale = 255 / (high - low) if high > low else 1
    return image.convert("F").point(lambda value: value * scale - low * scale).convert("L")


# Loaded before the fork, when nothing of a caller is here: afterwards a child can open no file.
Image.init()
pillow_heif.register_heif_opener(thumbnails=False)
ImageCms.createProfile("sRGB")
# Checked before decoding, and again for an image inside the image (ICO, ICNS). Pillow raises above twice this number.
Image.MAX_IMAGE_PIXELS = MAX_INPUT_PIXELS // 2
TASKS: dict[str, Callable[..., dict[str, Any]]] = {
    "normalize": normalize,
    "convert": results.convert,
    "thumbnail": results.make_thumbnail,
}
