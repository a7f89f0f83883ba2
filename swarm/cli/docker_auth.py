"""Registry credentials from the caller's own Docker configuration, for one image."""

from __future__ import annotations

import base64
import json
import os
import subprocess
from typing import Any

from swarm.errors import NotFound, UsageError

HUB = "https://index.docker.io/v1/"
HELPER_S_MAX = 20.0


def registry_of(image: str) -> str:
    """The registry an image reference names; Docker Hub's key when it names none."""
    first, separator, _ = image.partition("/")
    if separator and ("." in first or ":" in first or first == "localhost"):
        return HUB if first in ("docker.io", "index.docker.io") else first
    return HUB


def registry_auth(image: str) -> dict[str, str]:
    """What the engine's API calls an auth config. Raises `NotFound` when the configuration has none for the registry."""
    folder = os.environ.get("DOCKER_CONFIG") or os.path.expanduser("~/.docker")
    path = os.path.join(folder, "config.json")
    registry = registry_of(image)
    hint = f"log in first: docker login {'' if registry == HUB else registry}".rstrip()
    try:
        with open(path, encoding="utf-8") as opened:
            config = json.load(opened)
        if not isinstance(config, dict):
            raise ValueError("not an object")
    except FileNotFoundError:
        raise NotFound(f"there are no credentials for {registry}", cause=f"{path} does not exist", hint=hint) from None
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot read {path}", cause=str(error)) from None
    found = _from_helper(config, registry) or _from_file(config, registry)
    if not found:
        raise NotFound(f"there are no credentials for {registry}", cause=f"{path} names none", hint=hint)
    return {**found, "serveraddress": registry}


def _from_file(config: dict[str, Any], registry: str) -> dict[str, str]:
    entries = config.get("auths")
    entry = (entries if isinstance(entries, dict) else {}).get(registry)
    if not isinstance(entry, dict):
        return {}
    if isinstance(entry.get("identitytoken"), str) and entry["identitytoken"]:
        return {"identitytoken": entry["identitytoken"]}
    try:
        user, separator, password = base64.b64decode(entry.get("auth", "")).decode().partition(":")
    except (ValueError, TypeError):
        return {}
    return {"username": user, "password": password.rstrip("\0")} if separator else {}


def _from_helper(config: dict[str, Any], registry: str) -> dict[str, str]:
    helpers = config.get("credHelpers")
    helper = (helpers if isinstance(helpers, dict) else {}).get(registry) or config.get("credsStore")
    if not isinstance(helper, str) or not helper.replace("-", "").replace("_", "").isalnum():
        return {}
    try:
        done = subprocess.run(
            [f"docker-credential-{helper}", "get"], input=registry.encode(), capture_output=True, timeout=HELPER_S_MAX, check=True
        )
        found = json.loads(done.stdout)
        user, secret = str(found["Username"]), str(found["Secret"])
    except (OSError, subprocess.SubprocessError, ValueError, KeyError, TypeError):
        return {}
    return {"identitytoken": secret} if user == "<token>" else {"username": user, "password": secret}
