"""The sandbox's scenes by name: how many photos each takes, what moves in it and what is heard.

They imitate a provider's effects well enough to be told from one another by looking at a few frames.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from PIL import Image, ImageOps

from deployments.sandbox import pairs, singles, stage


@dataclass(frozen=True)
class Scene:
    """One effect.

    Attributes:
        images: how many photos it takes; None: one or two.
        frames: makes its RGB frames out of RGB photos and the length in seconds; all of one size, of even sides.
        sound: makes its sound track out of the length in seconds (see `sound`); None: silent.
    """

    images: int | None
    frames: Callable[[Sequence[Image.Image], int], stage.Frames]
    sound: Callable[[int], bytes] | None = None


def generic(photos: Sequence[Image.Image], seconds: int) -> stage.Frames:
    """The photo, or two side by side, under a slow zoom: for scenes that the sandbox does not know how to play."""
    size = stage.single_size(photos[0]) if len(photos) == 1 else stage.PAIR_SIZE
    width, height = size[0] // len(photos), size[1]
    # Larger than the frame, so that the zoom does not blur.
    panes = [ImageOps.fit(photo, (width * 5 // 4, height * 5 // 4), Image.Resampling.LANCZOS) for photo in photos]
    for moment in stage.clock(seconds):
        margin = 0.09 * stage.ease(moment / seconds)
        frame = Image.new("RGB", size)
        for index, pane in enumerate(panes):
            box = (margin * pane.width, margin * pane.height, (1 - margin) * pane.width, (1 - margin) * pane.height)
            frame.paste(pane.resize((width, height), Image.Resampling.BILINEAR, box), (index * width, 0))
        yield frame


SCENES = {
    "hug": Scene(2, pairs.hug),
    "kiss": Scene(2, pairs.kiss),
    "heart_gesture": Scene(2, pairs.heart_gesture),
    "squish": Scene(1, singles.squish, singles.squish_sound),
    "expansion": Scene(1, singles.expansion, singles.expansion_sound),
}
OTHER = Scene(None, generic)
