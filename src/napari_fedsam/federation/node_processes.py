"""Starting Flower's SuperNode and SuperExec for a site."""

import json
import os
import secrets
import socket
import sys

from napari_fedsam.federation.attended import attended_command
from napari_fedsam.federation.invitation import Invitation
from napari_fedsam.federation.keys import write_private_file
from napari_fedsam.federation.processes import ProcessTable, child_environment
from napari_fedsam.federation.site_files import PROFILE_KEY, SITE_FOLDER_KEY, SiteFiles
from napari_fedsam.files import make_private_folder, write_text_atomically

NODE = "supernode"
SUPEREXEC = "superexec"


def start_node(
    table: ProcessTable,
    files: SiteFiles,
    invitation: Invitation,
    *,
    detached: bool,
    threads: int | None,
) -> None:
    """Start the node and, apart from it, the SuperExec that runs our ClientApp.

    Parameters
    ----------
    table : ProcessTable
        The site's processes.
    files : SiteFiles
        The site's files; the key pair exists.
    invitation : Invitation
        Gives the address, the CA certificate and the pinned bundle.
    detached : bool
        Whether the processes outlive this program.
    threads : int or None
        Threads for numerical libraries, None for the default.
    """
    folder = files.folder.resolve()
    environment = child_environment(make_private_folder(folder / "flower"), threads=threads)
    # Without it, any program on this machine could fetch tasks from the node's local port.
    secret = folder / "superexec.secret"
    write_private_file(secret, secrets.token_hex(32).encode("ascii"))
    # A file, for Flower's text form of the same splits at spaces and cannot hold every path.
    node_config = folder / "node.toml"
    where = {SITE_FOLDER_KEY: str(files.site.resolve()), PROFILE_KEY: files.profile}
    lines = (f"{key} = {json.dumps(value, ensure_ascii=False)}\n" for key, value in where.items())
    write_text_atomically(node_config, "".join(lines))
    port = _free_port()
    node = table.start(
        NODE,
        [
            *(sys.executable, "-m", "napari_fedsam.federation.supernode"),
            *("--site-folder", str(files.site.resolve())),
            *("--profile", files.profile),
            *("--pinned-bundle", invitation.bundle_sha256),
            *(["--hold-lock"] if detached else ["--parent-pid", str(os.getpid())]),
            *("--superlink", invitation.address),
            *("--root-certificates", str(files.authority.resolve())),
            *("--auth-supernode-private-key", str(files.private_key.resolve())),
            *("--node-config", str(node_config)),
            *("--isolation", "process"),
            *("--superexec-auth-secret-file", str(secret)),
            *("--host", "127.0.0.1", "--port", str(port)),
        ],
        environment,
    )
    table.start(
        SUPEREXEC,
        attended_command(
            [
                "flower-superexec",
                "--insecure",
                *("--runtime-api-address", f"127.0.0.1:{port}"),
                *("--superexec-auth-secret-file", str(secret)),
            ],
            end_with=node.pid,
        ),
        environment,
        # The training runs below it, and must not slow down the window.
        low_priority=True,
    )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
