"""Reads size, orientation and metadata of JPEG, PNG and WebP files from their structure, without decoding pixels.

Upstream receives these three formats as they are. The readers list the parts of a file that describe its pixels; all
other parts (EXIF with its GPS position, XMP, comments, embedded thumbnails, second images, data after the end) are left
out of a copy made by `copy_parts`.
"""

import io
import re
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import IO

from worker.core.media.image import ImageInfo, InvalidImageError, check_pixels, damaged_image

_ORIENTATION_TAG = 0x0112
# Types of TIFF that hold a whole number -> how it is packed.
_INTEGERS = {1: "B", 3: "H", 4: "I"}
# What Pillow reads too, for files without EXIF.
_XMP_ORIENTATION = re.compile(rb"tiff:Orientation(?:=\"|>)([1-8])")
_MAX_METADATA_BYTES = 1 << 20
_CHUNK_BYTES, _SCAN_BYTES = 1 << 20, 4096
# Far more than files have; a file of tiny parts would keep the reader busy for minutes.
MAX_PARTS = 100_000
# What is read in milliseconds, outside of a child process.
FEW_PARTS = 2_000
# Padding that cameras and editors leave after the end is not worth a copy.
_MAX_IGNORED_TAIL = 16


@dataclass(slots=True)
class ImageStructure:
    """What the structure of a file says.

    `parts` = byte ranges (offset, length) to keep, or replaced bytes, in order. `private` = something else was found.
    """

    info: ImageInfo
    parts: list[tuple[int, int] | bytes] = field(default_factory=list)
    orientation: int = 1
    private: bool = False
    # Whether the pixels must be decoded: a colour model or an animation that upstream may not read.
    unusual: bool = False
    complete: bool = True
    # (JPEG without its end) whether every scan has begun, so that only the last one is cut.
    scans_begun: bool = False

    @property
    def needs_decoding(self) -> bool:
        """Whether upstream could not read the file as it is, or would see it turned."""
        return self.orientation != 1 or self.unusual or not self.complete


class TooManyPartsError(InvalidImageError):
    """The file has more parts than the reader may look at."""


def read_structure(content: IO[bytes], *, max_parts: int = MAX_PARTS) -> ImageStructure | None:
    """Return the structure of a JPEG, PNG or WebP; None for other files. Raises InvalidImageError for damage."""
    size = content.seek(0, io.SEEK_END)
    content.seek(0)
    head = content.read(16)
    read = next((read for magic, read in _READERS if magic.match(head)), None)
    if read is None:
        return None
    try:
        structure = read(content, size, max_parts)
    except (struct.error, IndexError, ValueError):
        raise damaged_image() from None
    check_pixels(structure.info.width, structure.info.height)
    return structure


def read_complete_image(content: IO[bytes]) -> ImageInfo:
    """Return format and size of a whole JPEG, PNG or WebP of few parts. Raises InvalidImageError."""
    structure = read_structure(content, max_parts=FEW_PARTS)
    if structure is None or not structure.complete:
        raise damaged_image()
    return structure.info


def copy_parts(content: IO[bytes], parts: list[tuple[int, int] | bytes], target: IO[bytes]) -> None:
    """Write the listed parts of a file to another one."""
    for part in parts:
        if isinstance(part, bytes):
            target.write(part)
            continue
        content.seek(part[0])
        left = part[1]
        while left > 0 and (data := content.read(min(left, _CHUNK_BYTES))):
            target.write(data)
            left -= len(data)


def _orientation(exif: bytes, xmp: bytes) -> int:
    """Return the orientation, 1 to 8; XMP counts only without EXIF."""
    found = _exif_orientation(exif.removeprefix(b"Exif\x00\x00"))
    if found is None and (match := _XMP_ORIENTATION.search(xmp)):
        found = int(match[1])
    return found if found is not None and 1 <= found <= 8 else 1


