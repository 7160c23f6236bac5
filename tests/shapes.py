"""What is checked while testing: shapes, which no type checker sees; in some rooms the types beside them too, beyond mypy."""

from beartype import beartype

TELLING = ("diffae.autoencoder", "diffae.interop.diffusers")
"""Whose own checks tell users what is wrong in words of their own, and are tested."""
WHOLE = ("diffae.data", "diffae.evaluation", "diffae.nn.encoder", "diffae.nn.mlp", "diffae.nn.unet", "diffae.pictures")
"""Whose functions are checked whole. Elsewhere stand-ins take the place of models, exporters that of numbers."""


def enforced(function):
    """Has the shapes of parameters and results checked at each call; a function that says none stays as it is."""
    if function.__module__.startswith(TELLING):
        return function
    if function.__module__.startswith(WHOLE):
        return beartype(function)
    function.__annotations__ = {name: hint for name, hint in function.__annotations__.items() if "jaxtyping." in repr(hint)}
    return beartype(function) if function.__annotations__ else function
