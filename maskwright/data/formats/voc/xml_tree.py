"""Small XML files as plain trees that know their lines; what XML can do to a reader is refused.

Python's own `xml.etree` forgets the line of an element. This reads with the same parser (expat), in
one go and within limits of size and depth. Entities cannot be declared, so none can grow or fetch
a file ("billion laughs", external entities).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from xml.parsers import expat

MAX_BYTES = 8 * 2**20  # some 20,000 objects in one image
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
    """

    tag: str
    line: int
    text: str = ""
    children: list[Node] = field(default_factory=list)

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
    try:
        if path.exists() and not path.is_file():
            raise BadXml(f"{path} is a folder, a pipe or a device, not an XML file")
        if path.stat().st_size > MAX_BYTES:
            raise BadXml(f"{path} has more than {MAX_BYTES} bytes: no annotation of one image")
        content = path.read_bytes()
    except OSError as error:
        raise BadXml(f"cannot read {path}: {error.strerror or error}") from None
    parser = expat.ParserCreate()
    parser.buffer_text = True
    top = Node("", 0)
    open_nodes = [top]

    def start(tag: str, _: object) -> None:
        if len(open_nodes) > MAX_DEPTH:
            raise BadXml(f"{path}:{parser.CurrentLineNumber}: nested too deeply to be read")
        node = Node(tag, parser.CurrentLineNumber)
        open_nodes[-1].children.append(node)
        open_nodes.append(node)

    def end(_: str) -> None:
        node = open_nodes.pop()
        node.text = node.text.strip()

    def text(content: str) -> None:
        if len(open_nodes[-1].text) < MAX_TEXT:
            open_nodes[-1].text += content

    def declared(*_: object) -> None:
        raise BadXml(
            f"{path}:{parser.CurrentLineNumber}: declares an entity, which annotations do not "
            "need and attacks do: remove the DOCTYPE"
        )

    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = text
    parser.EntityDeclHandler = declared
    try:
        parser.Parse(content, True)
    except expat.ExpatError as error:
        reason = expat.errors.messages.get(error.code, str(error))
        raise BadXml(
            f"{path}:{error.lineno}: no valid XML ({reason}): it may be cut off; export or copy "
            "it again"
        ) from None
    except BadXml:
        raise
    except (LookupError, ValueError) as error:  # an encoding that is unknown
        raise BadXml(f"{path}: no valid XML ({error}): save it as UTF-8") from None
    return top.children[0]
