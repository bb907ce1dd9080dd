"""Numbers about the service, for Prometheus."""

from __future__ import annotations

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from starlette.responses import Response
from starlette.types import Scope

from scumble.serve.jobs import STATES, Jobs
from scumble.serve.service import PaintService

BUCKETS = (0.01, 0.03, 0.1, 0.2, 0.3, 0.5, 1, 2, 5, 10, 30, 60, 120)


class Telemetry:
    """Metrics of one service, in a registry of their own."""

    def __init__(self, service: PaintService, jobs: Jobs) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self.requests = Counter("scumble_requests", "Requests answered", ("method", "route", "status"), registry=self.registry)
        self.seconds = Histogram("scumble_request_seconds", "Time to answer", ("route",), registry=self.registry, buckets=BUCKETS)
        self.painted = Counter("scumble_painted_pixels", "Pixels painted by the API", registry=self.registry)
        self._gauge("scumble_slots", "Pictures that can be painted or wait").set(service.slots.room)
        self._gauge("scumble_slots_taken", "Pictures being painted or waiting").set_function(lambda: service.slots.taken)
        self._gauge("scumble_styles_encoded", "Styles read or encoded since the start").set_function(lambda: service.styles_encoded)
        self._gauge("scumble_ready", "Whether the nets are loaded").set_function(service.ready.is_set)
        self._gauge("scumble_jobs_bytes", "Disk taken by jobs").set_function(jobs.store.used)
        states = Gauge("scumble_jobs", "Jobs by state", ("state",), registry=self.registry)
        for state in STATES:
            states.labels(state).set_function(lambda state=state: jobs.store.count(state))

    def _gauge(self, name: str, help: str) -> Gauge:
        return Gauge(name, help, registry=self.registry)

    def observe(self, scope: Scope, status: int, seconds: float) -> None:
        """One response: by its route and not by its path, of which anybody can make as many as they like."""
        route = getattr(scope.get("route"), "path", None) or "page"
        method = scope["method"] if scope["method"] in ("GET", "HEAD", "POST", "DELETE", "PUT", "PATCH", "OPTIONS") else "other"
        self.requests.labels(method, route, str(status)).inc()
        self.seconds.labels(route).observe(seconds)

    def response(self) -> Response:
        """All of it, in Prometheus' text format."""
        return Response(generate_latest(self.registry), media_type=CONTENT_TYPE_LATEST)
