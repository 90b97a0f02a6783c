"""Sounds of the sandbox's videos, synthesised with the standard library: 16-bit mono, `RATE` samples a second."""

import math
from array import array
from collections.abc import Iterator, Sequence

RATE = 22_050
_PEAK = 32_000


def squish(seconds: int, presses: Sequence[float]) -> bytes:
    """Something soft and wet that is pressed flat: at each of `presses` (seconds from the start) and as it lets go.

    Returns:
        ``seconds * RATE`` samples, of 2 bytes in the machine's own order.
    """
    track = array("h", bytes(2 * seconds * RATE))
    # One press is synthesised once and laid at each moment: nine tenths of the work saved, and heard by nobody.
    press = _squelch()
    for moment in presses:
        start = round(moment * RATE)
        part = press[: max(0, len(track) - start)]
        track[start : start + len(part)] = part
    return track.tobytes()


def expansion(seconds: int, inflated: float, puff: float) -> bytes:
    """A balloon that is pumped up: a hiss every `puff` seconds and a tone that rises until `inflated` seconds.

    Afterwards it hums, softly wobbling, and fades out.

    Returns:
        ``seconds * RATE`` samples, of 2 bytes in the machine's own order.
    """
    track = array("h", bytes(2 * seconds * RATE))
    noise = _noise()
    phase = pitch = loudness = hiss = hum = 0.0
    for index in range(len(track)):
        if index % 64 == 0:  # the slow curves need not be worked out at every sample
            moment = index / RATE
            grown = min(1.0, moment / inflated)
            after = max(0.0, moment - inflated)
            stroke = max(0.0, math.sin(math.pi * (moment / puff % 1.0))) if after == 0 else 0.0
            wobble = math.sin(math.tau * 3.2 * after) * math.exp(-0.9 * after)
            pitch = math.tau * (150 + 430 * grown * grown + 25 * stroke + 40 * wobble) / RATE
            hiss = 0.30 * stroke * stroke
            hum = 0.16 * grown * (0.45 + 0.55 * stroke) if after == 0 else 0.17 * math.exp(-1.1 * after)
            loudness = _PEAK * min(1.0, moment / 0.05, (seconds - moment) / 0.2)
        phase += pitch
        tone = math.sin(phase + 0.6 * math.sin(phase))
        track[index] = int(loudness * (hum * tone + hiss * next(noise)))
    return track.tobytes()


def _squelch() -> "array[int]":
    """0.95 s: filtered noise and bubbles that sink in pitch, then a short rising pop as the body springs back."""
    samples = array("h")
    noise = _noise()
    low = phase = 0.0
    for index in range(round(0.95 * RATE)):
        moment = index / RATE
        pressed = max(0.0, 1 - abs(moment - 0.25) / 0.22)
        freed = max(0.0, 1 - abs(moment - 0.62) / 0.16)
        # A one-pole low-pass that opens and closes quickly: what makes noise sound wet.
        wet = 0.5 + 0.5 * math.sin(math.tau * (19 + 16 * moment) * moment)
        low += (0.06 + 0.30 * wet) * (next(noise) - low)
        phase += math.tau * max(210 - 330 * moment, 60 + 900 * (moment - 0.45)) / RATE
        blob = math.sin(phase)
        level = (0.75 * wet * low + 0.35 * blob) * pressed**1.5 + (0.45 * wet * low + 0.5 * blob) * freed**2
        samples.append(int(_PEAK * max(-1.0, min(1.0, level))))
    return samples


def _noise() -> Iterator[float]:
    """White noise, -1 to 1, the same at every run."""
    state = 1
    while True:
        state = (state * 1_103_515_245 + 12_345) & 0x7FFF_FFFF
        yield state / 0x3FFF_FFFF - 1
