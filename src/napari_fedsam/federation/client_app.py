"""Flower's ClientApp: trains and judges at the site, and lets only codes and numbers out."""

import contextlib
import logging
from collections.abc import Callable
from pathlib import Path

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.supercore.inflatable.inflatable_object import no_object_id_recompute

from napari_fedsam.errors import FedSamError
from napari_fedsam.federation.audit import append_audit, describe_message
from napari_fedsam.federation.errors import FederationError, RefusedMessageError, ReplyCode
from napari_fedsam.federation.messages import round_of, unknown_request
from napari_fedsam.federation.round_work import judge_round, train_round
from napari_fedsam.federation.sent import keep_sent
from napari_fedsam.federation.site_files import PROFILE_KEY, SITE_FOLDER_KEY, SiteFiles
from napari_fedsam.federation.site_state import Phase
from napari_fedsam.federation.site_status import update_status
from napari_fedsam.training.profile_folder import FIRST

# Flower's own codes are single digits.
_ERROR_CODE = 100

_log = logging.getLogger(__name__)

app = ClientApp()


@app.train()  # type: ignore[untyped-decorator]
def train(message: Message, context: Context) -> Message:
    """Answer with this site's update of the shared parameters."""
    return _answer(message, context, train_round)


@app.evaluate()  # type: ignore[untyped-decorator]
def evaluate(message: Message, context: Context) -> Message:
    """Judge the aggregated model on this site's held-out cases; answer with its Dice."""
    return _answer(message, context, judge_round)


@app.query()  # type: ignore[untyped-decorator]
def query(message: Message, context: Context) -> Message:
    """Refuse: a site trains and judges, and answers nothing else."""

    def refuse(_content: RecordDict, _files: SiteFiles) -> RecordDict:
        raise unknown_request("an answer to a query")

    return _answer(message, context, refuse)


def _answer(
    message: Message, context: Context, work: Callable[[RecordDict, SiteFiles], RecordDict]
) -> Message:
    where = context.node_config
    files = SiteFiles(Path(str(where[SITE_FOLDER_KEY])), str(where.get(PROFILE_KEY, FIRST)))
    try:
        reply = Message(work(message.content, files), reply_to=message)
    except RefusedMessageError as error:
        reply = _refusal(message, files, error.code, str(error))
    except FedSamError as error:
        _log.exception("The round failed.")
        reply = _refusal(message, files, ReplyCode.FAILED, str(error))
    except Exception:  # noqa: BLE001 - Flower would send str(exception) to the coordinator
        _log.exception("The round failed.")
        reason = "The round failed for a reason that napari-fedsam does not know; see the log."
        reply = _refusal(message, files, ReplyCode.FAILED, reason)
    _record(reply, files, round_of(message.content))
    return reply


def _refusal(message: Message, files: SiteFiles, code: ReplyCode, reason: str) -> Message:
    waits = code in (
        ReplyCode.TOO_FEW_CASES,
        ReplyCode.DECLINED,
        ReplyCode.PRIVACY_SPENT,
        ReplyCode.PARAMETERS_MISSING,
    )
    # On a full disk the panel sees by itself what the matter is.
    with contextlib.suppress(OSError):
        update_status(files.status, phase=Phase.WAITING if waits else Phase.ERROR, message=reason)
    return Message(Error(_ERROR_CODE, code.value), reply_to=message)


def _record(reply: Message, files: SiteFiles, round_number: int) -> None:
    try:
        # Nothing changes the reply meanwhile, and its checksums go over all of its arrays.
        with no_object_id_recompute():
            keep_sent(files.sent, reply)
            append_audit(files.audit, describe_message(reply, round_number))
    except OSError:
        _log.exception("The audit log could not be written; nothing was sent.")
        # Raised without its cause: Flower would send the text of an OSError, path included.
        raise FederationError(ReplyCode.FAILED.value) from None
