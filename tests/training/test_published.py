import re
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from reverie.envs.suites import OPTIONAL_TASKS
from reverie.errors import ReverieError
from reverie.training.published import (
    KINDS,
    available,
    choose_scores,
    frames_in_a_step,
    published_scores,
    published_tables,
    published_tasks,
    refuse_without_scores,
    task_key,
)
from reverie.training.published_lines import draw_published, published_label, view_end

AGENTS = {None, "world-models", "planet", "dreamer-v1", "dreamer-v2", "dreamer-v3"}
TABLES = {table.file: table for table in published_tables()}
SWINGUP = "dmc/cartpole-swingup-v0"


def row(file, task):
    return {score.name: score for score in TABLES[file].scores(task)}


@pytest.mark.parametrize("file", TABLES)
def test_every_file_says_where_it_comes_from_and_what_it_counts(file):
    table = TABLES[file]
    assert "arXiv:" in table.source or "github.com/" in table.source
    assert table.reference and table.x and table.score and table.tasks.keys() | table.further.keys()
    names = [(series["name"], series["observation"]) for series in table.series]
    assert len(set(names)) == len(names)
    for series in table.series:
        assert set(series) == {"agent", "name", "kind", "observation", "frames", "seeds"}
        assert series["kind"] in KINDS and series["agent"] in AGENTS
        assert (series["agent"] is None) == (series["kind"] in ("baseline", "reference"))
        assert series["frames"] == [None] or series["frames"] == sorted(set(series["frames"]))
    columns = sum(len(series["frames"]) for series in table.series)
    assert all(len(cells) == columns for cells in table.tasks.values())
    assert len({task_key(task) for task in table.tasks}) == len(table.tasks)
    for task in table.tasks:
        for score in table.scores(task):
            assert len(score.frames) == len(score.mean) == len(score.deviation) > 0
            assert np.isfinite(score.mean).all() and not (score.deviation < 0).any()
            assert table.deviation or np.isnan(score.deviation).all()


def test_a_wheel_contains_the_files():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    patterns = project["tool"]["setuptools"]["package-data"]["reverie"]
    assert all(any(fnmatch(f"training/published_scores/{file}", pattern) for pattern in patterns) for file in TABLES)


def test_numbers_of_the_papers():
    assert row("planet_table_1.json", SWINGUP)["PlaNet"].mean.tolist() == [821]
    assert row("planet_table_1.json", SWINGUP)["PlaNet"].frames.tolist() == [1e6]
    assert row("planet_table_1.json", "dmc/walker-walk-v0")["planning with the true simulator"].mean == [994]
    assert row("dreamer_v1_table.json", SWINGUP)["PlaNet with action repeat 2"].mean.tolist() == [312.56]
    assert row("dreamer_v1_table.json", "dmc/hopper-hop-v0")["Dreamer"].mean.tolist() == [368.97]
    assert "A3C" not in row("dreamer_v1_table.json", "dmc/quadruped-run-v0")
    curve = row("dreamer_v1_curves.json", "dmc/pendulum-swingup-v0")["Dreamer"]
    assert (curve.frames[2], curve.mean[2], curve.deviation[2]) == (205_000, 774, 26)
    curve = row("dreamer_v2_dmc_curves.json", "dmc/ball_in_cup-catch-v0")["DreamerV2"]
    assert (curve.frames[-1], curve.mean[-1], curve.deviation[-1]) == (1_980_000, 777, 372)
    assert row("dreamer_v2_atari.json", "ALE/Jamesbond-v5")["human gamer"].mean.tolist() == [303]
    curve = row("dreamer_v2_atari_curves.json", "ALE/Pong-v5")["DreamerV2"]
    assert curve.frames.tolist() == [1e6, 3e6, 5e6, 1e7, 5e7, 2e8]
    assert curve.mean.tolist() == [-18.8, -0.7, 11.5, 17.6, 19.6, 18.4]
    assert row("dreamer_v3_dmc_proprio.json", "dmc/hopper-stand-v0")["DreamerV3"].mean[-1] == 585
    boxing = row("dreamer_v3_atari_100k.json", "ALE/Boxing-v5")["DreamerV3, Atari 100k"]
    assert boxing.mean.tolist() == [32, 51, 79.4] and boxing.frames[-1] == 400_000
    driving = row("world_models_car_racing.json", "reverie/CarRacing-v0")["World Models"]
    assert (driving.mean, driving.deviation) == ([906], [21]) and np.isnan(driving.frames).all()
    dodging = row("world_models_take_cover.json", "reverie/TakeCover-v0")["World Models, temperature 1.15"]
    assert (dodging.mean, dodging.deviation) == ([1092], [556])


