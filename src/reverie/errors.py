"""Errors that a user can act on.

Each message is one sentence that states what came, what was expected and what to do. The command line prints it
without a traceback and exits with code 2.
"""


class ReverieError(Exception):
    """Base of every error that the user can fix."""


class EnvironmentProblem(ReverieError):
    """The environment is unknown, lacks a package, or broke its own contract."""


class EnvironmentInterrupted(EnvironmentProblem):
    """The environment did not return after Ctrl-C or SIGTERM, and the call was given up: a stop, not a fault."""


class SpaceError(ReverieError):
    """An observation or action space that no agent of the library can handle."""


class ConfigError(ReverieError):
    """A setting, or a combination of settings, that cannot work."""


class CheckpointError(ReverieError):
    """A checkpoint or saved agent that is missing, damaged or belongs to another configuration."""


class RunFolderError(ReverieError):
    """A run folder that cannot be written or that holds another run."""


class NumericalError(ReverieError):
    """A loss, prediction or weight is not finite."""
