"""EGTP: reach a peer by its identity, wherever it is now.

All you know is a 20-byte peerId. ``await node.query(peer_id, "kind", body)`` reaches that peer over
direct TCP, through a relay, or over a connection that it opened, encrypted end to end, and tells
the truth about the outcome.
"""

from egtp import blocking
from egtp.admission_file import AdmissionFile
from egtp.config import NodeConfig
from egtp.discovery_service import DiscoveryService, Introduction
from egtp.environment import Environment, local_addresses
from egtp.errors import (
    EgtpError,
    FastFail,
    FastFailReason,
    HandlerFailed,
    HardTimeout,
    HedgeFailed,
    InvalidConfig,
    InvalidRecord,
    LocalProtocolError,
    LookupFailed,
    LookupFailure,
    NodeClosed,
    OutcomeUnknown,
    ProtocolError,
    PublishFailed,
    QueryFailed,
    RemoteProtocolError,
    WrongLoop,
)
from egtp.handling.handlers import Handler, Incoming
from egtp.hedging import HedgedReply, hedge
from egtp.identity_file import IdentityFile
from egtp.lookup import LookupChain, LookupRace, LookupService, MemoryLookup, Published
from egtp.node import Node
from egtp.open_query import OpenQuery
from egtp.own.friends import Friends
from egtp.own.own_addresses import OwnAddress, OwnState
from egtp.queries.answer_limits import AnswerLimits
from egtp.reaching.peer import Explanation
from egtp.relay.leases import RelayLimits
from egtp.values.attempts import Attempt, AttemptReason
from egtp.values.comm_record import CommRecord, SignedCommRecord
from egtp.values.comm_strat import Address, CommStrat, CryptoStrat, RelayStrat, TCPStrat
from egtp.values.contact_link import ContactLink
from egtp.values.identity import Identity, NodeId
from egtp.values.message import ReplyCode

__version__ = "0.1.0"

__all__ = [
    "Node",
    "blocking",
    "NodeConfig",
    "AnswerLimits",
    "NodeId",
    "Identity",
    "IdentityFile",
    "ContactLink",
    "Handler",
    "Incoming",
    "OpenQuery",
    "hedge",
    "HedgedReply",
    "ReplyCode",
    "Explanation",
    "EgtpError",
    "QueryFailed",
    "FastFail",
    "FastFailReason",
    "Attempt",
    "AttemptReason",
    "HardTimeout",
    "HandlerFailed",
    "HedgeFailed",
    "OutcomeUnknown",
    "NodeClosed",
    "LookupFailed",
    "LookupFailure",
    "PublishFailed",
    "ProtocolError",
    "LocalProtocolError",
    "RemoteProtocolError",
    "InvalidConfig",
    "InvalidRecord",
    "WrongLoop",
    "LookupService",
    "LookupChain",
    "LookupRace",
    "MemoryLookup",
    "Friends",
    "Published",
    "DiscoveryService",
    "Introduction",
    "RelayLimits",
    "AdmissionFile",
    "Address",
    "CommRecord",
    "SignedCommRecord",
    "CommStrat",
    "TCPStrat",
    "RelayStrat",
    "CryptoStrat",
    "Environment",
    "local_addresses",
    "OwnAddress",
    "OwnState",
]
