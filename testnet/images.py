"""The images of the testnet, made on the spot from Debian packages, since no registry may be reachable.

mmdebstrap unpacks the packages of each recipe (no package script runs, so the recipe adds what they would
have made); the result becomes a one-layer image in the archive format that `docker load` reads, kept in the
cache under a hash of its recipe. The same archive gives the same image id on every engine.

Loading 250 MB into each of twenty engines would take minutes. So the images are loaded once, into a golden
data folder, and a new host's engine starts on hard links to its layers: layers are never written to, a
container's changes go to a layer of its own. What is missing after that (another storage driver) is loaded
the long way.
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import tarfile
import tempfile
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path

import docker
import docker.errors

from testnet.layout import TestnetError, cache_folder
from testnet.state import locked

RELEASES = ("bookworm", "trixie")
FORMAT = 4  # part of the hash: raise it when the way archives are made changes
MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}

UNWANTED = (
    "dev/",
    "etc/apt/",
    "etc/dpkg/",
    "etc/fstab",
    "etc/hostname",
    "etc/init.d/",
    "etc/resolv.conf",
    "lib/systemd/",
    "usr/lib/systemd/",
    "usr/share/bash-completion/",
    "usr/share/doc/",
    "usr/share/info/",
    "usr/share/locale/",
    "usr/share/man/",
    "usr/share/perl",
    "var/lib/dpkg/",
)
UNWANTED_PATTERN = re.compile(r"usr/lib/[^/]+/(gconv|perl|perl-base)/|etc/nginx/(sites|modules)-enabled/.")
USERS = (("root", 0, "/root"), ("www-data", 33, "/var/www"), ("redis", 100, "/data"))
FOLDERS = ("bin", "dev", "etc", "proc", "root", "run", "sys", "tmp", "usr/bin", "var/log", "var/run")

NGINX_CONFIGURATION = """\
user www-data;
worker_processes 1;
pid /run/nginx.pid;
error_log /dev/stderr;
events { worker_connections 256; }
http {
    include /etc/nginx/mime.types;
    access_log /dev/stdout;
    server { listen 80 default_server; root /var/www/html; }
}
"""
NGINX_START = """\
#!/bin/sh
cat > /var/www/html/index.html <<END
task ${SWARM_TASK:-none}
attempt ${SWARM_ATTEMPT:-0}
node ${SWARM_NODE:-none} at ${SWARM_NODE_ADDRESS:-nowhere}
END
exec nginx -g 'daemon off;'
"""


@dataclass(frozen=True, slots=True)
class Recipe:
    """What an image is made of: packages, and files and folders that their scripts would have made."""

    name: str
    packages: tuple[str, ...]
    command: tuple[str, ...]
    files: tuple[tuple[str, str, int], ...] = ()  # path, content, mode
    folders: tuple[str, ...] = ()
    port: int = 0
    folder: str = "/"
    stop_signal: str = "SIGTERM"


RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe(name="testnet/busybox:1", packages=("busybox-static",), command=("sh",)),
        Recipe(
            name="testnet/redis:1",
            packages=("busybox-static", "redis-server"),
            command=("redis-server", "--bind", "*", "--protected-mode", "no", "--dir", "/data"),
            folders=("data",),
            port=6379,
            folder="/data",
        ),
        Recipe(
            name="testnet/nginx:1",
            packages=("busybox-static", "nginx-light"),
            command=("serve",),
            files=(
                ("etc/nginx/nginx.conf", NGINX_CONFIGURATION, 0o644),
                ("usr/bin/serve", NGINX_START, 0o755),
            ),
            folders=("var/lib/nginx", "var/log/nginx", "var/www/html"),
            port=80,
            stop_signal="SIGQUIT",
        ),
        Recipe(name="testnet/python:1", packages=("busybox-static", "python3"), command=("python3",)),
    )
}
NAMES = tuple(RECIPES)


def architecture() -> str:
    machine = platform.machine()
    if machine not in MACHINES:
        raise TestnetError(f"no images can be made for {machine} machines")
    return MACHINES[machine]


def release() -> str:
    """The Debian release whose packages make the images: this machine's own, or bookworm elsewhere."""
    found = platform.freedesktop_os_release().get("VERSION_CODENAME", "")
    return found if found in RELEASES else RELEASES[0]


