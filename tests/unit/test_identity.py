"""The data folder and the seals: what is kept, what is refused, and that nothing opens with the wrong key."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from swarm.adapters import seal
from swarm.adapters.certificates import public_key_der
from swarm.adapters.identity import CLUSTER, GENERATION, KEY, NODE, ClusterFile, DataFolder, open_data_folder
from swarm.adapters.store import open_store
from swarm.adapters.store_file import GENERATION as STORE_GENERATION
from swarm.adapters.store_file import GenerationFile
from swarm.errors import StartRefused, Unauthenticated
from swarm.model.ids import ClusterId
from swarm.model.removal import Removal
from tests.fakes.loopback_members import node_of

CLUSTER_ID = ClusterId("ab" * 16)
WHOLE = ClusterFile(CLUSTER_ID, bytes(range(32)), 0, b"entry", (node_of(1), node_of(2)))


def opened(path: Path, name: str = "n1") -> DataFolder:
    return open_data_folder(path, name=name, rng=random.Random(1))


def belong(folder: DataFolder) -> None:
    """What a start makes beside the identity: a store, and then a cluster."""
    GenerationFile(folder.path).write(1)
    folder.save_cluster(WHOLE)


def test_a_folder_keeps_who_the_node_is_and_counts_its_starts(tmp_path: Path) -> None:
    first = opened(tmp_path / "data")
    belong(first)
    first.close()
    second = opened(tmp_path / "data", name="")
    assert (second.node_id, second.name, second.public_key) == (first.node_id, "n1", first.public_key)
    assert (first.generation, second.generation) == (1, 2)
    assert second.cluster == WHOLE
    second.close()


def test_everything_in_it_is_for_its_owner_only(tmp_path: Path) -> None:
    folder = opened(tmp_path / "data")
    folder.save_cluster(WHOLE)
    assert (tmp_path / "data").stat().st_mode & 0o777 == 0o700
    for path in (tmp_path / "data").iterdir():
        assert path.stat().st_mode & 0o077 == 0, path
    folder.close()


def test_what_a_node_was_told_of_its_removal_outlives_its_daemon_but_not_its_certainty(tmp_path: Path) -> None:
    for known in (Removal.TOLD, Removal.CERTAIN, Removal.NONE):
        folder = opened(tmp_path)
        folder.mark_removal(known)
        folder.close()
        again = opened(tmp_path)
        assert again.removal is (Removal.TOLD if known else Removal.NONE)
        again.close()


def test_two_daemons_cannot_share_a_folder(tmp_path: Path) -> None:
    folder = opened(tmp_path)
    with pytest.raises(StartRefused) as caught:
        opened(tmp_path)
    assert str(tmp_path) in caught.value.message and "another swarm daemon" in caught.value.cause
    folder.close()
    opened(tmp_path).close()


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StartRefused) as caught:
        opened(tmp_path / "file" / "data")
    assert str(tmp_path / "file" / "data") in caught.value.message and "Not a directory" in caught.value.cause


@pytest.mark.parametrize("broken", [NODE, CLUSTER, GENERATION, KEY])
def test_a_damaged_file_is_named_and_nothing_is_changed(tmp_path: Path, broken: str) -> None:
    folder = opened(tmp_path)
    belong(folder)
    folder.close()
    (tmp_path / broken).write_bytes(b"\x00garbage")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(StartRefused, match=broken):
        opened(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("missing", [NODE, KEY, GENERATION, STORE_GENERATION])
def test_a_folder_with_a_part_missing_is_not_filled_up_with_a_new_identity(tmp_path: Path, missing: str) -> None:
    folder = opened(tmp_path)
    belong(folder)
    folder.close()
    (tmp_path / missing).unlink()
    with pytest.raises(StartRefused, match="cannot use the data folder"):
        opened(tmp_path)
    assert not (tmp_path / missing).exists()


def test_a_wiped_store_does_not_begin_again_under_the_generation_that_votes(tmp_path: Path) -> None:
    folder = opened(tmp_path)
    open_store(tmp_path)
    folder.save_cluster(WHOLE)
    folder.close()
    for path in (*tmp_path.glob("log.db*"), tmp_path / STORE_GENERATION):
        path.unlink()
    with pytest.raises(StartRefused) as caught:
        opened(tmp_path)
    assert STORE_GENERATION in caught.value.cause and "swarm reset" in caught.value.hint


def test_a_certificate_outlives_every_switched_off_cluster_and_names_the_node(tmp_path: Path) -> None:
    folder = opened(tmp_path)
    folder.save_cluster(WHOLE)
    certificate = x509.load_pem_x509_certificate(folder.peer_credentials().certificate)
    assert (certificate.not_valid_before_utc.year, certificate.not_valid_after_utc.year) == (2000, 9999)
    assert certificate.subject.rfc4514_string() == f"CN={folder.node_id}"
    assert public_key_der(certificate.public_key()) == folder.public_key  # type: ignore[arg-type]
    folder.close()


def test_founding_and_cluster_have_different_authorities(tmp_path: Path) -> None:
    folder = opened(tmp_path)
    folder.save_cluster(WHOLE)
    boot, peer = folder.boot_credentials(WHOLE.secret), folder.peer_credentials()
    assert boot.authority_fingerprint != peer.authority_fingerprint
    folder.close()


ONE, OTHER = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())


@given(st.binary(max_size=300))
def test_what_is_sealed_to_a_node_only_that_node_opens(plaintext: bytes) -> None:
    sealed = seal.seal_to_node(public_key_der(ONE.public_key()), plaintext, b"registry")
    assert seal.open_as_node(ONE, sealed, b"registry") == plaintext
    for key, purpose in ((OTHER, b"registry"), (ONE, b"secret")):
        with pytest.raises(Unauthenticated):
            seal.open_as_node(key, sealed, purpose)


@given(st.binary(max_size=200))
def test_any_bytes_as_a_seal_are_unauthenticated(data: bytes) -> None:
    with pytest.raises(Unauthenticated):
        seal.open_as_node(ONE, data, b"registry")
    with pytest.raises(Unauthenticated):
        seal.open_with_key(bytes(32), data, b"registry")
    with pytest.raises(Unauthenticated):
        seal.seal_to_node(data, b"", b"registry")


def test_a_shared_seal_opens_with_its_key_and_purpose() -> None:
    sealed = seal.seal_with_key(bytes(32), b"auth", b"registry")
    assert seal.open_with_key(bytes(32), sealed, b"registry") == b"auth"
    with pytest.raises(Unauthenticated):
        seal.open_with_key(bytes(32), sealed, b"other")
