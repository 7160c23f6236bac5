"""Faces in photographs: found, cut out as those of FFHQ are (Karras et al. 2019), and put back.

Places are in pixels, x before y; a pixel's number is its centre, so the photograph begins at -0.5.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from diffae.frozen.faces import DETECTOR_SIDE, LANDMARKS_SIDE, FaceDetector, FaceLandmarks, apart

Box = tuple[int, int, int, int]
"""Left, top, right, bottom."""
EDGE = 0.02
"""Of a window: how near to its edge a face may be cut off by it."""
SUPERSAMPLING = 4
"""A square is first taken at so many times its size."""
AGAIN = 1.2
"""Of what the landmarks span: the side of the square in which they are looked for again."""
BORDER = 0.1
"""Of the cut's side: how far the photograph must reach beyond the cut if nothing is to be filled in."""
FILL = 0.3
"""Of the cut's side: how wide what is filled in fades."""
BLUR = 0.02
"""Of the cut's side: standard deviation of the blur of what is filled in."""


@dataclass(frozen=True, slots=True)
class Face:
    """One face in a photograph.

    Attributes:
        score: how likely it is one, from 0 to 1.
        box: left, top, right, bottom.
        landmarks: 68 points in the order of iBUG 300-W, (68, 2).
    """

    score: float
    box: tuple[float, float, float, float]
    landmarks: np.ndarray


@torch.no_grad()
def find_faces(
    photo: Image.Image, detector: FaceDetector, landmarks: FaceLandmarks, *, least: float = 0.5, scales: int = 1
) -> list[Face]:
    """The faces in a photograph, the largest first.

    Args:
        photo: upright, RGB.
        detector: with its weights, on any device. It finds heads from a tenth of what it is shown on.
        landmarks: likewise, on the same one.
        least: score that a face must have.
        scales: 1 shows it the whole photograph; each more, also windows of half the side, as long as they have its 512 pixels.
    """
    found = [_detected(photo, window, detector) for window in _windows(photo.size, scales)]
    boxes, scores = torch.cat([boxes for boxes, _ in found]), torch.cat([scores for _, scores in found])
    faces = []
    for i in apart(boxes, scores, least=least):
        top, left, bottom, right = boxes[i].tolist()
        if int(right) > int(left) and int(bottom) > int(top):
            points = _landmarks(photo, (int(left), int(top), int(right), int(bottom)), landmarks)
            faces.append(Face(float(scores[i]), (left, top, right, bottom), points))
    return sorted(faces, key=lambda face: _area(face.box), reverse=True)


def _windows(size: tuple[int, int], scales: int) -> Iterator[Box]:
    """The whole photograph, then overlapping windows of half its larger side, and so on."""
    for look in range(scales):
        side = max(size) // 2**look
        if look and side < DETECTOR_SIDE:
            return
        across, down = (
            [round(s) for s in np.linspace(0, max(length - side, 0), max(0, math.ceil((length - side) / (side / 2))) + 1)]
            for length in size
        )
        yield from ((x, y, min(x + side, size[0]), min(y + side, size[1])) for y in down for x in across)


def _detected(photo: Image.Image, window: Box, detector: FaceDetector) -> tuple[Float[Tensor, "n 4"], Float[Tensor, "n"]]:
    """Boxes (top, left, bottom, right) in a window, in pixels of the photograph, and their scores; 0 for what may be cut off by the
    window, and is whole in another."""
    seen = photo.crop(window)
    scale = DETECTOR_SIDE / max(seen.size)
    width, height = (max(1, round(side * scale)) for side in seen.size)
    square = Image.new("RGB", (DETECTOR_SIDE, DETECTOR_SIDE))
    square.paste(seen.resize((width, height), Image.Resampling.BILINEAR))
    boxes, scores = (found[0].cpu() for found in detector(_values(square, detector.anchors)))
    shares = (boxes * DETECTOR_SIDE / torch.tensor([height, width]).repeat(2)).clamp(0, 1)
    left, top, right, bottom = window
    inner = torch.tensor([top > 0, left > 0, bottom < photo.height, right < photo.width])
    at_edge = torch.cat([shares[:, :2] < EDGE, shares[:, 2:] > 1 - EDGE], 1)
    places = shares * torch.tensor([seen.height, seen.width]).repeat(2) + torch.tensor([top, left]).repeat(2)
    return places, scores.masked_fill((at_edge & inner).any(1), 0)


