"""What every request passes: who may ask, what a browser may do with the answer, and the count."""

from __future__ import annotations

import hmac
import time
from collections.abc import Sequence
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..text import to_json
from .metrics import Metrics

# A page may load from here alone, run no script and no style but the files of the service, and be
# shown in no frame. Pictures that it has made itself are blobs.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "media-src 'self' blob:; connect-src 'self'; manifest-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
    "Cache-Control": "no-store",
}
SHOWN = "other"  # what the count calls a path that is not there


class Guard:
    """A layer around an application.

    Args:
        app: the application.
        metrics: counts.
        token: secret of those who may ask; None: everybody may.
        hosts: names under which the service may be called; None: any.
        paths: those that are counted singly.
        free: those of them that need no secret: they hold none of the answers.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        metrics: Metrics,
        token: bytes | None,
        hosts: Sequence[str] | None,
        paths: Sequence[str],
        free: Sequence[str],
    ) -> None:
        self.app, self._metrics, self._token = app, metrics, token
        self._hosts = None if hosts is None else {host.lower() for host in hosts}
        self._paths, self._free = frozenset(paths), frozenset(free)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start, status = time.perf_counter(), 500
        path = scope["path"].removeprefix(scope.get("root_path", "")) or "/"

        async def told(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        try:
            refused = self._refusal(Headers(scope=scope), path)
            # What only wants to know whether there is something: the server sends no body.
            seen = {**scope, "method": "GET"} if scope["method"] == "HEAD" else scope
            await (refused or self.app)(seen, receive, told)
        finally:
            shown = path if path in self._paths else SHOWN
            self._metrics.request(shown, status, time.perf_counter() - start)

    def _refusal(self, headers: Headers, path: str) -> Response | None:
        host = headers.get("host", "")
        if self._hosts is not None and _name(host) not in self._hosts:
            return _refused(
                421, f"this service is not called so; it knows {', '.join(sorted(self._hosts))}"
            )
        origin = headers.get("origin")
        if origin is not None and _place(origin) != host.lower():
            return _refused(403, "the pages of another site may not ask this service")
        if self._token is None or path in self._free:
            return None
        kind, _, given = headers.get("authorization", "").partition(" ")
        right = hmac.compare_digest(given.strip().encode("utf-8", "replace"), self._token)
        if kind.lower() == "bearer" and right:
            return None
        refused = _refused(401, "this service has a token: send it as Authorization: Bearer TOKEN")
        refused.headers["WWW-Authenticate"] = "Bearer"
        return refused


def _name(host: str) -> str:
    """Return the name in a header Host, without the port; "" for what is none."""
    try:
        return (urlsplit(f"//{host}").hostname or "") if "@" not in host else ""
    except ValueError:
        return ""


def _place(origin: str) -> str:
    """Return the name and port in a header Origin; "" for what is none."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""


def _refused(status: int, text: str) -> Response:
    return Response(to_json({"error": text}), status, media_type="application/json")
