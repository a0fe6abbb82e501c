"""From the body of a request to the bytes of its images, under the limits of the service.

The bytes are all that is taken from a client: no path and no address is opened, and the name of a
file is a text for the answer.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request

from ..text import one_line
from .limits import GUESTS, Limits, RefusedError

FIELDS = 64  # of a form, beside its files
FIELD_BYTES = 2**20
NAME = 200  # characters


@dataclass(frozen=True)
class Upload:
    """An image as it came.

    Attributes:
        name: what it is called in the answer; no path.
        data: its bytes.
    """

    name: str
    data: bytes


@dataclass(frozen=True)
class Body:
    """What a request holds.

    Attributes:
        files: images.
        fields: texts of a form by name.
    """

    files: list[Upload]
    fields: dict[str, str] = field(default_factory=dict)


class Gate:
    """Lets bodies in: each up to a limit, all together up to another."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._held = 0

    @contextmanager
    def body(self, request: Request) -> Iterator[Request]:
        """Give the request as it is to be read: its bytes are counted while they come.

        Raises:
            RefusedError: if it has too many, or others hold too many.
        """
        most = self.limits.bytes
        told = request.headers.get("content-length", "")
        if told.isdigit() and int(told) > most:
            raise self._too_large()
        taken = 0

        async def receive() -> Any:
            nonlocal taken
            message = await request.receive()
            count = len(message.get("body", b""))
            taken += count
            self._held += count
            if taken > most:
                raise self._too_large()
            if self._held > GUESTS * most:
                raise RefusedError(429, "too many images are being sent at once: ask again", 1)
            return message

        try:
            yield Request(request.scope, receive)
        finally:
            self._held -= taken

    def _too_large(self) -> RefusedError:
        return RefusedError(
            413, f"the request has more than {self.limits.megabytes:g} MB, which is the limit here"
        )


async def read_body(request: Request, limits: Limits) -> Body:
    """Return the images of a request: its whole body, or the files of a form.

    Args:
        request: as `Gate` gives it.
        limits: of the service.

    Raises:
        RefusedError: if there is none, or what is there is no image by its kind.
    """
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    try:
        if kind == "multipart/form-data":
            body = await _read_form(request, limits)
        elif kind in ("", "application/octet-stream") or kind.startswith("image/"):
            data = b"".join([part async for part in request.stream()])
            body = Body([Upload("image", data)] if data else [])
        else:
            raise RefusedError(
                415,
                f"Content-Type {one_line(kind[:60])} is not taken: send the bytes of an image as "
                "the body, or files in multipart/form-data; paths and addresses are never opened",
            )
    except ClientDisconnect:
        raise RefusedError(499, "the client has gone") from None
    if not body.files:
        raise RefusedError(
            400, "no image: send its bytes as the body, or as a file in multipart/form-data"
        )
    return body


async def _read_form(request: Request, limits: Limits) -> Body:
    try:
        form = request.form(max_files=limits.files, max_fields=FIELDS, max_part_size=FIELD_BYTES)
        async with form as parts:
            files, fields = [], []
            for name, value in parts.multi_items():
                if not isinstance(value, UploadFile):
                    fields.append((name, value))
                elif (data := await value.read()) or value.filename:  # else a form not filled in
                    files.append(Upload(plain_name(value.filename or ""), data))
            return Body(files, told_once(fields))
    except HTTPException as error:
        raise RefusedError(400, f"the form cannot be read: {one_line(str(error.detail))}") from None


def told_once(given: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return texts by name.

    Args:
        given: names and texts, in the address or a form.

    Raises:
        RefusedError: if a name has two texts: one of them would be lost.
    """
    told: dict[str, str] = {}
    for name, text in given:
        if told.setdefault(name, text) != text:
            both = " and ".join(repr(one_line(one[:40])) for one in (told[name], text))
            raise RefusedError(422, f"{one_line(name[:40])} is given twice, as {both}")
    return told


def plain_name(text: str) -> str:
    r"""Return the last part of a name, on one line and of a bounded length; "image" for none.

    Example:
        >>> plain_name("../../etc/passwd"), plain_name("C:\\photos\\a b.png"), plain_name("..")
        ('passwd', 'a b.png', 'image')
    """
    last = one_line(re.split(r"[/\\]", text)[-1].strip())[-NAME:]
    return last if last.strip(". ") else "image"
