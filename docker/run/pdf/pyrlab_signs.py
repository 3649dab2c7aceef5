"""Which characters of a text a PDF of Typst's shows as boxes, since no font has them, and what mends that."""

import re
import unicodedata
import zlib
from pathlib import Path

import typst

STREAM = re.compile(rb"stream\r?\n(.*?)\r?\nendstream", re.DOTALL)
BOX = re.compile(rb"^<0000> <(?!FFFF>)", re.MULTILINE)  # sign 0 of every font, where a character is mapped to it
INSTALLED = Path("/var/lib/dpkg/info")
CJK = ("CJK", "HIRAGANA", "KATAKANA", "HANGUL", "BOPOMOFO", "IDEOGRAPHIC", "FULLWIDTH", "HALFWIDTH", "KANGXI")
MOST = 20  # that are named


def complaints(text: str, pdf: bytes) -> list[str]:
    """A sentence for each Debian package of fonts with which the PDF of `text` would have lost nothing."""
    if not has_box(pdf):
        return []
    fonts = typst.Fonts()
    lost: dict[str, str] = {}
    for sign in dict.fromkeys(text):
        if is_visible(sign) and has_box(typst.compile(sign.encode(), font_paths=fonts)):
            lost[package(sign)] = lost.get(package(sign), "") + sign
    return [sentence(signs, name) for name, signs in lost.items()]


def has_box(pdf: bytes) -> bool:
    """Whether there is a box in place of some character."""
    return any(BOX.search(unpacked(match[1])) for match in STREAM.finditer(pdf))


def unpacked(stream: bytes) -> bytes:
    """What a stream of a PDF has, compressed or not."""
    try:
        return zlib.decompress(stream)
    except zlib.error:
        return stream


def is_visible(sign: str) -> bool:
    """Whether a character has a shape of its own, and not one that every font of Typst's has."""
    return sign > "\x7f" and unicodedata.category(sign)[0] not in "CZ" and "VARIATION" not in unicodedata.name(sign, "")


def package(sign: str) -> str:
    """The Debian package whose fonts have a character."""
    if unicodedata.name(sign, "").startswith(CJK):
        return "fonts-noto-cjk"
    return "fonts-noto-color-emoji" if sign >= "\U0001f000" else "fonts-noto-core"


def sentence(signs: str, name: str) -> str:
    """What a user should know of lost characters."""
    shown = signs[:MOST] + ("…" if len(signs) > MOST else "")
    advice = "" if (INSTALLED / f"{name}.list").exists() else f"; add {name} to base_debs.txt"
    return f"the PDF lacks signs for {shown}: no installed font has them{advice}"
