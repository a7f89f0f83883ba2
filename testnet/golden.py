"""The golden data folder: images loaded once, given to each new host as hard links.

Only what an engine never writes again is linked (the layers); the small files that describe images are
copied. An engine of another storage driver ignores the folder and is loaded the long way.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
from pathlib import Path

from testnet import images
from testnet.host import answers, tail
from testnet.layout import TestnetError, cache_folder
from testnet.processes import all_stats, wait_until
from testnet.state import locked

DRIVER = "overlay2"


def golden_store(names: tuple[str, ...]) -> Path | None:
    """The golden folder with these images, made if the cache lacks it; None where it cannot be made."""
    version = subprocess.run(["dockerd", "--version"], capture_output=True, text=True, check=True).stdout
    key = [version, *sorted(images.recipe_hash(images.RECIPES[name]) for name in names)]
    path = cache_folder() / f"golden-{hashlib.sha256(repr(key).encode()).hexdigest()[:16]}"
    for name in names:
        images.archive(name)
    with locked(cache_folder() / "golden-lock"):
        if not path.exists():
            making = path.with_suffix(".making")
            shutil.rmtree(making, ignore_errors=True)
            making.mkdir()
            load_into(making, names)
            making.rename(path)
    return path if (path / "root/image" / DRIVER).exists() else None


def load_into(folder: Path, names: tuple[str, ...]) -> None:
    """Run an engine without any network on `folder`/root for as long as it takes to load the images."""
    url = f"unix://{folder}/docker.sock"
    command = [
        "unshare", "-m", "-p", "-f", "--kill-child", "--mount-proc", "--propagation", "private",
        "dockerd", "--data-root", f"{folder}/root", "--exec-root", f"{folder}/exec",
        "-p", f"{folder}/docker.pid", "-H", url, "--log-level", "warn",
        "--bridge", "none", "--iptables=false", "--ip-forward=false",
    ]  # fmt: skip
    with (folder / "dockerd.log").open("wb") as log:
        engine = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        try:
            wait_until(
                lambda: answers(url.removeprefix("unix://"), "/_ping") or engine.poll() is not None,
                timeout_s=60.0,
                what=f"an engine to load the images into (see {folder}/dockerd.log)",
            )
            if engine.poll() is not None:
                raise TestnetError(f"an engine to load the images into ended: {tail(folder / 'dockerd.log')}")
            images.load_missing(url, names)
        finally:
            stop_inside(engine)
    shutil.rmtree(folder / "exec", ignore_errors=True)


def stop_inside(launcher: subprocess.Popen[bytes]) -> None:
    """SIGTERM the engine that a launcher started, so that it writes its files; kill both if it lingers."""
    for stat in all_stats():
        if stat.parent == launcher.pid:
            os.kill(stat.pid, signal.SIGTERM)
    try:
        launcher.wait(timeout=20)
    except subprocess.TimeoutExpired:
        launcher.kill()
        launcher.wait()


def seed(store: Path, data_root: Path) -> None:
    """Give a fresh data folder the golden images: layers as hard links, or copies on another filesystem."""
    (data_root / "image").mkdir(parents=True, exist_ok=True)
    shutil.copytree(store / "root/image" / DRIVER, data_root / "image" / DRIVER, dirs_exist_ok=True)
    same = os.stat(store).st_dev == os.stat(data_root).st_dev
    command = ["cp", "-a", *(["-l"] if same else []), str(store / "root" / DRIVER), str(data_root)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise TestnetError(f"cannot copy the golden images to {data_root}: {done.stderr.strip()[-500:]}")