@pytest.mark.parametrize("file", ["dreamer_v1_table.json", "dreamer_v1_curves.json", "dreamer_v2_dmc_curves.json"])
def test_rows_average_to_the_printed_average(file):
    table = TABLES[file]
    for name, printed in table.further["average over tasks"].items():
        rows = [score.mean for task in table.tasks for score in table.scores(task) if score.name == name]
        tolerance = 0.01 if file == "dreamer_v1_table.json" else 0.6  # two decimals, or rounded to whole numbers
        np.testing.assert_allclose(np.mean(rows, axis=0), np.atleast_1d(printed), atol=tolerance)


def test_atari_rows_give_the_summary_of_the_paper():
    rows = [row("dreamer_v2_atari.json", task) for task in TABLES["dreamer_v2_atari.json"].tasks]
    value = {name: np.array([scores[name].mean[0] for scores in rows]) for name in rows[0]}
    random = value["random player"]
    gamer = (value["DreamerV2"] - random) / (value["human gamer"] - random)
    record = (value["DreamerV2"] - random) / (value["human record"] - random)
    # 2.15, 11.33, 0.44 and 0.28 in table 1; the games of table K.1 are printed in whole numbers, so the mean differs
    assert len(rows) == 55
    assert [np.median(gamer), gamer.mean()] == pytest.approx([2.15, 11.25], abs=0.006)
    assert [record.mean(), record.clip(max=1).mean()] == pytest.approx([0.438, 0.279], abs=0.0006)


@pytest.mark.parametrize(
    "known, others",
    [
        ("dmc/walker-walk-v0", ["dmc/walker_walk", "dmc-walker-walk-v0", "dm_control/walker-walk-v0"]),
        ("dmc/ball_in_cup-catch-v0", ["reverie.envs:dmc/ball_in_cup-catch-v0", "dm_control/ball_in_cup-catch-v1"]),
        ("ALE/MsPacman-v5", ["ale_py:ALE/MsPacman-v5", "ALE-MsPacman-v5", "MsPacmanNoFrameskip-v4"]),
        ("reverie/CarRacing-v0", ["CarRacing-v3", "reverie-CarRacing-v0", "reverie/WorldModelsCarRacing-v0"]),
        ("reverie/TakeCover-v0", ["VizdoomTakeCover-v1", "reverie-TakeCover-v0"]),
        ("procgen/coinrun", ["procgen:procgen-coinrun-v0"]),
    ],
)
def test_ids_of_the_same_task_match(known, others):
    assert known in published_tasks()
    for other in others:
        assert {score.task for score in published_scores(other)} == {known}, other


def test_the_tasks_of_the_papers_that_come_with_the_library_have_scores():
    tasks = [task for task in OPTIONAL_TASKS if re.match("dmc/|reverie/(CarRacing|TakeCover)-", task)]
    assert len(tasks) >= 2
    for task in tasks:
        assert {score.task for score in published_scores(task)} == {task}


@pytest.mark.parametrize(
    "other", ["Walker2d-v5", "Acrobot-v1", "Pendulum-v1", "CartPole-v1", "Pong-v5", "ALE/Adventure-v5"]
)
def test_other_tasks_do_not_match(other):
    assert published_scores(other) == []


