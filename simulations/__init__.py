"""Clusters of real nodes, and scenarios that check what they show."""

from simulations.cluster import Cluster, ClusterPlan, Member
from simulations.expectations import Expectation, Expectations

__all__ = ["Cluster", "ClusterPlan", "Expectation", "Expectations", "Member"]