def _exif_orientation(tiff: bytes) -> int | None:
    """Return the tag of the first directory: one look at each of its entries. None if it has none or is damaged."""
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None or len(tiff) < 10:
        return None
    (begin,) = struct.unpack_from(f"{order}I", tiff, 4)
    if begin + 2 > len(tiff):
        return None
    (count,) = struct.unpack_from(f"{order}H", tiff, begin)
    for position in range(begin + 2, min(begin + 2 + 12 * count, len(tiff) - 11), 12):
        tag, kind, values = struct.unpack_from(f"{order}HHI", tiff, position)
        if tag == _ORIENTATION_TAG and values == 1 and kind in _INTEGERS:
            (value,) = struct.unpack_from(f"{order}{_INTEGERS[kind]}", tiff, position + 8)
            return int(value)
    return None


# --- JPEG

_ENTROPY_END = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
# Baseline, extended and progressive Huffman coding; other processes are decoded here.
_USUAL_FRAMES = frozenset({0xC0, 0xC1, 0xC2})
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_START, _END, _SCAN, _COMMENT = 0xD8, 0xD9, 0xDA, 0xFE
_STANDALONE = frozenset({0x01, *range(0xD0, 0xD8)})


class _Jpeg:
    """Reads the segments of a JPEG up to its end marker; later images in the file (MPO) are left out."""

    def __init__(self, content: IO[bytes], size: int, max_parts: int) -> None:
        self._content, self._size, self._position = content, size, 2
        self._max_parts = max_parts
        self._steps = 0
        self._exif = self._xmp = b""
        self._frame: tuple[int, int, int, int] | None = None  # process, width, height, components
        # Component -> number of coefficients at full precision, of 64.
        self._coefficients: dict[int, int] = {}
        self.structure = ImageStructure(ImageInfo("image/jpeg", 0, 0), parts=[(0, 2)], complete=False)

    def read(self) -> ImageStructure:
        found = self.structure
        while (marker := self._next_marker()) is not None and marker != _END:
            if marker not in _STANDALONE:
                self._segment(marker)
        if marker == _END:
            found.complete = True
            found.parts.append(b"\xff\xd9")
            found.private |= self._size - self._position > _MAX_IGNORED_TAIL
        if self._frame is None or not self._coefficients:
            raise damaged_image()
        done = [count >= 64 for count in self._coefficients.values()]
        found.scans_begun = len(done) >= self._frame[3] and all(done)
        process, found.info = self._frame[0], ImageInfo("image/jpeg", *self._frame[1:3])
        found.unusual |= process not in _USUAL_FRAMES or self._frame[3] not in {1, 3}
        found.orientation = _orientation(self._exif, self._xmp)
        return found

    def _next_marker(self) -> int | None:
        """Return the next marker and stand behind it; None at the end of the file."""
        self._content.seek(self._position)
        fill = 0
        while byte := self._content.read(1):
            self._position += 1
            self._steps += 1
            if self._steps > self._max_parts:
                raise TooManyPartsError("it has too many parts")
            if byte == b"\xff":
                fill += 1
            elif fill and byte != b"\x00":
                return byte[0]
            else:
                # Bytes between segments: decoders skip them, so the pixels are written again.
                fill, self.structure.unusual = 0, True
        return None

    def _segment(self, marker: int) -> None:
        length = self._content.read(2)
        if len(length) < 2:
            self._position = self._size
            return
        (count,) = struct.unpack(">H", length)
        if count < 2:
            raise damaged_image()
        begin = self._position - 2
        body = self._content.read(count - 2)
        self._position += count
        if marker in _FRAMES:
            height, width, components = struct.unpack_from(">xHHB", body)
            self._frame = (marker, width, height, components)
        if self._keeps(marker, body):
            self.structure.parts.append((begin, count + 2))
        else:
            self.structure.private = True
        if marker == _SCAN:
            self._count_coefficients(body)
            self._skip_entropy_data()

    def _keeps(self, marker: int, body: bytes) -> bool:
        if marker == 0xE1 and body.startswith(b"Exif\x00"):
            self._exif = self._exif or body
        elif marker == 0xE1 and b"ns.adobe.com/xap" in body[:40]:
            self._xmp = body
        if marker == _COMMENT:
            return False
        if not 0xE0 <= marker <= 0xEF:
            return True
        kept = {0xE0: b"JFIF\x00", 0xE2: b"ICC_PROFILE\x00", 0xEE: b"Adobe"}.get(marker)
        return kept is not None and body.startswith(kept)

    def _count_coefficients(self, scan: bytes) -> None:
        components = scan[0]
        first, last, precision = scan[1 + 2 * components : 4 + 2 * components]
        for number in range(components):
            component = scan[1 + 2 * number]
            count = last - first + 1 if precision & 0x0F == 0 else 0
            self._coefficients[component] = self._coefficients.get(component, 0) + count

    def _skip_entropy_data(self) -> None:
        begin = position = self._position
        # Small at first: a file of many short scans would be read again for each of them.
        carry, size = b"", _SCAN_BYTES
        self._content.seek(position)
        while data := self._content.read(size):
            size = _CHUNK_BYTES
            window = carry + data
            if match := _ENTROPY_END.search(window):
                self._position = position - len(carry) + match.start()
                break
            position += len(data)
            carry = window[-1:]
        else:
            self._position = self._size
        self.structure.parts.append((begin, self._position - begin))


