"""The bare script that the pipeline is measured against: asyncio and httpx, a fixed interval, and nothing else.

What somebody writes in an afternoon: submit, look every so often, download. It keeps no ledger, checks no photo and no
video, survives no crash, and is shown in no dashboard. `python -m tests.benchmarks.bare JOBS PHOTO FOLDER INTERVAL_S`.
"""

from __future__ import annotations

import asyncio
import base64
import json
import sys
import time
from pathlib import Path
from urllib.parse import quote

import httpx

from tasks.settings import load_settings

ROUTE = "/v2/generate/video/kling/generation"
BODY = {"model": "klingai/kling-video-v1.6-pro-effects", "effect_scene": "squish", "duration": 5}


async def main(jobs: int, photo: Path, folder: Path, interval_s: float) -> None:
    """All jobs at once; prints a JSON document: the wall time, and when each video was seen (seconds since 1970)."""
    settings = load_settings()
    headers = {"Authorization": f"Bearer {settings.require_key()}"}
    limits = httpx.Limits(max_connections=100)
    seen: dict[str, float] = {}

    async def one(client: httpx.AsyncClient) -> None:
        image = f"data:image/jpeg;base64,{base64.b64encode(photo.read_bytes()).decode()}"
        answer = await client.post(ROUTE, json={**BODY, "image_url": image})
        generation = answer.raise_for_status().json()["id"]
        while True:
            await asyncio.sleep(interval_s)
            look = (await client.get(f"{ROUTE}?generation_id={quote(generation, safe='')}")).raise_for_status().json()
            if look["status"] == "completed":
                break
            if look["status"] == "error":
                raise RuntimeError(look)
        seen[generation] = time.time()
        video = (await client.get(look["video"]["url"], follow_redirects=True)).raise_for_status()
        (folder / f"{len(seen)}.mp4").write_bytes(video.content)

    started = time.monotonic()
    async with httpx.AsyncClient(base_url=settings.api_url, headers=headers, limits=limits, timeout=120) as client:
        await asyncio.gather(*(one(client) for _ in range(jobs)))
    sys.stdout.write(json.dumps({"wall_s": time.monotonic() - started, "seen": seen}))


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), float(sys.argv[4])))
