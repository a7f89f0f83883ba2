"""The scheduler: which node a task runs on. Pure: a view in, a plan out."""

from swarm.scheduler.explain import explain
from swarm.scheduler.plan import Plan, Planner, plan
from swarm.scheduler.rank import Policy

__all__ = ["Plan", "Planner", "Policy", "explain", "plan"]