def _read_jpeg(content: IO[bytes], size: int, max_parts: int) -> ImageStructure:
    return _Jpeg(content, size, max_parts).read()


# --- PNG

_PNG_KEPT = frozenset(
    {
        *(b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS"),
        *(b"cHRM", b"gAMA", b"iCCP", b"sBIT", b"sRGB", b"cICP", b"bKGD", b"pHYs"),
    }
)
_PNG_ANIMATION = frozenset({b"acTL", b"fcTL", b"fdAT"})
_PNG_TEXTS = frozenset({b"tEXt", b"zTXt", b"iTXt"})


def _read_png(content: IO[bytes], size: int, max_parts: int) -> ImageStructure:
    """Read the chunks up to IEND; checksums of kept chunks reveal damage."""
    found = ImageStructure(ImageInfo("image/png", 0, 0), parts=[(0, 8)], complete=False)
    exif = xmp = b""
    has_pixels = False
    for name, begin, length in _png_chunks(content, size, max_parts):
        if name in _PNG_KEPT:
            if name == b"IHDR":
                content.seek(begin + 8)
                width, height = struct.unpack(">II", content.read(8))
                found.info = ImageInfo("image/png", width, height)
            _check_sum(content, begin + 4, length + 4)
            found.parts.append((begin, length + 12))
            has_pixels |= name == b"IDAT" and length > 0
            if name == b"IEND":
                if not has_pixels:
                    raise damaged_image()
                found.complete = True
                found.private |= size - (begin + 12) > _MAX_IGNORED_TAIL
                break
            continue
        found.private |= name not in _PNG_ANIMATION
        found.unusual |= name == b"acTL"
        content.seek(begin + 8)
        if name == b"eXIf":
            exif = content.read(min(length, _MAX_METADATA_BYTES))
        elif name in _PNG_TEXTS:
            body = content.read(min(length, _MAX_METADATA_BYTES))
            # ImageMagick writes EXIF as a text, which only the decoder reads.
            found.unusual |= body.startswith(b"Raw profile type ")
            xmp = xmp or body
    found.orientation = _orientation(exif, xmp)
    return found


def _png_chunks(content: IO[bytes], size: int, max_parts: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield name, offset and data length of each whole chunk."""
    position, count = 8, 0
    while position + 12 <= size:
        count += 1
        if count > max_parts:
            raise TooManyPartsError("it has too many parts")
        content.seek(position)
        length, name = struct.unpack(">I4s", content.read(8))
        if position + 12 + length > size:
            return
        yield name, position, length
        position += 12 + length


def _check_sum(content: IO[bytes], begin: int, length: int) -> None:
    content.seek(begin)
    crc, left = 0, length
    while left > 0 and (data := content.read(min(left, _CHUNK_BYTES))):
        crc = zlib.crc32(data, crc)
        left -= len(data)
    if content.read(4) != struct.pack(">I", crc):
        raise damaged_image()


# --- WebP

_WEBP_KEPT = frozenset({b"VP8 ", b"VP8L", b"ALPH", b"ICCP"})
_WEBP_ANIMATED, _WEBP_METADATA_FLAGS = 0x02, 0x0C


def _read_webp(content: IO[bytes], size: int, max_parts: int) -> ImageStructure:
    """Read the chunks of the container; EXIF, XMP and unknown chunks are left out, with their flags in the header."""
    found = ImageStructure(ImageInfo("image/webp", 0, 0))
    content.seek(4)
    (declared,) = struct.unpack("<I", content.read(4))
    end = min(declared + 8, size)
    exif = xmp = b""
    position, total, count, has_pixels = 12, 4, 0, False
    while position + 8 <= end:
        count += 1
        content.seek(position)
        name, length = struct.unpack("<4sI", content.read(8))
        padded = length + length % 2
        if count > max_parts:
            raise TooManyPartsError("it has too many parts")
        if position + 8 + length > end:
            raise damaged_image()
        has_pixels |= name in {b"VP8 ", b"VP8L", b"ANMF"}
        body = content.read(min(length, _MAX_METADATA_BYTES if name in {b"EXIF", b"XMP "} else 10))
        if name == b"VP8X":
            flags, found.info = body[0], ImageInfo("image/webp", *_canvas(body))
            found.unusual = bool(flags & _WEBP_ANIMATED)
            found.parts.append(struct.pack("<4sI", name, 10) + bytes([flags & ~_WEBP_METADATA_FLAGS]) + body[1:10])
            total += 18
        elif name in _WEBP_KEPT:
            if not found.info.width and name in {b"VP8 ", b"VP8L"}:
                found.info = ImageInfo("image/webp", *_simple_webp_size(name, body))
            found.parts.append((position, 8 + length))
            found.parts.append(b"\x00" * (length % 2))
            total += 8 + padded
        else:
            exif, xmp = (body, xmp) if name == b"EXIF" else (exif, body if name == b"XMP " else xmp)
            found.private |= name not in {b"ANIM", b"ANMF"}
        position += 8 + padded
    # A missing last byte of padding is a common fault of encoders, and harmless.
    if not has_pixels or declared + 8 > size + 1:
        raise damaged_image()
    found.private |= size - end > _MAX_IGNORED_TAIL
    found.parts.insert(0, struct.pack("<4sI4s", b"RIFF", total, b"WEBP"))
    found.orientation = _orientation(exif, xmp)
    return found


def _canvas(body: bytes) -> tuple[int, int]:
    return int.from_bytes(body[4:7], "little") + 1, int.from_bytes(body[7:10], "little") + 1


def _simple_webp_size(name: bytes, body: bytes) -> tuple[int, int]:
    if name == b"VP8L":
        bits = int.from_bytes(body[1:5], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    width, height = struct.unpack_from("<HH", body, 6)
    return width & 0x3FFF, height & 0x3FFF


_READERS: tuple[tuple[re.Pattern[bytes], Callable[[IO[bytes], int, int], ImageStructure]], ...] = (
    (re.compile(rb"\xff\xd8\xff"), _read_jpeg),
    (re.compile(rb"\x89PNG\r\n\x1a\n"), _read_png),
    (re.compile(rb"RIFF....WEBP", re.DOTALL), _read_webp),
)