def _area(box: tuple[float, float, float, float]) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def _landmarks(photo: Image.Image, box: Box, network: FaceLandmarks) -> np.ndarray:
    """The landmarks in a box, which the network sees in the middle of a black square, and then again, upright.

    The second look takes the error of a face that is turned by 40 degrees from 4 % of the cut's side to 1 %.
    """
    width, height = box[2] - box[0], box[3] - box[1]
    side = max(width, height)
    square = Image.new("RGB", (side, side))
    square.paste(photo.crop(box), ((side - width) // 2, (side - height) // 2))
    shares = _points(square, network)
    points = shares * side - [(side - width) / 2 - box[0], (side - height) / 2 - box[1]]
    corners = ffhq_quad(points)
    axes = (corners[[3, 1]] - corners[0]) / np.hypot(*(corners[3] - corners[0]))
    turned = points @ axes.T
    low, high = turned.min(0), turned.max(0)
    middle = (low + high) / 2 @ axes
    axes = axes * ((high - low).max() * AGAIN)
    start = middle - axes.sum(0) / 2
    corners = np.stack([start, start + axes[1], start + axes.sum(0), start + axes[0]])
    return start + _points(_taken(photo, corners, LANDMARKS_SIDE), network) @ axes


def _points(square: Image.Image, network: FaceLandmarks) -> np.ndarray:
    """The landmarks in a square, (68, 2), as shares of its sides."""
    square = square.resize((LANDMARKS_SIDE, LANDMARKS_SIDE), Image.Resampling.BILINEAR)
    return network(_values(square, network.mean))[0].cpu().double().numpy()


def _taken(photo: Image.Image, quad: np.ndarray, size: int) -> Image.Image:
    """A square of a photograph as an image of its own, black where it leaves the photograph."""
    large, corners = SUPERSAMPLING * size, tuple((quad + 0.5).flatten().tolist())
    taken = photo.transform((large, large), Image.Transform.QUAD, corners, Image.Resampling.BILINEAR)
    return taken.resize((size, size), Image.Resampling.LANCZOS)


def _values(image: Image.Image, like: Tensor) -> Float[Tensor, "1 3 h w"]:
    """An image in [-1, 1], where the network is."""
    return torch.from_numpy(np.array(image)).to(like.device).permute(2, 0, 1)[None].float() / 127.5 - 1


def ffhq_quad(landmarks: Float[np.ndarray, "68 2"]) -> Float[np.ndarray, "4 2"]:
    """The square that FFHQ cuts out around a face: its corners at the upper left, lower left, lower right and upper right.

    Its upper side lies along the line of the eyes and across that from eyes to mouth, the two averaged; half its side is twice the
    distance of the eyes, or 1.8 times that from eyes to mouth if that is more; its centre is a tenth of the way from eyes to mouth.

    Args:
        landmarks: in the order of iBUG 300-W, in pixels.
    """
    left_eye, right_eye = landmarks[36:42].mean(0), landmarks[42:48].mean(0)
    eyes, mouth = (left_eye + right_eye) / 2, (landmarks[48] + landmarks[54]) / 2
    across, down = right_eye - left_eye, mouth - eyes
    right = across + np.array([down[1], -down[0]])
    right *= max(2 * np.hypot(*across), 1.8 * np.hypot(*down)) / np.hypot(*right)
    lower = np.array([-right[1], right[0]])
    return eyes + 0.1 * down + np.stack([-right - lower, lower - right, right + lower, right - lower])


def cut(photo: Image.Image, quad: Float[np.ndarray, "4 2"], size: int) -> Image.Image:
    """What a square of a photograph shows, upright, as FFHQ's images are made.

    A photograph that is far larger is shrunk first. Where the square leaves it, it is mirrored, and fades to a blur and to its
    median colour.

    Args:
        photo: upright, RGB.
        quad: the corners, as of `ffhq_quad`.
        size: pixels a side of the result.
    """
    side = float(np.hypot(*(quad[3] - quad[0])))
    # Only the square and its surroundings are looked at.
    border = max(round(side * BORDER), 3)
    low, high = np.floor(quad.min(0)).astype(int) - border, np.ceil(quad.max(0)).astype(int) + border
    box = (*np.clip(low, 0, None).tolist(), *np.minimum(high, photo.size).tolist())
    if box[0] >= box[2] or box[1] >= box[3]:
        raise ValueError(f"The square {quad.round().tolist()} lies beyond the photograph of {photo.width} x {photo.height}.")
    photo, quad = photo.crop(box), quad - box[:2]
    shrink = int(side / size / 2)
    if shrink > 1:
        full = np.array(photo.size)
        photo = photo.resize(tuple(np.maximum(np.rint(full / shrink), 1).astype(int).tolist()), Image.Resampling.LANCZOS)
        ratio = photo.size / full
        quad, side = (quad + 0.5) * ratio - 0.5, side / shrink
    border = max(round(side * BORDER), 3)
    beyond = np.array([np.ceil(border - quad.min(0)), np.ceil(quad.max(0) + border - photo.size)]).astype(int).clip(0)
    if beyond.max() > border - 4:
        beyond = np.maximum(beyond, max(round(side * FILL), 1))
        photo, quad = _filled(photo, beyond, side * BLUR), quad + beyond[0]
    return _taken(photo, quad, size)


def _filled(photo: Image.Image, beyond: np.ndarray, blur: float) -> Image.Image:
    """A photograph with more around it.

    Args:
        photo: RGB.
        beyond: pixels added ((left, top), (right, bottom)), each more than 0.
        blur: standard deviation in pixels, where it is blurred.
    """
    (left, top), (right, bottom) = beyond.tolist()
    wide = np.pad(np.asarray(photo, np.float32), ((top, bottom), (left, right), (0, 0)), "reflect")
    edges = []
    for length, before, after in zip(wide.shape[:2], (top, left), (bottom, right), strict=True):
        place = np.arange(length, dtype=np.float32)
        edges.append(1 - np.minimum(place / before, place[::-1] / after))
    # 1 at the outer edge, 0 where the photograph begins, and below 0 inside.
    depth = np.maximum(edges[0][:, None], edges[1][None])[..., None]
    wide += (_blurred(wide, blur) - wide) * np.clip(3 * depth + 1, 0, 1)
    wide += (np.median(wide, axis=(0, 1)) - wide) * np.clip(depth, 0, 1)
    return Image.fromarray(np.clip(np.rint(wide), 0, 255).astype(np.uint8))


def _blurred(image: np.ndarray, deviation: float) -> np.ndarray:
    """An image (h, w, c) blurred by a Gaussian, which is far wider than convolutions are made for."""
    reach = int(4 * deviation + 0.5)
    kernel = torch.exp(-0.5 * (torch.arange(-reach, reach + 1.0) / deviation) ** 2)
    kernel /= kernel.sum()
    x = torch.from_numpy(np.pad(image, ((reach, reach), (reach, reach), (0, 0)), "symmetric")).permute(2, 0, 1)
    h, w = x.shape[1:]
    spectrum = torch.fft.rfft2(x) * torch.fft.fft(kernel, h)[:, None] * torch.fft.rfft(kernel, w)
    return torch.fft.irfft2(spectrum, (h, w))[:, 2 * reach :, 2 * reach :].permute(1, 2, 0).numpy()


def paste(
    photo: Image.Image, image: Image.Image, quad: Float[np.ndarray, "4 2"], *, feather: float, before: Image.Image | None = None
) -> Image.Image:
    """A photograph with an image in the place of a square of it; pixels outside the square stay as they are.

    Args:
        photo: upright, RGB.
        image: square, RGB; what `cut` gave, edited.
        quad: the corners, as of `ffhq_quad`.
        feather: share of the square's side over which the image fades into the photograph, at each edge.
        before: what `cut` gave, before it was edited, of the same size: only what the edit changed is added to the photograph then.
    """
    low = np.clip(np.floor(quad.min(0)).astype(int), 0, photo.size)
    high = np.clip(np.ceil(quad.max(0)).astype(int) + 1, low, photo.size)
    if (low >= high).any():
        return photo
    places = np.stack(np.meshgrid(np.arange(low[0], high[0]), np.arange(low[1], high[1])), -1)
    # Shares of the square's sides, to the right and down.
    shares = (places - quad[0]) @ np.linalg.inv(np.stack([quad[3] - quad[0], quad[1] - quad[0]]))
    inside = np.minimum(shares, 1 - shares).min(-1)
    weight = np.clip(inside / feather, 0, 1) if feather else (inside > 0).astype(float)
    weight = (weight * weight * (3 - 2 * weight))[..., None]
    values = torch.from_numpy(np.array(image, np.float64))
    if before is not None:
        values -= torch.from_numpy(np.array(before, np.float64))
    values = values.permute(2, 0, 1)[None]
    side = max(1, round(float(np.hypot(*(quad[3] - quad[0])))))
    if side < image.width:
        values = F.interpolate(values, (side, side), mode="bicubic", antialias=True)
    grid = torch.from_numpy(2 * shares - 1)[None]
    warped = F.grid_sample(values, grid, mode="bicubic", padding_mode="border", align_corners=False)[0].permute(1, 2, 0).numpy()
    result = np.array(photo)
    part = result[low[1] : high[1], low[0] : high[0]]
    mixed = part + weight * (warped if before is not None else warped - part)
    part[...] = np.where(weight > 0, np.clip(np.rint(mixed), 0, 255), part).astype(np.uint8)
    pasted = Image.fromarray(result)
    pasted.info = dict(photo.info)
    return pasted
