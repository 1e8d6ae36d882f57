"""Every error that EGTP raises, in one tree.

There is a leaf wherever a caller would *do* something different::

    EgtpError
    ├── QueryFailed                   it ended in no reply; .may_have_run
    │   ├── FastFail (ConnectionError)    nothing left this machine; .reason, and .attempts
    │   ├── HardTimeout (TimeoutError)    the hard timeout passed; all about the query is freed
    │   ├── OutcomeUnknown                a copy was given away, and nobody can know the outcome
    │   ├── HandlerFailed                 the peer answered with a code other than ok
    │   │   └── Refusal                   how the library's own handlers answer; internal
    │   └── HedgeFailed                   none of the peers replied; .outcomes has that of each
    ├── NodeClosed                    this node was closed while the query was open
    ├── LookupFailed                  a lookup service has no usable record; .reason
    ├── PublishFailed                 nobody stored the record
    ├── ProtocolError
    │   ├── LocalProtocolError (ValueError)    this side did what the protocol forbids
    │   └── RemoteProtocolError                the other side did what the protocol forbids
    │       ├── CanonicalError        bytes that are not the canonical form of any value
    │       ├── InvalidMessage        not a query, reply or send
    │       ├── InvalidRecord         a record that must not be believed
    │       ├── InvalidPacket         a packet or item that cannot be read
    │       └── HandshakeFailed       a handshake that proves nothing
    ├── NotSent                       a packet could not be put into a socket's buffer; internal
    ├── InvalidConfig (ValueError)    a setting, file or option that cannot work; says what to do
    └── WrongLoop (RuntimeError)      a call from another process, thread or loop than the node's

What a *stranger* sends never raises an error in an application: it is dropped and counted. Decoders
raise the branch below :class:`RemoteProtocolError` to the layer that counts.
"""

from __future__ import annotations

import enum
from typing import Final

# For annotations alone, which name what is built on these errors, and can be resolved all the same.
import egtp

__all__ = [
    "CanonicalError",
    "EgtpError",
    "FastFail",
    "FastFailReason",
    "HandlerFailed",
    "HandshakeFailed",
    "HardTimeout",
    "HedgeFailed",
    "InvalidConfig",
    "InvalidMessage",
    "InvalidPacket",
    "InvalidRecord",
    "LocalProtocolError",
    "LookupFailed",
    "LookupFailure",
    "NodeClosed",
    "NotSent",
    "OutcomeUnknown",
    "ProtocolError",
    "PublishFailed",
    "QueryFailed",
    "Refusal",
    "RemoteProtocolError",
    "WrongLoop",
]


NOT_RUN: Final = (1, 3)
"""The codes "no such kind" and "busy"."""


class EgtpError(Exception):
    """The root: ``except EgtpError`` catches everything this library raises on purpose."""

    def __reduce__(self) -> tuple[object, ...]:
        # Constructors take more than the message; a copy is restored without calling them.
        return _restored, (type(self), self.args, self.__dict__)


def _restored(
    kind: type[EgtpError], args: tuple[object, ...], state: dict[str, object]
) -> EgtpError:
    error = kind.__new__(kind)
    error.args = args  # OSError takes them in __init__ only
    error.__dict__.update(state)
    return error


class QueryFailed(EgtpError):
    """A query ended in no reply, though nothing is wrong with the call: the peer, the network or
    time did not allow for one. To try again may help, and :attr:`may_have_run` says what that may
    do.

    A closed node (:class:`NodeClosed`) and a wrong call are no such failures: there, trying again
    is in vain.
    """

    may_have_run: bool
    """Whether the peer may have run the query."""


class FastFailReason(enum.Enum):
    """Why nothing could leave this machine. The value is a phrase for people; ``docs/outcomes.md``
    lists every cause, each with its test."""

    NO_WAY = "no way to reach the peer"
    """Every known strategy was tried and new ones were looked up; ``attempts`` says what each ended
    in."""
    AWAY = "the peer asked to be left alone"
    TOO_LARGE = "the body is larger than this node or the peer takes"
    TOO_MANY_OPEN = "more queries are open than this node or the peer takes"
    TOO_MUCH_WAITS = "too many bytes wait for the peer already"
    NO_TIME = "time was over before there was a way"
    """For a ``send`` only; a query ends in :class:`HardTimeout`."""
    CLOSED = "this node is closed"
    """For errands of the engine only; callers get :class:`NodeClosed`."""


