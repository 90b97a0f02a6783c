"""The pipeline's side of the benchmark: the `generate-batch` flow in the configured server, timed from its start.

`python -m tests.benchmarks.piped MANIFEST`; what starting Python and importing Prefect take is measured elsewhere.
"""

from __future__ import annotations

import json
import sys
import time

from deployments.server import prefect_server, quieten


def main(manifest: str) -> None:
    """Run it; prints a JSON document: the wall time of the flow run, and the counts of its rows."""
    quieten()
    with prefect_server() as server:
        from flows.batch import generate_batch  # noqa: PLC0415 - after `quieten`
        from flows.outcomes import carried  # noqa: PLC0415
        from tasks.jobs import BatchSummary  # noqa: PLC0415

        async def run() -> tuple[float, BatchSummary]:
            started = time.monotonic()
            state = await generate_batch(manifest, return_state=True)
            return time.monotonic() - started, carried(state, BatchSummary)

        wall_s, summary = server.run(run)
    sys.stdout.write(json.dumps({"wall_s": wall_s, "counts": summary.counts}))


if __name__ == "__main__":
    main(sys.argv[1])
