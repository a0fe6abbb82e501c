"""The service as an application of FastAPI: `POST /predict`, and what is told of models and health.

It can be mounted in another application. Every answer that is no result is JSON with one sentence
under `error`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

try:
    import prometheus_client as prometheus_client  # without it and the next there is no request
    import python_multipart as python_multipart
    from fastapi import FastAPI, Request, Response
    from starlette.concurrency import run_in_threadpool
    from starlette.exceptions import HTTPException
except ImportError as error:
    raise ImportError(
        f"a service needs the package {error.name}: pip install 'maskwright[serve]'"
    ) from None

from .._version import __version__
from ..data.pixels.images import Header, image_header
from ..errors import OptionError, nearest
from ..paths import home_path
from ..prediction.memory import TooLittleMemoryError
from ..prediction.predictor import Predictor
from ..prediction.reading import Loaded, read
from ..prediction.sources import Source
from ..prediction.windows import own_window_warning
from ..tasks import tasks_with
from ..terminal import console
from ..text import one_line, printable, to_json
from .answers import JSON, choose_format, make_answer, plain
from .batching import Asked, Job, Worker
from .described import describe_get, describe_predict
from .guard import Guard
from .limits import Limits, RefusedError
from .metrics import TYPE, Metrics
from .options import NAMES, check_request, read_request
from .pages import FILES, add_page, find_samples
from .threads import single_threads
from .uploads import Gate, Upload, read_body, told_once

FREE = ("/health", *FILES)  # what needs no token: it holds nothing of a model or an answer
PATHS = ("/predict", "/models", "/metrics", "/openapi.json", "/samples", "/save", *FREE)
TOLD = "programs ask POST /predict, /models, /health and /metrics, and /docs has examples"
UNREAD = (413, 415, 429, 504)  # answers that may be given before the body has come
READERS, WRITERS = 2, 2  # threads that decode images, and such that make answers
LOOK = 0.1  # seconds between two looks at whether a client is still there


def create_app(
    predictors: Mapping[str, Predictor],
    limits: Limits | None = None,
    *,
    token: str | None = None,
    hosts: Sequence[str] | None = None,
    samples: str | Path | None = None,
    corrections: str | Path | None = None,
) -> FastAPI:
    """Return a service of models.

    Args:
        predictors: models by name; the first is the one that a request means if it names none.
        limits: bounds of the service; None: the usual ones.
        token: secret that a request must show as `Authorization: Bearer TOKEN`; None: none.
        hosts: names under which the service may be called, a guard against pages of others whose
            name leads here; None: any.
        samples: folder of images that the page offers; None: those of the package, for models of
            nuclei.
        corrections: folder of a COCO data set, into which the page saves what people correct; None:
            it does not.

    Raises:
        OptionError: if there is no model, the token is empty, or there are no samples.

    Example:
        >>> import maskwright as mw
        >>> app = create_app({"nuclei": mw.load("nuclei")})  # doctest: +SKIP
    """
    if not predictors:
        raise OptionError("a service needs a model")
    if token is not None and not token.strip():
        raise OptionError("token is empty: leave it out, or give a secret")
    names = list(dict.fromkeys(name for one in predictors.values() for name in one.names))
    offered = find_samples(samples, names)
    service = Service(predictors, limits or Limits())

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        await run_in_threadpool(service.close)

    app = FastAPI(
        title="maskwright",
        version=__version__,
        description="Send an image, get what a model finds in it.",
        docs_url=None,  # its page would come from elsewhere
        redoc_url=None,
        lifespan=lifespan,
    )
    app.state.service = service

    @app.post("/predict", summary="Look at images", openapi_extra=describe_predict())
    async def predict(request: Request) -> Response:
        return await service.predict(request)

    @app.get(
        "/models",
        summary="The models of this service, the usual one first",
        responses=describe_get(),
    )
    async def models(request: Request) -> Response:
        return _json({"models": service.models(), "saves": corrections is not None})

    @app.get("/health", summary="Whether the service answers", responses=describe_get(free=True))
    async def health(request: Request) -> Response:
        return _json({"status": "ok", "models": len(service.workers)})

    @app.get(
        "/metrics",
        summary="What the service counts, for Prometheus",
        responses=describe_get("text/plain"),
        response_class=Response,
    )
    async def metrics(request: Request) -> Response:
        return Response(service.metrics.text(), media_type=TYPE)

    kept = None if corrections is None else Path(home_path(corrections))
    add_page(app, service.limits, names, offered, kept)

    @app.exception_handler(HTTPException)
    async def refused(request: Request, error: HTTPException) -> Response:
        asked = f"{request.method} {one_line(request.url.path[:60])}"
        headers = error.headers or {}
        told = {
            404: f"there is nothing at {asked}; {TOLD}",
            405: f"{asked} is not answered here, {headers.get('Allow', '')} is",
        }
        answer = _error(error.status_code, told.get(error.status_code, f"{asked}: {error.detail}"))
        answer.headers.update(headers)
        return answer

    app.add_middleware(
        Guard,
        metrics=service.metrics,
        token=None if token is None else token.strip().encode(),
        hosts=hosts,
        paths=PATHS,
        free=FREE,
    )
    return app


class Service:
    """Models, and what happens to a request for one of them.

    Attributes:
        limits: its bounds.
        workers: what computes for each model, by name.
        metrics: what is counted.
    """

    def __init__(self, predictors: Mapping[str, Predictor], limits: Limits) -> None:
        self.limits, self.metrics = limits, Metrics()
        self._computer = ThreadPoolExecutor(1, "computer")
        self.workers = {
            name: Worker(name, one, limits, self.metrics, self._computer)
            for name, one in predictors.items()
        }
        self._explains = {name: _explains(one) for name, one in predictors.items()}
        self._gate = Gate(limits)
        self._readers = single_threads(READERS, "reader")
        self._writers = single_threads(WRITERS, "writer")
        self._pixels = Pixels(2 * limits.pixels)

    def close(self) -> None:
        """Compute what waits, and end all threads."""
        for worker in self.workers.values():
            worker.close()
        for pool in (self._computer, self._readers, self._writers):
            pool.shutdown()

    def models(self) -> list[dict[str, Any]]:
        """Return what there is to know of each model."""
        return [
            {
                "name": name,
                "model": worker.predictor.meta.model,
                "task": worker.predictor.task.name,
                "does": worker.predictor.task.does,
                "names": worker.predictor.names,
                "device": str(worker.predictor.device),
                "options": [
                    one
                    for one in NAMES
                    if one in worker.predictor.task.options or not tasks_with(one)
                ],
                "explains": self._explains[name],
            }
            for name, worker in self.workers.items()
        ]

    async def predict(self, request: Request) -> Response:
        """Answer a request; give it up when its time is over or its client has gone."""
        taken = asyncio.Event()
        work = asyncio.create_task(self._predict(request, taken))
        gone = asyncio.create_task(_left(request, taken))
        try:
            await asyncio.wait(
                {work, gone}, timeout=self.limits.deadline, return_when=asyncio.FIRST_COMPLETED
            )
            if work.done():
                return work.result()
            if gone.done():
                return _error(499, "the client has gone")
            return _error(
                504, f"no answer within {self.limits.deadline:g} s, the deadline of this service"
            )
        except RefusedError as error:
            return _error(error.status, str(error), error.wait)
        except OptionError as error:
            return _error(422, str(error))
        except Exception as error:
            status, text = _told(error)
            return _error(status, text)
        finally:
            for task in (work, gone):
                task.cancel()  # what has not been computed yet never is

    async def _predict(self, request: Request, taken: asyncio.Event) -> Response:
        query = told_once(request.query_params.multi_items())
        worker = self._worker(query.get("model"))
        worker.reserve(1)  # before anything is read
        places = 1
        try:
            with self._gate.body(request) as counted:
                body = await read_body(counted, self.limits)
                taken.set()
                given = told_once([*query.items(), *body.fields.items()])
                if self._worker(given.get("model")) is not worker:  # a field of the form says so
                    worker.release(places)
                    worker, places = self._worker(given["model"]), 0
                more = len(body.files) - places
                worker.reserve(more)
                places += more
                format = choose_format(given.get("format"), request.headers.get("accept", ""))
                if len(body.files) > 1 and format != "json":
                    raise RefusedError(422, f"format={format} is for one image: send them singly")
                asked = _asked(worker, given)
                jobs = [self._look(worker, one, asked) for one in body.files]
                if len(jobs) == 1:
                    result, notes = await jobs[0]
                    made = await self._write(make_answer, result, format, notes)
                    return Response(made[1], media_type=made[0])
                rows = await asyncio.gather(*map(self._or_error, jobs, body.files))
                return _json({"images": rows})
        finally:
            worker.release(places)

    def _worker(self, name: str | None) -> Worker:
        if name is None:
            return next(iter(self.workers.values()))
        if name not in self.workers:
            known = ", ".join(self.workers)
            raise RefusedError(
                404,
                f"there is no model {name[:60]!r}{nearest(name[:60], self.workers)}; there are "
                f"{known}",
            )
        return self.workers[name]

    async def _write(self, make: Callable[..., Any], *given: Any) -> Any:
        """Return an answer, made beside what is computed."""
        return await asyncio.get_running_loop().run_in_executor(self._writers, make, *given)

    async def _or_error(self, job: Any, upload: Upload) -> dict[str, Any]:
        """Return the result of one of several images, or why there is none."""
        try:
            result, notes = await job
            row: dict[str, Any] = await self._write(plain, result, notes)
            return row
        except Exception as error:
            return {"name": upload.name, "error": _told(error)[1]}

    async def _look(self, worker: Worker, upload: Upload, asked: Asked) -> tuple[Any, list[str]]:
        """Return the result of an image, and what there is to say of it."""
        run = asyncio.get_running_loop().run_in_executor
        outcome = "failed"
        try:
            header = await run(self._readers, _header, upload)
            self.limits.require_image(header.size, asked.rule, asked.settings)
            async with self._pixels.room(header.size[0] * header.size[1]):
                loaded = await run(self._readers, _loaded, upload, asked)
                job = Job(loaded, asked)
                worker.submit(job)
                found = await asyncio.wrap_future(job.result)
            result = replace(found, source_name=upload.name)
            notes = [
                printable(text)
                for text in worker.predictor.task.remarks(
                    [result], worker.predictor.model, asked.settings, set()
                )
            ]
            if loaded.deep and asked.reading.window is None:
                notes.append(own_window_warning(worker.predictor.meta.model))
            if loaded.odd:
                notes.append(loaded.odd)
            if header.frames > 1 and asked.reading.page is None:
                notes.append(f"of {header.frames} pages or frames only the first was looked at")
            if asked.explainer is not None and result.heatmap is None:
                notes.append("nothing was found that could be explained")
            elif asked.explainer is not None and not result.heatmap.any():
                notes.append("the heat map is empty: no place speaks more for it than another")
            outcome = "done"
            return result, notes
        except asyncio.CancelledError:
            outcome = "dropped"
            raise
        finally:
            self.metrics.image(worker.name, outcome)


class Pixels:
    """Room for decoded images: those that find none wait; one larger than all of it goes alone."""

    def __init__(self, most: int) -> None:
        self._most, self._used = most, 0
        self._changed = asyncio.Condition()

    @asynccontextmanager
    async def room(self, pixels: int) -> AsyncIterator[None]:
        """Hold so many pixels."""
        async with self._changed:
            await self._changed.wait_for(
                lambda: not self._used or self._used + pixels <= self._most
            )
            self._used += pixels
        try:
            yield
        finally:
            self._used -= pixels
            async with self._changed:
                self._changed.notify_all()


def _asked(worker: Worker, given: Mapping[str, str]) -> Asked:
    """Return what a request wants; errors say a model's name, not where its file lies."""
    options = read_request(given)
    try:
        return check_request(worker.predictor, options)
    except OptionError as error:
        file = getattr(worker.predictor.model, "source", None)  # of exported ones
        text = str(error)
        raise OptionError(text.replace(file, worker.name) if file else text) from None


