from pathlib import Path

import numpy as np
import pytest
from torch import nn

from reverie.agents.world_models import WorldModelsConfig
from reverie.errors import ConfigError
from reverie.training.pipeline.frames import FrameStore
from reverie.training.pipeline.learning import Training
from reverie.training.pipeline.loading import vision_updates


def single(path, total, **options):
    """A number that starts at 0 and whose gradient is always 1: Adam moves it by the learning rate in every update."""
    module = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(module.weight)
    return Training(path, module, 0.1, total, **options)


def moves(training):
    """How far the number goes in every update that is left."""
    places = [training.module.weight.item()]
    while not training.complete:
        training.step({"loss": training.module.weight.sum()})
        places.append(training.module.weight.item())
    return [before - after for before, after in zip(places, places[1:], strict=False)]


@pytest.mark.parametrize(
    ("share", "expected"), [(1.0, [0.1, 0.1, 0.1, 0.1]), (0.2, [0.1, 0.08, 0.06, 0.04]), (0, [0.1, 0.075, 0.05, 0.025])]
)
def test_the_learning_rate_falls_linearly(tmp_path, share, expected):
    # 0.1 (1 - (1 - share) k / 4) in update k of 4: with 0.2 left, 0.1, 0.08, 0.06, 0.04.
    assert moves(single(tmp_path / "one", 4, anneal_to=share)) == pytest.approx(expected, rel=1e-5)


def test_the_learning_rate_falls_anew_in_every_iteration_and_after_a_resume(tmp_path):
    # Updates 4 to 7 are the second iteration; they begin with the full rate again.
    first = single(tmp_path / "one", 4, anneal_to=0.2)
    moves(first)
    first.save_if_due(0, force=True)
    second = single(tmp_path / "one", 8, begun=4, anneal_to=0.2)
    second.step({"loss": second.module.weight.sum()})
    second.save_if_due(0, force=True)
    resumed = single(tmp_path / "one", 8, begun=4, anneal_to=0.2)
    # Adam's moments come from the file, so the moves are the rates: 0.08, 0.06, 0.04 are left.
    assert moves(resumed) == pytest.approx([0.08, 0.06, 0.04], rel=1e-5)
    assert resumed.module.weight.item() == pytest.approx(-2 * (0.1 + 0.08 + 0.06 + 0.04), rel=1e-5)


def test_parts_of_a_pass():
    # 300 frames in batches of 20 are 15 updates a pass: 2 passes 30, half a pass 8 (7.5, rounded up), none 0.
    lengths = [100, 200]
    for epochs, updates in ((2.0, 30), (0.5, 8), (0.0, 0)):
        config = WorldModelsConfig(collect_episodes=2, vision_batch=20, vision_epochs=epochs)
        assert vision_updates(config, lengths, 0) == updates


def test_annealing_to_more_than_the_learning_rate_is_refused():
    with pytest.raises(ConfigError, match=r"at most 1, got 1\.5"):
        WorldModelsConfig(anneal_to=1.5)
    assert WorldModelsConfig(anneal_to=0).anneal_to == 0


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="only Linux says what it was advised")
def test_frames_are_read_at_random_without_reading_ahead(tmp_path):
    # The kernel's flag for such a mapping, "rr" in /proc/self/smaps, is there only while it is asked for.
    store = FrameStore(tmp_path, "image", 1, 100)

    def advised():
        part = Path("/proc/self/smaps").read_text().split("0_image.npy")[1]
        return "rr" in part.partition("VmFlags:")[2].partition("\n")[0].split()

    assert not advised()
    with store.read_at_random() as frames:
        assert frames.shape == (100, 64, 64, 3)
        assert frames.dtype == np.uint8
        assert advised()
    assert not advised()
