"""Images: pulling one that is missing, and saying why that failed.

A container is created first and the image pulled only when the engine says that it has none: the usual case, the image is there,
costs nothing. Blocking; runs in a thread. A pull that is abandoned goes on in the engine, and pulling again joins it.
"""

from __future__ import annotations

import re

import docker
import docker.errors
import requests

from swarm.adapters.engine_plan import error_of
from swarm.model.container import EngineTrouble
from swarm.ports import EngineError

DOCKER_HUB = "docker.io"


def split_image(image: str) -> tuple[str, str]:
    """(repository, tag or digest): `a/b` is `a/b:latest`; a colon before the last slash belongs to a registry's port."""
    if "@" in image:
        repository, _, digest = image.partition("@")
        return repository, digest
    match = re.fullmatch(r"(.*?)(?::([^/:]+))?", image)
    assert match is not None
    return match[1], match[2] or "latest"


def registry_of(image: str) -> str:
    """The registry an image names; Docker's own when the first part is no host."""
    first, slash, _ = image.partition("/")
    return first if slash and ("." in first or ":" in first or first == "localhost") else DOCKER_HUB


def pull(client: docker.APIClient, image: str, registry_auth: dict[str, str] | None) -> None:
    """Fetch `image`; returns when the engine has it. Raises `EngineError` with the engine's own words."""
    repository, tag = split_image(image)
    doing = f"pull the image {image!r} from {registry_of(image)}"
    try:
        last_error = ""
        # An empty mapping keeps the client library from looking for the daemon's own docker configuration.
        for line in client.pull(repository, tag=tag, stream=True, decode=True, auth_config=registry_auth or {}):
            last_error = line.get("error", last_error)
    except docker.errors.APIError as error:
        raise as_no_image(error_of(error.status_code or 0, str(error.explanation or error), doing)) from None
    except requests.RequestException as error:
        raise EngineError(EngineTrouble.UNREACHABLE, f"cannot {doing}: {error}") from None
    if last_error:
        raise as_no_image(error_of(0, last_error, doing))


def as_no_image(error: EngineError) -> EngineError:
    """Whatever stops a pull leaves the task without its image; only a full disk is the node's matter."""
    if error.trouble is EngineTrouble.NO_SPACE:
        return error
    hint = "is the name right, and can this host reach the registry (or does the image need --registry-auth)?"
    return EngineError(EngineTrouble.NO_IMAGE, f"{error.message} - {hint}")
