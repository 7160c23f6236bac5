"""Diffusion of images: schedule, solvers, inversions, and the plain DDIM that has all of them."""

from diffae import _moved
from diffae.diffusion.ddim import DDIM
from diffae.diffusion.model import ImageDiffusion, ImageSolver
from diffae.diffusion.networks import configured

__all__ = ["DDIM", "ImageDiffusion", "ImageSolver", "configured"]

_moved.answer("diffae.diffusion.schedule")
_moved.answer("diffae.diffusion.images")
