"""Environments: made from anything Gymnasium knows, spoken to in parts, run one at a time or many at once."""

import reverie.envs.suites  # noqa: F401 (registers the ids of the library's own tasks)
from reverie.envs.adapter import EnvironmentAdapter
from reverie.envs.extras import list_environments
from reverie.envs.make import EnvironmentSource, make
from reverie.envs.pool import EnvironmentPool, InProcessPool, Steps
from reverie.envs.vectorize import Vectorization, make_pool
from reverie.envs.worker_pool import WorkerPool

__all__ = [
    "EnvironmentAdapter",
    "EnvironmentPool",
    "EnvironmentSource",
    "InProcessPool",
    "Steps",
    "Vectorization",
    "WorkerPool",
    "list_environments",
    "make",
    "make_pool",
]
