"""The third harness: the real programs in Linux network namespaces, behind real NATs.

What :mod:`simulations.virtual` imitates, the kernel does here: TCP, routing, connection tracking.
This needs root, iproute2 and nftables; :func:`why_not` says what is missing.
"""

from simulations.netns.internet import Host, Internet, NatKind, Site, why_not
from simulations.netns.program import Program

__all__ = ["Host", "Internet", "NatKind", "Program", "Site", "why_not"]
