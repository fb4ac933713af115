"""Beginning a run with what another one has learned: its weights, and if wanted its experience."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reverie.agents.imagination_agent import ImaginationAgent
from reverie.errors import CheckpointError, ConfigError, ReverieError, RunFolderError
from reverie.replay import SequenceReplay
from reverie.safe_files import refuse_links
from reverie.training.checkpoint import newest_state
from reverie.training.files import read_json
from reverie.training.model_files import find_weights, trained_steps
from reverie.training.run_folder import CONFIG_FILE


@dataclass(frozen=True)
class Origin:
    """Where a run gets its first weights from.

    Attributes:
        path: run folder, or a folder that an agent was saved to.
        checkpoint: in a run folder `best`, `latest`, or the name of a checkpoint.
        replay: take over the experience of the run's newest checkpoint, too.
    """

    path: Path
    checkpoint: str = "best"
    replay: bool = False

    def to_json(self) -> dict[str, Any]:
        """What `config.json` keeps."""
        steps = trained_steps(self.path, self.checkpoint)
        return {"run": str(self.path), "checkpoint": self.checkpoint, "replay": self.replay, "env_steps": steps}

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Origin:
        """Inverse of `to_json`.

        Raises:
            RunFolderError: the entry is damaged.
        """
        path, checkpoint, replay = (data.get(name) for name in ("run", "checkpoint", "replay"))
        if not isinstance(path, str) or not isinstance(checkpoint, str) or not isinstance(replay, bool):
            raise RunFolderError(f"the entry 'from' in {CONFIG_FILE} is damaged: {dict(data)}; choose another --run")
        return Origin(Path(path), checkpoint, replay)

    def load(self, agent: ImaginationAgent, name: str) -> None:
        """Puts the weights into a new agent.

        Args:
            agent: of the same kind and sizes, for the same observations and actions.
            name: of the agent.

        Raises:
            ConfigError: the weights are of another agent, or for other observations or actions.
            CheckpointError: they are missing or damaged, or have other sizes.
        """
        weights = find_weights(self.path, self.checkpoint)
        config = read_json(self.path / CONFIG_FILE)
        config = config if isinstance(config, dict) else {}
        if config.get("agent") != name:
            raise ConfigError(f"{self.path} holds an agent {config.get('agent')!r}, but the run is of {name!r}")
        if config.get("interface") != json.loads(json.dumps(agent.interface.to_json())):
            raise ConfigError(
                f"the agent in {self.path} has other observations or actions than this environment, so the run cannot "
                f"begin with its weights: choose an environment with the same spaces"
            )
        agent.load(weights)

    def fill(self, replay: SequenceReplay, folder: Path) -> None:
        """Copies the experience of the other run's newest checkpoint into an empty replay.

        Args:
            replay: of the new run, with as many environments and the same kind of storage.
            folder: the folder of the replay.

        Raises:
            CheckpointError: there is no experience, it is damaged, or it does not fit the replay.
        """
        state = newest_state(self.path)
        if "replay" not in state:
            raise CheckpointError(f"{self.path} has no experience to begin with; drop --from-replay")
        refuse_links(self.path / folder.name)
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self.path / folder.name, folder)
        try:
            replay.restore(state["replay"])
        except ReverieError as error:
            shutil.rmtree(folder, ignore_errors=True)
            raise CheckpointError(
                f"the experience in {self.path} cannot be taken over: {error}; or drop --from-replay"
            ) from error


def confirmed_origin(asked: Origin | None, history: Mapping[str, Any], path: Path, begun: bool) -> Origin | None:
    """Where a run gets its first weights from: as it is asked for, or as a run that is there began.

    Args:
        asked: what the user says.
        history: entries of the `config.json` that is there.
        path: of the run.
        begun: it has a checkpoint.

    Raises:
        RunFolderError: the run began in another way than it is asked for.
    """
    noted = Origin.from_json(history["from"]) if "from" in history else None
    if asked is not None and asked != noted and (begun or noted is not None):
        raise RunFolderError(
            f"the run in {path} began with {noted.path if noted else 'new weights'}, so it cannot begin with "
            f"{asked.path}: drop --from to resume it, or choose another folder with --run"
        )
    return asked or noted
