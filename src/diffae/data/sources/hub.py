"""Data sets on the Hugging Face hub."""

from pathlib import Path

from diffae.runtime.files import first_line

HUB = "hf://datasets/"
"""How the address of a data set on the Hugging Face hub begins."""


def from_hub(address: str) -> Path:
    """Downloads the tables and tars of a data set, unless the hub's cache has them, and returns their folder.

    Args:
        address: `hf://datasets/USER/NAME`, or `hf://datasets/USER/NAME/FOLDER` for one folder of it.

    Raises:
        FileNotFoundError: the hub has no such data set, none that may be read, or does not answer.
        ValueError: no such address.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HTTPError, LocalEntryNotFoundError

    user, _, rest = address.removeprefix(HUB).partition("/")
    name, _, folder = rest.strip("/").partition("/")
    if not (user and name):
        raise ValueError(f"{address} names no data set on the hub. Give {HUB}USER/NAME.")
    patterns = [
        f"{folder}/*{kind}" if folder else f"*{kind}" for kind in (".parquet", ".arrow", ".tar", "labels.csv", "state.json")
    ]
    try:
        return Path(snapshot_download(f"{user}/{name}", repo_type="dataset", allow_patterns=patterns)) / folder
    except (HfHubHTTPError, LocalEntryNotFoundError, HTTPError) as error:
        reason = first_line(error.__cause__ or error)
        raise FileNotFoundError(
            f"The hub gives no data set {user}/{name} ({reason}). Log in with `hf auth login` if it is private, or try again later."
        ) from None
