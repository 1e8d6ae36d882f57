"""Clusters of real nodes, and scenarios that check their own claims.

A *world* provides addresses, time and entropy; a *cluster* is the nodes that live in it; a
*scenario* is a story about a cluster, and knows neither sockets nor clocks. :func:`play` runs a
scenario in a cluster; ``python simulations/run_cluster.py`` does so on the command line.
"""

from __future__ import annotations

from simulations.cluster import Cluster
from simulations.expectations import Expectation, Expectations, Stopped
from simulations.member import Member, Role
from simulations.plan import ClusterPlan
from simulations.play import Outcome, play
from simulations.scenario import Figures, Scenario
from simulations.world import LoopbackWorld, VirtualWorld

__all__ = [
    "Cluster",
    "ClusterPlan",
    "Expectation",
    "Expectations",
    "Figures",
    "LoopbackWorld",
    "Member",
    "Outcome",
    "Role",
    "Scenario",
    "Stopped",
    "VirtualWorld",
    "play",
]
