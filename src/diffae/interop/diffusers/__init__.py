"""Diffusion autoencoders inside the library `diffusers`, and its schedulers as solvers here.

FOLDER/model_index.json, pipeline.py     what `DiffusionPipeline.from_pretrained(FOLDER, trust_remote_code=True)` reads
FOLDER/unet/, FOLDER/encoder/            the two networks, as components
FOLDER/scheduler/                        a DDIMScheduler of the noise levels that the network was trained with
"""

try:
    import diffusers  # noqa: F401
except ImportError:
    raise ImportError("This is for the library diffusers, which is not installed: pip install 'diffae[interop]'.") from None

from diffae.interop.diffusers.folder import write_folder
from diffae.interop.diffusers.networks import DiffAEEncoder, DiffAEUNet
from diffae.interop.diffusers.pipeline import DiffAEPipeline
from diffae.interop.diffusers.schedulers import SchedulerStep

__all__ = ["DiffAEEncoder", "DiffAEPipeline", "DiffAEUNet", "SchedulerStep", "write_folder"]
