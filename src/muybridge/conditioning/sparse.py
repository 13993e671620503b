"""Pictures of a few frames as the input of a SparseCtrl: what is known, zeros elsewhere, and where is which."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import torch
from PIL import Image
from torch import Tensor

from muybridge.errors import ConfigError, ShapeError
from muybridge.request.pictures import Picture, open_picture, resized
from muybridge.request.sizes import MAX_STRETCH, stretch_of


def place_pictures(pictures: Mapping[int, Picture], num_frames: int, height: int, width: int) -> dict[int, Image.Image]:
    """Read pictures with `open_picture`, and put them in the order of their frames.

    Args:
        pictures: by frame; negative indexes count from the end.
        num_frames: of the video.
        height: of the video in pixels.
        width: likewise.

    Returns:
        Pictures by frame from 0, in their own sizes.

    Raises:
        ConfigError: no pictures, two for one frame, or one that is partly transparent.
        ShapeError: a frame outside the video, or a picture of another aspect ratio (more than 2 % off).
        InputFileError: a picture that is missing, damaged, or none.
    """
    placed: dict[int, Image.Image] = {}
    given = placed_frames(pictures, num_frames)
    for frame, index in sorted(given.items()):
        placed[frame] = open_picture(pictures[index], f"The picture of frame {index}")
        check_aspect(placed[frame], index, height, width)
    return placed


def placed_frames(indexes: Collection[int], num_frames: int) -> dict[int, int]:
    """From each frame, from 0, to the index that means it.

    Raises:
        ConfigError: no indexes, or two for one frame.
        ShapeError: a frame outside the video.
    """
    if not indexes:
        raise ConfigError("There are no pictures; leave them out, or give one, as in {0: picture}.")
    given: dict[int, int] = {}
    for index in indexes:
        frame = index + num_frames if index < 0 else index
        if not 0 <= frame < num_frames:
            raise ShapeError(
                f"Frame {index} is outside the video, which has frames 0 to {num_frames - 1} (or {-num_frames} to -1, "
                "from the end)."
            )
        if frame in given:
            raise ConfigError(f"Indexes {given[frame]} and {index} both mean frame {frame}; give one picture for it.")
        given[frame] = index
    return given


def cropped_as_fitted(picture: Image.Image, fitted: tuple[int, int], size: tuple[int, int]) -> Image.Image:
    """The middle of a picture, in the aspect ratio of a video whose size was fitted to it.

    Args:
        picture: one of a request.
        fitted: (height, width) of the picture that the size was fitted to; a picture of another aspect ratio stays as
            it is, for nobody asked for it to be cropped.
        size: (height, width) of the video.
    """
    if stretch_of((picture.height, picture.width), fitted) > MAX_STRETCH:
        return picture
    width = min(picture.width, round(picture.height * size[1] / size[0]))
    height = min(picture.height, round(picture.width * size[0] / size[1]))
    left, top = (picture.width - width) // 2, (picture.height - height) // 2
    return picture.crop((left, top, left + width, top + height))


def keyframe_condition(
    keyframes: Mapping[int, Image.Image],
    num_frames: int,
    height: int,
    width: int,
    encode: Callable[[Tensor], Tensor],
) -> Tensor:
    """The condition of a SparseCtrl for "rgb": latents of the pictures.

    Args:
        keyframes: by frame from 0, of `place_pictures`; stretched to the size of the video.
        num_frames: of the video.
        height: in pixels.
        width: in pixels.
        encode: pixels `[n, 3, h, w]` in [-1, 1] to scaled latents `[n, c, h', w']`; `vae.encode_images` takes their
            mean, so that the same pictures give the same video.

    Returns:
        `float32 [1, c + 1, f, h', w']`, on the device of the latents; the last channel is the mask.
    """
    latents = torch.cat([encode(_pixels(picture, height, width) * 2 - 1) for picture in keyframes.values()])
    return _with_mask(latents.float(), list(keyframes), num_frames)


def sketch_condition(sketches: Mapping[int, Image.Image], num_frames: int, height: int, width: int) -> Tensor:
    """The condition of a SparseCtrl for "scribble": pixels in [0, 1], white lines on black.

    Args:
        sketches: by frame from 0, of `place_pictures`; stretched to the size of the video.
        num_frames: of the video.
        height: in pixels.
        width: in pixels.

    Returns:
        `float32 [1, 4, f, h, w]`; the last channel is the mask.
    """
    pixels = torch.cat([_pixels(picture, height, width) for picture in sketches.values()])
    return _with_mask(pixels, list(sketches), num_frames)


def _with_mask(known: Tensor, frames: list[int], num_frames: int) -> Tensor:
    _, channels, height, width = known.shape
    condition = known.new_zeros(1, channels + 1, num_frames, height, width)
    condition[0, :channels, frames] = known.transpose(0, 1)
    condition[0, channels, frames] = 1
    return condition


def _pixels(picture: Image.Image, height: int, width: int) -> Tensor:
    array = resized(picture, height, width)
    return torch.from_numpy(array.copy()).permute(2, 0, 1)[None].float() / 255


def check_aspect(picture: Image.Image, index: int, height: int, width: int) -> None:
    """Raises ShapeError for a picture whose aspect ratio is not the video's; says what would do."""
    if stretch_of((picture.height, picture.width), (height, width)) <= MAX_STRETCH:
        return
    crop_width = min(picture.width, round(picture.height * width / height))
    crop_height = min(picture.height, round(picture.width * height / width))
    raise ShapeError(
        f"The picture of frame {index} is {picture.width}x{picture.height} and the video {width}x{height}: another "
        f"aspect ratio. Crop the picture to {crop_width}x{crop_height}, or make the video about "
        f"{width}x{round(width * picture.height / picture.width)}."
    )