def test_frames_in_a_step():
    assert frames_in_a_step("ALE/Pong-v5", {}) == 4
    assert frames_in_a_step("ale_py:ALE/Pong-v5", {"frameskip": 1}) == 1
    assert frames_in_a_step("ALE/Pong-v5", {"frameskip": [2, 5]}) == 4
    assert frames_in_a_step("PongNoFrameskip-v4", {}) == 1
    assert frames_in_a_step(SWINGUP, {"frameskip": 3}) == 1


def test_choices():
    assert choose_scores(SWINGUP, "none", ["planet"]) == []
    same = choose_scores(SWINGUP, "same", ["planet"])
    assert sorted(score.name for score in same) == ["PlaNet", "PlaNet with action repeat 2"]
    agents = choose_scores(SWINGUP, "agents", ["planet"])
    assert {score.agent for score in agents} == {"planet", "dreamer-v1", "dreamer-v2", "dreamer-v3"}
    names = [score.name for score in choose_scores(SWINGUP, "all", [])]
    assert names.count("D4PG") == 1 and names.index("Dreamer, last points") > names.index("PlaNet")
    assert "human record" not in [score.name for score in choose_scores("ALE/Pong-v5", "all", [])]


def test_what_is_missing_is_said_with_what_there_is():
    refuse_without_scores(["CartPole-v1", SWINGUP], "same", ["planet"])
    with pytest.raises(
        ReverieError, match=r"^There are no published scores for CartPole-v1; there are some for 55 tasks"
    ):
        refuse_without_scores(["CartPole-v1"], "agents", ["planet"])
    with pytest.raises(ReverieError, match=r"did you mean dmc/walker-walk-v0\?"):
        refuse_without_scores(["dmc/walker-wal-v0"], "all", [])
    with pytest.raises(
        ReverieError, match=r"of ppo in .*, but there are some of dreamer-v1, dreamer-v2, dreamer-v3, pl"
    ):
        refuse_without_scores([SWINGUP], "same", ["ppo"])
    assert "reverie/TakeCover-v0" in available()


def test_labels():
    final = row("planet_table_1.json", SWINGUP)["PlaNet"]
    assert published_label(final) == "PlaNet (images; PlaNet, table 1): 821 at 1M frames"
    dodging = row("world_models_take_cover.json", "reverie/TakeCover-v0")["World Models, temperature 1.15"]
    assert published_label(dodging).endswith("Take Cover): 1,092 ± 556")
    curve = row("dreamer_v3_dmc_proprio.json", SWINGUP)["DreamerV3"]
    assert " ".join(published_label(curve).split()).endswith("851 ± 15 at 500k frames")


def test_lines_in_a_panel():
    final = row("planet_table_1.json", SWINGUP)["PlaNet"]
    curve = row("dreamer_v2_dmc_curves.json", SWINGUP)["DreamerV2"]
    far = row("dreamer_v2_atari_curves.json", "ALE/Pong-v5")["DreamerV2"]
    # the next points after 100,000 frames are 120,000, and 1,000,000, which is more than twice as far
    assert view_end([final, curve, far], 100_000) == 120_000
    assert view_end([final, far], 100_000) == 100_000
    axis = Figure().add_subplot()
    draw_published(axis, [final, curve, far], {"planet": "C0", "dreamer-v2": "C1"}, 100_000)
    level, drawn, distant = axis.get_lines()
    assert list(level.get_ydata()) == [821, 821] and level.get_color() == "C0"
    assert list(drawn.get_xdata()) == curve.frames.tolist() and list(drawn.get_ydata()) == curve.mean.tolist()
    assert list(distant.get_ydata()) == [18.4, 18.4] and distant.get_linestyle() != drawn.get_linestyle()
    assert axis.get_xlim() == (0, pytest.approx(122_400))
    labels = [text.get_text() for text in axis.get_legend().get_texts()]
    assert labels == [published_label(score) for score in (final, curve, far)]


def test_a_panel_without_scores_says_so():
    axis = Figure().add_subplot()
    draw_published(axis, [], {}, 1000)
    assert "no published scores" in axis.get_legend().get_texts()[0].get_text()
