"""What is checked while testing: shapes, which no type checker sees. Types beside them are mypy's."""

from beartype import beartype

TELLING = ("diffae.autoencoder", "diffae.interop.diffusers.")
"""Whose own checks tell users what is wrong in words of their own, and are tested."""


def enforced(function):
    """Has the shapes of parameters and results checked at each call; a function that says none stays as it is."""
    if function.__module__.startswith(TELLING):
        return function
    function.__annotations__ = {name: hint for name, hint in function.__annotations__.items() if "jaxtyping." in repr(hint)}
    return beartype(function) if function.__annotations__ else function