class FastFail(QueryFailed, ConnectionError):
    """No copy of the message was ever given to a socket (seed III.C, R20 and R21).

    This is decided from what this machine knows: no peer or relay can cause it wrongly. The message
    certainly had no effect, so the caller may do anything, including trying again.
    """

    may_have_run: bool = False
    """Nothing left this machine."""

    def __init__(
        self,
        summary: str,
        attempts: tuple[egtp.Attempt, ...] = (),
        reason: FastFailReason = FastFailReason.NO_WAY,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(summary)
        self.summary = summary
        """What happened, in words."""
        self.attempts = attempts
        """An :class:`Attempt` for each strategy tried or passed over, and for each lookup."""
        self.reason = reason
        """The :class:`FastFailReason`, to tell cases apart."""
        self.retry_after_s = retry_after_s
        """For how many seconds the peer asked to be left alone (``AWAY``); None if it did not."""

    def __str__(self) -> str:
        return "; ".join([self.summary, *map(str, self.attempts)])


class HardTimeout(QueryFailed, TimeoutError):
    """The hard timeout passed (R5): everything about the query is freed, and a later reply is
    dropped. The message says whether the peer may have run the query, and when the peer was last
    heard from."""

    def __init__(self, summary: str, *, may_have_run: bool) -> None:
        super().__init__(summary)
        self.may_have_run: bool = may_have_run
        """False only if no copy of the query was ever given to a socket."""


class OutcomeUnknown(QueryFailed):
    """A copy of the query was given away, and nobody can know any more whether it had an effect:
    the peer was closed or restarted after it had been given the query."""

    may_have_run: bool = True
    """Nobody can know."""


class NodeClosed(EgtpError):
    """The node was closed before or during the call, or was not started."""

    def __init__(self, summary: str = "this node is closed", *, may_have_run: bool = False) -> None:
        super().__init__(summary)
        self.may_have_run: bool = may_have_run
        """False if no copy of the query was ever given to a socket."""


class HandlerFailed(QueryFailed):
    """The peer answered the query with a code other than ok (see :class:`ReplyCode`), and ``body``.

    A handler raises it to answer with a code of the application's own (64-127). With any other code
    it is a bug like any other exception, and the answer is "handler error". The same goes for the
    :class:`HandlerFailed` of a query that the handler itself has asked: what a third peer said
    there tells nothing of what this handler has done.
    """

    peer_id: egtp.NodeId | None = None
    """The peer that answered; None in an error that a handler makes."""

    def __init__(self, code: int, body: bytes = b"", summary: str = "") -> None:
        super().__init__(summary or f"the answer is code {code}")
        self.code = code
        """A :class:`ReplyCode`, or a code of the application's own."""
        self.body = body
        """What the handler sent beside the code."""
        self.may_have_run: bool = code not in NOT_RUN
        """False if the peer says that no handler ran: it has none for this kind, or is busy."""


class Refusal(HandlerFailed):
    """Raised by the library's own handlers to answer with a code of the protocol."""

    def __init__(self, code: int, body: bytes = b"", counted: str = "") -> None:
        super().__init__(code, body)
        self.counted = counted
        """The counter that counts it, if whoever raises it has none."""


class HedgeFailed(QueryFailed):
    """None of the peers that :func:`egtp.hedge` was given replied.

    This is not an ``ExceptionGroup``: a hedge is one question with one outcome, which ``except
    EgtpError`` catches as it does for a query.
    """

    def __init__(
        self,
        outcomes: tuple[tuple[egtp.NodeId, EgtpError], ...],
        not_asked: tuple[egtp.NodeId, ...] = (),
    ) -> None:
        count = len(outcomes) + len(not_asked)
        super().__init__(
            "the peer did not reply" if count == 1 else f"none of {count} peers replied"
        )
        self.outcomes = outcomes
        """Every peer that was asked, in order, with the error that its query ended in."""
        self.not_asked = not_asked
        """The peers whose turn did not come before the hard timeout."""
        self.may_have_run: bool = any(getattr(error, "may_have_run", True) for _, error in outcomes)
        """False only if none of the peers can have run the query."""

    def __str__(self) -> str:
        told = [f"{peer_id}: {error}" for peer_id, error in self.outcomes]
        told += [f"{peer_id}: not asked, time was up" for peer_id in self.not_asked]
        return "; ".join([str(self.args[0]), *told])


class LookupFailure(enum.Enum):
    """Why a lookup gave no record. The value is a phrase for people. Those that follow say more: of
    several lookup services, the last of their reasons counts."""

    NO_NODES = "no nodes to ask"
    NO_NETWORK = "this machine can send nothing to any node"
    NO_RESPONSES = "no node answered"
    NOT_FOUND = "no record found"
    INVALID = "only invalid records found"
    SUPERSEDED = "no record newer than the one known"


class LookupFailed(EgtpError):
    """A lookup service has no usable record."""

    def __init__(self, reason: LookupFailure, summary: str = "") -> None:
        super().__init__(summary or reason.value)
        self.reason = reason
        """The :class:`LookupFailure`."""


class PublishFailed(EgtpError):
    """No node stored the record, so nobody can find its peer through that lookup service."""


class ProtocolError(EgtpError):
    """Something broke the protocol; the subclass says which side."""


class LocalProtocolError(ProtocolError, ValueError):
    """This side asked for something that the protocol does not allow, such as a wrong argument."""


class RemoteProtocolError(ProtocolError):
    """The other side sent something that the protocol does not allow."""


class CanonicalError(RemoteProtocolError):
    """Bytes that are not the canonical form of any allowed value (R2)."""


class InvalidMessage(RemoteProtocolError):
    """Canonical bytes that are not a query, a reply or a send."""


class InvalidRecord(RemoteProtocolError):
    """A comm record that must not be believed: malformed, wrongly signed, or of another peer."""


class InvalidPacket(RemoteProtocolError):
    """A frame, packet or sealed item that cannot be read."""


class HandshakeFailed(RemoteProtocolError):
    """A handshake message that does not authenticate, or proves the wrong peer."""


class NotSent(EgtpError):
    """A strategy could not hand a packet to a socket. The engine turns it into an attempt."""

    def __init__(self, reason: str) -> None:
        """``reason`` is an :class:`AttemptReason`, or what a connection ended for, in words."""
        super().__init__(reason)
        self.reason = reason


class InvalidConfig(EgtpError, ValueError):
    """A setting, file or option that cannot work. The message says what to do about it."""


FORKED: Final = (
    "this process was forked from the one that the node is in; the node and its connections stay "
    "there: create a new node here, with an identity of its own"
)


class WrongLoop(EgtpError, RuntimeError):
    """A node was used from another process, thread or event loop than the one it runs on (R15)."""


def in_words(error: Exception) -> str:
    """What the system says went wrong, in lower case for the middle of a sentence."""
    said = error.strerror if isinstance(error, OSError) else None
    return (said or str(error)).lower() or type(error).__name__