def recipe_hash(recipe: Recipe) -> str:
    text = json.dumps([FORMAT, release(), architecture(), asdict(recipe)])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def archive(name: str) -> Path:
    """The archive of an image, made if the cache does not have it; some seconds then."""
    recipe = RECIPES.get(name)
    if recipe is None:
        raise TestnetError(f"there is no recipe for {name}: only for {', '.join(NAMES)}")
    cache = cache_folder()
    cache.mkdir(parents=True, exist_ok=True)
    short = name.removeprefix("testnet/").replace(":", "-")
    path = cache / f"{short}-{recipe_hash(recipe)}.tar"
    with locked(cache / "lock"):
        if not path.exists():
            print(f"making the image {name} from Debian {release()} packages", flush=True)
            with tempfile.TemporaryDirectory(dir=cache, prefix="making-") as folder:
                layer = Path(folder) / "layer.tar"
                packages = Path(folder) / "packages.tar"
                unpack_packages(recipe, packages)
                write_layer(recipe, packages, layer)
                made = Path(folder) / "image.tar"
                write_archive(recipe, layer, made)
                made.rename(path)
    return path


def unpack_packages(recipe: Recipe, layer: Path) -> None:
    if shutil.which("mmdebstrap") is None:
        raise TestnetError("images need mmdebstrap: `apt-get install mmdebstrap`")
    sources = [str(path) for path in sorted(Path("/etc/apt").glob("sources.list.d/*.sources"))]
    plain = Path("/etc/apt/sources.list")
    if plain.exists() and plain.read_text().strip():
        sources.insert(0, str(plain))
    own = [path for path in sources if "debian" in Path(path).name or path == str(plain)]
    command = [
        "mmdebstrap", "--quiet", "--variant=extract", f"--include={','.join(recipe.packages)}",
        release(), str(layer), *own,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "SOURCE_DATE_EPOCH": "0"})
    if done.returncode:
        raise TestnetError(f"mmdebstrap could not make {recipe.name}: {done.stderr.strip()[-1500:]}")


def write_layer(recipe: Recipe, packages: Path, layer: Path) -> None:
    """The packages without what no container needs, and with what the recipe adds; always the same bytes."""
    with tarfile.open(packages) as source, tarfile.open(layer, "w") as target:
        entries = {entry.name.removeprefix("./").rstrip("/"): entry for entry in source.getmembers()}
        written = set()
        for name, entry in sorted(entries.items()):
            if name and not is_unwanted(f"{name}/" if entry.isdir() else name) and name not in dict_of_files(recipe):
                copy_entry(source, entry, target, name)
                written.add(name)
        for folder in (*FOLDERS, *recipe.folders):
            if folder not in written:
                add(target, folder, kind=tarfile.DIRTYPE, mode=0o1777 if folder == "tmp" else 0o755)
        for name, (content, mode) in dict_of_files(recipe).items():
            add(target, name, content=content.encode(), mode=mode)
        for name, link in links_to_add(source, entries, written).items():
            add(target, name, kind=tarfile.SYMTYPE, link=link)


def copy_entry(source: tarfile.TarFile, entry: tarfile.TarInfo, target: tarfile.TarFile, name: str) -> None:
    """Copy one entry under a plain name and without a time; hard links become files, so order is free."""
    made = copy.copy(entry)
    made.name, made.mtime = name, 0
    content = None
    if entry.isreg() or entry.islnk():
        opened = source.extractfile(entry)
        assert opened is not None
        content = BytesIO(opened.read())
        made.type, made.linkname, made.size = tarfile.REGTYPE, "", len(content.getbuffer())
    target.addfile(made, content)


