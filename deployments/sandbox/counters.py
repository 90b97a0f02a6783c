"""Counters: what reached the stand-in, and what it billed."""

from dataclasses import dataclass, field


@dataclass
class Counters:
    """Counts since the start, except `billed`, which a sandbox with a state directory remembers.

    Attributes:
        submissions: POSTs received, whatever became of them.
        billed: submissions that were accepted and paid for; a generation that fails later still counts.
        billed_by_client_request_id: the same by X-Client-Request-Id; those without a valid one are not in it.
        looks: polls received.
        logs: requests to /v2/logs.
        billing: requests to /v2/billing and its transactions.
        downloads: GETs of video links.
        files: files handed out whole and right.
        keys_leaked: requests with an Authorization header to the CDN or its storage.
        image_fetches: images asked for, data URIs included.
        peak_open: the most generations that were under way at one time, by the time they were to take.
        faults: faults that struck, by kind.
    """

    submissions: int = 0
    billed: int = 0
    billed_by_client_request_id: dict[str, int] = field(default_factory=dict)
    looks: int = 0
    logs: int = 0
    billing: int = 0
    downloads: int = 0
    files: int = 0
    keys_leaked: int = 0
    image_fetches: int = 0
    peak_open: int = 0
    faults: dict[str, int] = field(default_factory=dict)

    def bill(self, client_request_id: str | None) -> None:
        """Count one billed submission."""
        self.billed += 1
        if client_request_id is not None:
            seen = self.billed_by_client_request_id.get(client_request_id, 0)
            self.billed_by_client_request_id[client_request_id] = seen + 1

    def strike(self, kind: str) -> None:
        """Count one fault that struck."""
        self.faults[kind] = self.faults.get(kind, 0) + 1
