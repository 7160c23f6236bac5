"""The Hugging Face hub: a folder up, a folder down, and what its client's errors mean."""

import re
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from diffae.runtime.files import first_line

NAME = re.compile(r"[\w.-]+/[\w.-]+")
"""Of a model on the hub: `user/model`."""


def upload(repo_id: str, fill: Callable[[Path], None], *, private: bool, token: str | None) -> str:
    """Uploads what `fill` writes to a folder.

    Args:
        repo_id: `user/model`; made if it is not there.
        fill: given an empty folder.
        private: whether a new repository is private.
        token: of the hub; by default the one that `hf auth login` stored.

    Returns:
        The address of the model.

    Raises:
        ValueError: a name that is not `user/model`.
        PermissionError: nobody is logged in, or the token may not write there.
        ConnectionError: the hub cannot be reached.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HTTPError

    if not NAME.fullmatch(repo_id):
        raise ValueError(f"Expected the hub's name for the model as user/model, got {repo_id!r}.")
    api = HfApi(token=token)
    with tempfile.TemporaryDirectory() as folder:
        fill(Path(folder))
        try:
            api.create_repo(repo_id, private=private, exist_ok=True)
            api.upload_folder(repo_id=repo_id, folder_path=folder, commit_message="Upload from diffae")
        except HfHubHTTPError as error:
            if error.response.status_code not in (401, 403):
                raise
            raise PermissionError(
                f"The hub does not let you write to {repo_id}: log in with `hf auth login`, with a token that may write there."
            ) from None
        except HTTPError as error:
            raise ConnectionError(
                f"The hub at {api.endpoint} does not answer ({str(error) or type(error).__name__}): try again later."
            ) from None
    return f"{api.endpoint}/{repo_id}"


def download(name: str, files: Sequence[str], *, revision: str | None = None) -> Path:
    """The folder of a model on the hub, downloaded unless it is in the hub's cache.

    Args:
        name: `user/model`.
        files: that it has to hold.
        revision: branch, tag or commit; by default the newest of its main branch.

    Raises:
        FileNotFoundError: no such name, no such model that you may read, a hub that does not answer, or a file that it lacks.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, HTTPError, LocalEntryNotFoundError

    neither = f"{name} is no folder. Give a run directory, a folder that `save_pretrained` wrote, or user/model."
    if not NAME.fullmatch(name):
        raise FileNotFoundError(neither)
    try:
        folder = Path(snapshot_download(name, revision=revision, allow_patterns=list(files)))
    except HFValidationError:
        raise FileNotFoundError(neither) from None
    except HfHubHTTPError as error:
        raise FileNotFoundError(
            f"There is no folder {name}, and the hub has no model of that name{_at(revision)} that you may read "
            f"({first_line(error)}). For a private one, log in with `hf auth login`."
        ) from None
    except (LocalEntryNotFoundError, HTTPError) as error:
        reason = first_line(error.__cause__ or error)
        raise FileNotFoundError(f"There is no folder {name}, and the hub does not answer for a model ({reason}).") from None
    missing = [file for file in files if not (folder / file).is_file()]
    if missing:
        raise FileNotFoundError(f"{name} on the hub is no model of diffae: it holds no {' and no '.join(missing)}.")
    return folder


def _at(revision: str | None) -> str:
    return "" if revision is None else f" and revision {revision}"
