"""The third harness: the real programs in network namespaces of the Linux kernel, behind real NATs.

What :mod:`simulations.virtual` imitates is done by the kernel here: its TCP, its routing, its
connection tracking. It needs root, iproute2 and nftables; :func:`why_not` says what is missing.
"""

from simulations.netns.internet import Host, Internet, NatKind, Site, why_not
from simulations.netns.program import Program

__all__ = ["Host", "Internet", "NatKind", "Program", "Site", "why_not"]
