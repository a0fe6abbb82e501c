"""What is wrong with an image file, whatever is annotated; and the same image a second time."""

from __future__ import annotations

import hashlib

import numpy as np

from ..pixels.images import image_header, load_image
from ..records import Dataset, Fault

Modes = dict[tuple[str, str], list[str]]  # split and Pillow's mode: files that are no 8-bit RGB


def check_file(dataset: Dataset, index: int, modes: Modes) -> tuple[list[Fault], np.ndarray | None]:
    """Decode an image.

    Args:
        dataset: the images.
        index: position of the image.
        modes: gets the file if it is not 8-bit RGB.

    Returns:
        what is wrong, and the pixels (H, W, 3) uint8; None if it cannot be read.
    """
    record = dataset[index]
    file = str(record.path)
    faults: list[Fault] = []

    def fault(kind: str, message: str, action: str) -> None:
        faults.append(Fault(file, record.image_id, None, kind, message, action))

    if record.stored:
        if record.channels == 1:
            modes.setdefault((dataset.split, "L"), []).append(record.path.name)
        return faults, dataset.image(index)
    known = record.size if min(record.size) else None
    try:
        header = image_header(record.path)
        pixels = load_image(record.path, size=known, page=dataset.page, channels=dataset.channels)
    except ValueError as error:
        fault("unreadable image", str(error), "error")
        return faults, None
    resized = known is not None and pixels.shape[:2] != known
    if resized or (dataset.channels is None and header.channels not in (1, 3)):
        try:
            dataset.image(index)
        except ValueError as error:
            message = str(error).partition(" (image id")[0]
            fault("image of another size" if resized else "other channels", message, "error")
    elif header.size != header.stored == known:
        message = (
            f"{file} is turned by its EXIF orientation, but was annotated unturned: read unturned"
        )
        fault("EXIF orientation", message, "repaired")
    if header.broken_exif:
        message = f"{file} has an EXIF block that cannot be read: its pixels are read unturned"
        fault("broken EXIF block", message, "kept")
    if header.frames > 1 and dataset.page is None:
        message = (
            f"{file} holds {header.frames} frames or pages: only the first is used; page= names one"
        )
        fault("several frames", message, "kept")
    if record.path.suffix.lower() not in header.suffixes:
        message = f"{file} is {header.format} by its content: other programs may refuse it"
        fault("wrong file suffix", message, "kept")
    if header.mode != "RGB" and not header.deep and header.channels in (1, 3):
        modes.setdefault((dataset.split, header.mode), []).append(record.path.name)
    return faults, pixels


class Twins:
    """Finds images that occur a second time.

    Attributes:
        shared: files of two splits that are the same, by the names of the splits.
    """

    def __init__(self) -> None:
        self.shared: dict[tuple[str, str], list[tuple[str, str]]] = {}
        self._first: dict[bytes, tuple[str, str, list[str]]] = {}

    def find(self, dataset: Dataset, index: int, pixels: np.ndarray | None) -> list[Fault]:
        """Return a fault for an image that is in its split already.

        Images of objects are compared byte for byte, images with labels by their pixels: those are
        copied from folder to folder and saved anew.

        Args:
            dataset: the images.
            index: position of the image.
            pixels: (H, W, 3) uint8; None: not readable, which is a fault already.
        """
        record = dataset[index]
        path = str(record.path)
        if dataset.records == "labels":
            if pixels is None:
                return []
            content = np.ascontiguousarray(pixels).data
            digest = hashlib.blake2b(content, key=repr(pixels.shape).encode()).digest()
        else:
            try:
                with record.path.open("rb") as stream:
                    digest = hashlib.file_digest(stream, "blake2b").digest()
            except OSError:
                return []
        labels = [] if record.image_labels is None else record.image_labels.tolist()
        names = [dataset.names[label] for label in labels]
        split, twin, others = self._first.setdefault(digest, (dataset.split, path, names))
        if split != dataset.split:
            self.shared.setdefault((dataset.split, split), []).append((path, twin))
        elif twin != path:
            message = f"{path} is the same image as {twin}: annotated twice?"
            if others != names:
                message += f" One is {', '.join(names)}, the other {', '.join(others)}"
            return [Fault(path, record.image_id, None, "duplicate image", message, "kept")]
        return []

    def notes(self) -> list[str]:
        """Return what to know of images that several splits have."""
        notes = []
        for (split, other), twins in self.shared.items():
            again, first = twins[0]
            where = "" if again == first else f", which is {first}"
            notes.append(
                f"{len(twins)} image(s) of {split} are also in {other}, first {again}{where}: "
                "scores on them tell nothing"
            )
        return notes