def _explains(predictor: Predictor) -> bool:
    """Return whether a model can show what convinced it."""
    try:
        predictor.explainer("gradcam", None, predictor.resize_rule())
    except (OptionError, ValueError):
        return False
    return True


def _header(upload: Upload) -> Header:
    if not upload.data:
        raise ValueError(f"{upload.name} is empty: it has no bytes")
    try:
        return image_header(upload.data)
    except ValueError as error:
        raise _named(error, upload) from None


def _loaded(upload: Upload, asked: Asked) -> Loaded:
    try:
        source = Source(upload.data, upload.name, None, asked.reading.page)
        return read(source, asked.reading, asked.settings.tiling)
    except ValueError as error:
        raise _named(error, upload) from None


def _named(error: ValueError, upload: Upload) -> ValueError:
    """Return an error that names the image as its sender knows it."""
    text = str(error).removeprefix(f"{upload.name}: ")
    return ValueError(text.replace(f"image of {len(upload.data)} bytes", upload.name))


def _told(error: Exception) -> tuple[int, str]:
    """Return status and sentence of what went wrong with an image."""
    text = one_line(str(error))
    if isinstance(error, RefusedError):
        return error.status, text
    if isinstance(error, TooLittleMemoryError):
        return 413, text
    if isinstance(error, ValueError):
        return 422, text
    console.error(f"an image could not be computed: {type(error).__name__}: {text}")
    return 500, "the image could not be computed: the log of the service says why"


async def _left(request: Request, taken: asyncio.Event) -> None:
    """Return when the client has gone; while its body is being read, that tells so itself."""
    await taken.wait()
    while not await request.is_disconnected():
        await asyncio.sleep(LOOK)


def _error(status: int, text: str, wait: float | None = None) -> Response:
    headers = {} if wait is None else {"Retry-After": f"{wait:.0f}"}
    if status in UNREAD:
        headers["Connection"] = "close"  # or the rest of the body would still be taken
    return _json({"error": text}, status, headers)


def _json(data: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(to_json(data), status, dict(headers or {}), JSON)