def is_unwanted(name: str) -> bool:
    return name.startswith(UNWANTED) or UNWANTED_PATTERN.match(name) is not None


def dict_of_files(recipe: Recipe) -> dict[str, tuple[str, int]]:
    users = "".join(f"{name}:x:{number}:{number}::{home}:/bin/sh\n" for name, number, home in USERS)
    groups = "".join(f"{name}:x:{number}:\n" for name, number, _ in USERS)
    own = {"etc/passwd": (users, 0o644), "etc/group": (groups, 0o644)}
    return own | {path: (content, mode) for path, content, mode in recipe.files}


def links_to_add(source: tarfile.TarFile, entries: dict[str, tarfile.TarInfo], written: set[str]) -> dict[str, str]:
    """Every applet of busybox that no package brings, and /lib and the like where packages use /usr alone."""
    links = {
        top: f"usr/{top}"
        for top in ("lib", "lib64", "sbin")
        if top not in written and any(name.startswith(f"usr/{top}/") for name in written)
    }
    busybox = next(name for name in ("bin/busybox", "usr/bin/busybox") if name in entries)
    program = source.extractfile(entries[busybox])
    assert program is not None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "busybox"
        path.write_bytes(program.read())
        path.chmod(0o755)
        applets = subprocess.run([path, "--list"], capture_output=True, text=True, check=True).stdout.split()
    folders = ("bin", "sbin", "usr/bin", "usr/sbin")
    for applet in applets:
        if not any(f"{folder}/{applet}" in written for folder in folders):
            links[f"bin/{applet}"] = f"/{busybox}"
    return links


def add(
    target: tarfile.TarFile,
    name: str,
    *,
    content: bytes = b"",
    kind: bytes = tarfile.REGTYPE,
    mode: int = 0o755,
    link: str = "",
) -> None:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode, entry.linkname, entry.size = kind, mode, link, len(content)
    target.addfile(entry, BytesIO(content))


def write_archive(recipe: Recipe, layer: Path, path: Path) -> None:
    """One layer, its configuration and a manifest, as `docker load` reads them."""
    with layer.open("rb") as handle:
        digest = hashlib.file_digest(handle, "sha256").hexdigest()
    configuration = {
        "architecture": architecture(),
        "os": "linux",
        "created": "2000-01-01T00:00:00Z",
        "config": {
            "Cmd": list(recipe.command),
            "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
            "ExposedPorts": {f"{recipe.port}/tcp": {}} if recipe.port else {},
            "Labels": {"testnet.recipe": recipe_hash(recipe)},
            "StopSignal": recipe.stop_signal,
            "WorkingDir": recipe.folder,
        },
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
        "history": [{"created": "2000-01-01T00:00:00Z", "created_by": "swarm testnet"}],
    }
    encoded = json.dumps(configuration).encode()
    config_name = f"{hashlib.sha256(encoded).hexdigest()}.json"
    manifest = [{"Config": config_name, "RepoTags": [recipe.name], "Layers": ["layer.tar"]}]
    with tarfile.open(path, "w") as whole:
        for name, content in ((config_name, encoded), ("manifest.json", json.dumps(manifest).encode())):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            whole.addfile(entry, BytesIO(content))
        whole.add(layer, arcname="layer.tar")


def load_missing(engine_url: str, names: tuple[str, ...] = NAMES) -> list[str]:
    """Load the images that an engine lacks (or has by an older recipe); returns their names."""
    loaded = []
    client = docker.DockerClient(base_url=engine_url, timeout=120)
    try:
        for name in names:
            if not has_image(client, name):
                with archive(name).open("rb") as handle:
                    client.images.load(handle)
                loaded.append(name)
    finally:
        client.close()
    return loaded


def has_image(client: docker.DockerClient, name: str) -> bool:
    try:
        labels = client.images.get(name).labels
    except docker.errors.ImageNotFound:
        return False
    return bool(labels.get("testnet.recipe") == recipe_hash(RECIPES[name]))
