"""Where things lie in Pascal VOC folders: XML files, images, and the lists of ImageSets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

IMAGE_FOLDERS = ("JPEGImages", "images", "PNGImages")
MAX_LIST_BYTES = 64 * 2**20
NOT_IMAGES = (".xml", ".txt", ".json", ".csv")


@dataclass(frozen=True)
class VocPart:
    """One list of images of one VOC folder.

    Attributes:
        folder: the VOC folder, such as VOC2007.
        annotations: folder of its XML files.
        images: folder of its images.
        listing: text file with an id in every line; None: every XML file.
    """

    folder: Path
    annotations: Path
    images: Path
    listing: Path | None = None

    @property
    def source(self) -> Path:
        """What faults and errors name: the list, or the folder of the XML files."""
        return self.listing or self.annotations


def voc_part(listing: Path) -> VocPart:
    """Return the part that a list in ImageSets/Main (or .../Segmentation) stands for.

    Raises:
        ValueError: if the file does not lie in a VOC folder.
    """
    above = listing.absolute().parents[:3]
    folder = next((one for one in above if (one / "Annotations").is_dir()), above[0])
    return _part(folder, listing)


def voc_splits(path: Path) -> dict[str, list[VocPart]]:
    """Return the Pascal VOC lists below a folder by name: train, trainval, val, test, ...

    A folder is a VOC folder (Annotations, JPEGImages, ImageSets), one with several of these (such
    as VOCdevkit: lists of one name are united), one with XML files beside images, or one with such
    folders for the splits. Without lists the name is that of the folder.
    """
    found: dict[str, list[VocPart]] = {}
    if _has_xml(path / "Annotations"):
        folders = [path]
    else:
        below = sorted(entry for entry in path.iterdir() if entry.is_dir())
        below += sorted(e for e in (path / "VOCdevkit").glob("*") if e.is_dir())
        folders = [path] if _has_xml(path) else []
        folders += [one for one in below if _has_xml(one) or _has_xml(one / "Annotations")]
    for folder in folders:
        lists = [*(folder / "ImageSets/Main").glob("*.txt")]
        if not lists:
            lists = [*(folder / "ImageSets/Segmentation").glob("*.txt")]
        for listing in sorted(lists):
            found.setdefault(listing.stem, []).append(_part(folder, listing))
        if not lists:
            found.setdefault(folder.name, []).append(_part(folder, None))
    return found


def _part(folder: Path, listing: Path | None) -> VocPart:
    annotations = folder / "Annotations"
    if not annotations.is_dir():
        if not _has_xml(folder):
            raise ValueError(
                f"{listing or folder} belongs to no Pascal VOC folder: there is no "
                f"{folder / 'Annotations'} with XML files"
            )
        return VocPart(folder, folder, folder, listing)
    places = [folder / name for name in IMAGE_FOLDERS]
    return VocPart(
        folder, annotations, next((one for one in places if one.is_dir()), folder), listing
    )


def _has_xml(folder: Path) -> bool:
    return next(folder.glob("*.xml"), None) is not None


class ImageFiles:
    """Which files lie in a folder, listed once."""

    def __init__(self) -> None:
        self._folders: dict[Path, dict[str, list[str]]] = {}

    def _listed(self, folder: Path) -> dict[str, list[str]]:
        if folder not in self._folders:
            files: dict[str, list[str]] = {}
            for name in sorted(file.name for file in folder.iterdir()) if folder.is_dir() else ():
                files.setdefault(PurePosixPath(name).stem, []).append(name)
            self._folders[folder] = files
        return self._folders[folder]

    def stems(self, folder: Path, suffixes: Sequence[str] | None = None) -> set[str]:
        """Return the names without suffix of the files with one of these suffixes; None: images."""
        from PIL import Image

        wanted = set(Image.registered_extensions() if suffixes is None else suffixes)
        return {
            stem
            for stem, names in self._listed(folder).items()
            if any(PurePosixPath(name).suffix.lower() in wanted for name in names)
        }

    def find(self, folder: Path, name: str, named: str) -> Path:
        """Return the image of an id, whether it exists or not.

        Of several with its name (a.jpg, a.png), the one that the XML names, else a JPEG, else the
        first. Without any, the file that the XML names, if it is there.

        Args:
            folder: where the images lie.
            name: the id.
            named: the file name that the XML file gives.
        """
        place = (folder / name).parent
        files = self._listed(place)
        named = PurePosixPath(named.replace("\\", "/")).name
        having = [
            file
            for file in files.get(PurePosixPath(f"{name}.xml").stem, ())
            if PurePosixPath(file).suffix.lower() not in NOT_IMAGES
        ]
        if having:
            having.sort(key=lambda file: (file != named, not file.lower().endswith("jpg")))
            return place / having[0]
        if named in files.get(PurePosixPath(named).stem, ()):
            return place / named
        return folder / f"{name}.jpg"


def read_lines(path: Path) -> list[str]:
    """Return the lines of a text file, whatever their ends, without a byte order mark.

    Raises:
        ValueError: if it is missing, no text, or too large.
    """
    if path.exists() and not path.is_file():
        raise ValueError(f"{path} is a folder, a pipe or a device, not a text file")
    try:
        if path.stat().st_size > MAX_LIST_BYTES:
            raise ValueError(f"{path} has more than {MAX_LIST_BYTES} bytes: no list of names")
        return path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no text in UTF-8 ({error}): save it as UTF-8") from None


def listed_id(line: str, annotations: Path) -> str | None:
    """Return the id in a line of a list; None in an empty one, or for an image without the class.

    Lists of one class, such as aeroplane_train.txt, have a flag after the id: -1 where the image
    has no object of the class, 1 where it has, 0 where all are difficult. Files are taken for
    their id.
    """
    if not line or is_file(annotations / f"{line}.xml"):
        return line or None
    words = line.rsplit(maxsplit=1)
    if len(words) == 2 and words[1] in ("-1", "0", "1"):
        if words[1] == "-1":
            return None
        line = words[0]
    path = PurePosixPath(line)
    if path.suffix and not is_file(annotations / f"{line}.xml"):
        for name in (str(path.with_suffix("")), path.stem):  # a.jpg, JPEGImages/a.jpg
            if is_file(annotations / f"{name}.xml"):
                return name
    return line


def is_file(path: Path) -> bool:
    """Return True for a file that is there, whatever its name is made of."""
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that the file system refuses
        return False
