"""What a service counts of itself, in the text that Prometheus reads."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

TYPE = "text/plain; version=0.0.4; charset=utf-8"
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Metrics:
    """Counters of one service, apart from those of any other in this process."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self._requests = Counter(
            "maskwright_requests", "Requests answered.", ["path", "status"], registry=registry
        )
        self._images = Counter(
            "maskwright_images", "Images looked at.", ["model", "outcome"], registry=registry
        )
        self._stages = Histogram(
            "maskwright_stage_seconds",
            "Seconds of an image: waiting in the queue, being computed.",
            ["stage", "model"],
            buckets=SECONDS,
            registry=registry,
        )
        self._requested = Histogram(
            "maskwright_request_seconds",
            "Seconds from a request to its answer.",
            ["path"],
            buckets=SECONDS,
            registry=registry,
        )
        self._batches = Histogram(
            "maskwright_batch_images",
            "Images that were computed at once.",
            ["model"],
            buckets=(1, 2, 4, 8, 16, 32),
            registry=registry,
        )
        self._waiting = Gauge(
            "maskwright_waiting_images", "Images that wait.", ["model"], registry=registry
        )

    def request(self, path: str, status: int, seconds: float) -> None:
        """Count a request."""
        self._requests.labels(path, str(status)).inc()
        self._requested.labels(path).observe(seconds)

    def image(self, model: str, outcome: str) -> None:
        """Count an image, by what became of it."""
        self._images.labels(model, outcome).inc()

    def stage(self, stage: str, model: str, seconds: float) -> None:
        """Count the seconds of an image."""
        self._stages.labels(stage, model).observe(seconds)

    def batch(self, model: str, images: int) -> None:
        """Count a batch."""
        self._batches.labels(model).observe(images)

    def watch(self, model: str, waiting: Callable[[], float]) -> None:
        """Ask for the images that wait when somebody reads."""
        self._waiting.labels(model).set_function(waiting)

    def text(self) -> bytes:
        """Return all of it."""
        return generate_latest(self._registry)
