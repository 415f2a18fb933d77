"""Full disks: small file systems in memory, which root may mount."""

import os
import subprocess
import sys

import pytest

from napari_fedsam.federation.site_state import Phase

pytestmark = [pytest.mark.federation, pytest.mark.faults, pytest.mark.slow]

_SIZE = "size=600m"


@pytest.fixture
def small_disk(tmp_path):
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("only root on Linux may mount a small disk")
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", _SIZE, "tmpfs", str(disk)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no small disk could be mounted: {mounted.stderr.decode().strip()}")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


@pytest.fixture(params=["site", "coordinator"])
def party(request):
    return request.param


@pytest.fixture
def folders(tmp_path, small_disk, party):
    return {"site": tmp_path / "site", "coordinator": tmp_path / "coordinator"} | {
        party: small_disk / party
    }


@pytest.fixture
def fill(small_disk):
    """Return a function that fills the disk to the last byte, and one that makes room again."""
    ballast = small_disk / "ballast"

    def fill():
        with ballast.open("wb", buffering=0) as handle:
            piece = bytes(1 << 20)
            while piece:
                try:
                    handle.write(piece)
                except OSError:
                    piece = piece[: len(piece) // 2]

    return fill, ballast.unlink


def test_a_full_disk_is_said_and_costs_nothing_but_time(federation, fill, party, recovery):
    fill_disk, make_room = fill
    running = federation.rounds(2)
    federation.wait_for(Phase.TRAINING)
    fill_disk()
    if party == "site":
        federation.wait_for(Phase.ERROR)
        assert "is full: make room" in federation.site.state.message
    else:
        federation.wait_until(
            lambda: any("waiting for room" in line for line in running.lines), 300, "it is told"
        )
    with recovery():
        make_room()
        running.finish()
    federation.assert_nothing_is_lost(2)
