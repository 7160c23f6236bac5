"""Images in: from folders, zips and the avatars to tensors."""

from diffae.data.dataset import ImageSet
from diffae.data.preparation import prepare

__all__ = ["ImageSet", "prepare"]
