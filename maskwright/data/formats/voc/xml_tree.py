"""Small XML files as plain trees that know their lines; what XML can do to a reader is refused.

Python's own `xml.etree` forgets the line of an element. This reads with the same parser (expat),
within limits of size and depth. Entities cannot be declared, so none can grow or fetch
a file ("billion laughs", external entities).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from xml.parsers import expat

MAX_BYTES = 8 * 2**20  # some 20,000 objects in one image
MAX_LARGE = 2**32  # of files of many images
BLOCK = 2**20
MAX_DEPTH = 64
MAX_TEXT = 10_000  # characters of one element; what follows is not kept


class BadXml(ValueError):  # noqa: N818 - an outcome of reading, caught by the reader
    """A file that cannot be used; the text begins with file and line."""


@dataclass(slots=True)
class Node:
    """One element.

    Attributes:
        tag: its name.
        line: where it begins, from 1.
        text: all text directly inside, without blanks at both ends.
        children: the elements directly inside.
        attributes: what stands in its tag, by name.
    """

    tag: str
    line: int
    text: str = ""
    children: list[Node] = field(default_factory=list)
    attributes: dict[str, str] = field(default_factory=dict)

    def child(self, *path: str) -> Node | None:
        """Return the first element under this path of tags, None if there is none."""
        node = self
        for tag in path:
            below = next((one for one in node.children if one.tag == tag), None)
            if below is None:
                return None
            node = below
        return node

    def all(self, tag: str) -> list[Node]:
        """Return the children of this name."""
        return [one for one in self.children if one.tag == tag]


def read_xml(path: Path) -> Node:
    """Return the root element of an XML file.

    Raises:
        BadXml: if the file is missing, no XML, cut off, too large, nested too deeply, or declares
            entities.
    """
    if path.exists() and path.is_file() and path.stat().st_size > MAX_BYTES:
        raise BadXml(f"{path} has more than {MAX_BYTES} bytes: no annotation of one image")
    reader = _Reader(path)
    for _ in reader.read():
        pass
    return reader.top.children[0]


def xml_elements(path: Path, root: str) -> Iterator[Node]:
    """Yield the elements directly inside the root, one by one: the file may be of any size.

    Args:
        path: the file.
        root: the tag that its root must have.

    Raises:
        BadXml: see `read_xml`; or if the root is another.
    """
    reader = _Reader(path, MAX_LARGE)
    for _ in reader.read():
        for top in reader.top.children[:1]:
            if top.tag != root:
                raise BadXml(f"{path}:{top.line}: expected <{root}>, got <{top.tag[:80]}>")
            closed = len(top.children) - (len(reader.open) > 2)
            yield from top.children[:closed]
            del top.children[:closed]


class _Reader:
    """An XML file while it is read; `open` are the elements that have not ended, from `top` on."""

    def __init__(self, path: Path, most: int = MAX_BYTES) -> None:
        self.path = path
        self.most = most
        self.top = Node("", 0)
        self.open = [self.top]
        self.parser = expat.ParserCreate()
        self.parser.buffer_text = True
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end
        self.parser.CharacterDataHandler = self._text
        self.parser.EntityDeclHandler = self._declared

    def read(self) -> Iterator[None]:
        """Read the file in blocks, and stop after each.

        Raises:
            BadXml: see `read_xml`.
        """
        path = self.path
        try:
            if path.exists() and not path.is_file():
                raise BadXml(f"{path} is a folder, a pipe or a device, not an XML file")
            if path.stat().st_size > self.most:
                raise BadXml(f"{path} has more than {self.most} bytes: divide it")
            with path.open("rb") as file:
                last = False
                while not last:
                    block = file.read(BLOCK)
                    last = len(block) < BLOCK
                    self._parse(block, last)
                    yield
        except OSError as error:
            raise BadXml(f"cannot read {path}: {error.strerror or error}") from None

    def _parse(self, block: bytes, last: bool) -> None:
        try:
            self.parser.Parse(block, last)
        except expat.ExpatError as error:
            reason = expat.errors.messages.get(error.code, str(error))
            raise BadXml(
                f"{self.path}:{error.lineno}: no valid XML ({reason}): it may be cut off; export "
                "or copy it again"
            ) from None
        except BadXml:
            raise
        except (LookupError, ValueError) as error:  # an encoding that is unknown
            raise BadXml(f"{self.path}: no valid XML ({error}): save it as UTF-8") from None

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        line = self.parser.CurrentLineNumber
        if len(self.open) > MAX_DEPTH:
            raise BadXml(f"{self.path}:{line}: nested too deeply to be read")
        node = Node(tag, line, attributes=attributes)
        self.open[-1].children.append(node)
        self.open.append(node)

    def _end(self, _: str) -> None:
        node = self.open.pop()
        node.text = node.text.strip()

    def _text(self, content: str) -> None:
        if len(self.open[-1].text) < MAX_TEXT:
            self.open[-1].text += content

    def _declared(self, *_: object) -> None:
        raise BadXml(
            f"{self.path}:{self.parser.CurrentLineNumber}: declares an entity, which annotations "
            "do not need and attacks do: remove the DOCTYPE"
        )
