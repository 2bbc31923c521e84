"""XML that a stranger made, in one pass and in little memory."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from xml.parsers import expat

from csv_io.errors import TableError

Begin = Callable[[str, Mapping[str, str]], None]
End = Callable[[str, str], None]

DEPTH, NAMES = 64, 1000
TEXT_BYTES = 2**24  # of one text: no cell is longer
ENCODINGS = frozenset({"utf-8", "utf-16", "us-ascii", "iso-8859-1"})  # that need no codec
TAG_BYTES = 2**20  # of one tag, which is looked at again from its start with each block


def read_xml(blocks: Iterable[bytes], begin: Begin, end: End) -> None:
    """Do all of `events`."""
    for _ in events(blocks, begin, end):
        pass


def events(blocks: Iterable[bytes], begin: Begin, end: End) -> Iterator[None]:
    """Call `begin` with each tag and its attributes, and `end` with the text before its end.

    Names come without their namespaces. It pauses after each block.

    Raises:
        TableError: it is not XML, or is too deep, or has a text or a tag that is too long.
    """
    return _Reader(begin, end).read(blocks)


class _Names(dict[str, str]):
    """Names without their namespaces, each made once; few differ."""

    def __missing__(self, name: str) -> str:
        short = name.rpartition("}")[2]
        if len(self) < NAMES:
            self[name] = short
        return short


class _Reader:
    def __init__(self, begin: Begin, end: End) -> None:
        self._begin, self._end = begin, end
        self._names = _Names()
        self._text: list[str] = []
        self._size = self._depth = 0
        parser = expat.ParserCreate(namespace_separator="}")
        parser.buffer_text = True
        parser.StartElementHandler = self._on_begin
        parser.EndElementHandler = self._on_end
        parser.CharacterDataHandler = self._on_text
        parser.XmlDeclHandler = self._on_declaration
        parser.StartDoctypeDeclHandler = self._on_doctype
        self._parser = parser

    def read(self, blocks: Iterable[bytes]) -> Iterator[None]:
        fed = 0
        try:
            for block in blocks:
                self._parser.Parse(block, False)  # noqa: FBT003 - takes no keyword
                fed += len(block)
                if fed - self._parser.CurrentByteIndex > TAG_BYTES + len(block):
                    raise TableError(f"a tag of it is over {TAG_BYTES // 2**20} MB")
                yield
            self._parser.Parse(b"", True)  # noqa: FBT003 - takes no keyword
        except expat.ExpatError as error:
            raise TableError(f"a part of it is damaged: {error}") from error

    def _on_begin(self, name: str, attributes: Mapping[str, str]) -> None:
        self._depth += 1
        if self._depth > DEPTH:
            raise TableError(f"a part of it has tags in over {DEPTH} others")
        if self._text:
            self._text.clear()
            self._size = 0
        self._begin(self._names[name], attributes)

    def _on_end(self, name: str) -> None:
        self._depth -= 1
        if not self._text:
            self._end(self._names[name], "")
            return
        self._end(self._names[name], "".join(self._text))
        self._text.clear()
        self._size = 0

    def _on_text(self, text: str) -> None:
        self._size += len(text)
        if self._size > TEXT_BYTES:
            raise TableError(f"a text in it is over {TEXT_BYTES // 2**20} MB")
        self._text.append(text)

    def _on_declaration(self, _version: str, encoding: str | None, _standalone: int) -> None:
        if encoding and encoding.lower() not in ENCODINGS:
            raise TableError("a part of it is in another encoding than UTF-8; save it anew")

    def _on_doctype(self, *_: object) -> None:
        raise TableError("a part of it declares a document type, which no workbook does")
