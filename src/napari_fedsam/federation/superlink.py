"""Starting Flower's SuperLink for a coordinator: loopback, TLS, registered keys, on disk."""

import secrets

from napari_fedsam.federation.certificates import CertificateFiles
from napari_fedsam.federation.control import wait_until_answering
from napari_fedsam.federation.coordinator_status import COORDINATOR_VARIABLE, CoordinatorSettings
from napari_fedsam.federation.errors import FederationError
from napari_fedsam.federation.keys import write_private_file
from napari_fedsam.federation.processes import ProcessTable, child_environment, flower_command
from napari_fedsam.files import make_private_folder

SUPERLINK = "superlink"
SUPEREXEC = "superexec"

_START_SECONDS = 60.0


def start_superlink(
    table: ProcessTable, settings: CoordinatorSettings, certificates: CertificateFiles
) -> None:
    """Start SuperLink and, apart from it, the SuperExec that runs our ServerApp.

    Apart, so that a run outlives a crash of SuperLink. Returns once SuperLink answers.

    Parameters
    ----------
    table : ProcessTable
        The coordinator's processes; its folder also takes the database and Flower's files.
    settings : CoordinatorSettings
        Gives the port.
    certificates : CertificateFiles
        The server's certificate and its authority.

    Raises
    ------
    FederationError
        When it does not come up, with the reason; nothing is left running then.
    """
    environment = child_environment(make_private_folder(table.folder / "flower"))
    environment[COORDINATOR_VARIABLE] = str(table.folder.resolve())
    # Only who holds this secret may fetch tasks, and with them the right to act as the ServerApp.
    secret = table.folder / "superexec.secret"
    write_private_file(secret, secrets.token_hex(32).encode("ascii"))
    table.start(SUPERLINK, _superlink_command(table, settings, certificates), environment)
    try:
        if not _comes_up(table, settings, certificates):
            raise FederationError(_reason(table, settings))
        table.start(
            SUPEREXEC,
            [
                flower_command("flower-superexec"),
                *("--runtime-api-address", settings.local_address),
                *("--root-certificates", str(certificates.authority.resolve())),
                *("--superexec-auth-secret-file", str(secret.resolve())),
            ],
            environment,
        )
    except BaseException:
        table.end_all()
        raise


def _superlink_command(
    table: ProcessTable, settings: CoordinatorSettings, certificates: CertificateFiles
) -> list[str]:
    return [
        flower_command("flower-superlink"),
        *("--host", "127.0.0.1", "--port", str(settings.port)),
        *("--ssl-certfile", str(certificates.server.resolve())),
        *("--ssl-keyfile", str(certificates.server_key.resolve())),
        *("--ssl-ca-certfile", str(certificates.authority.resolve())),
        "--enable-supernode-auth",
        *("--database", str((table.folder / "superlink.db").resolve())),
        *("--isolation", "process"),
        *("--superexec-auth-secret-file", str((table.folder / "superexec.secret").resolve())),
        "--disable-runtime-dependency-installation",
    ]


def _comes_up(
    table: ProcessTable, settings: CoordinatorSettings, certificates: CertificateFiles
) -> bool:
    return wait_until_answering(
        settings.local_address,
        certificates.authority,
        seconds=_START_SECONDS,
        while_true=lambda: table.running(SUPERLINK),
    )


def _reason(table: ProcessTable, settings: CoordinatorSettings) -> str:
    if "address already in use" in table.log_text(SUPERLINK).lower():
        return (
            f"Port {settings.port} is in use by another program; stop that program, or set up the "
            "coordinator with another port."
        )
    return f"SuperLink did not start; its log is {table.folder / 'logs' / SUPERLINK}.log."
