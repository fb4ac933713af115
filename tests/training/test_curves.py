import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from reverie.errors import ReverieError, RunFolderError
from reverie.training import curves
from reverie.training.curves import (
    _mean_interval,
    _moving_average,
    _read_run,
    interquartile_mean,
    plot_learning_curves,
    stratified_bootstrap,
)
from reverie.training.metrics import MetricWriter, append_scores


def make_run(root, task, agent, seed, points=60, config=True, level=100.0):
    folder = root / task / agent / str(seed)
    writer = MetricWriter(folder)
    writer._add_summary = lambda values, env_steps: None  # the curves read metrics.jsonl only
    generator = np.random.default_rng(seed)
    for index in range(points):
        counters = {"env_steps": 100 * index, "frames": 400 * index, "updates": 10 * index}
        writer.write(counters, {"episode/return": level * index / points + generator.normal(), "loss/actor": 0.1})
    writer.close()
    if config:
        content = {"environment": {"environment": task}, "agent": agent, "seed": seed}
        (folder / "config.json").write_text(json.dumps(content))
    append_scores(folder, {"env_steps": 3000, "frames": 12000, "updates": 300, "mean": level / 2})
    return folder


def test_figure_of_two_tasks_and_two_agents(tmp_path):
    runs = [make_run(tmp_path, "CartPole-v1", "dreamer-v3", seed) for seed in range(3)]
    runs.append(make_run(tmp_path, "CartPole-v1", "planet", 0, level=50))
    runs.append(make_run(tmp_path, "Pendulum-v1", "planet", 0))
    output = tmp_path / "figures" / "curves.png"
    assert plot_learning_curves(runs, output) == []
    assert output.stat().st_size < 300_000
    picture = Image.open(output)
    assert picture.format == "PNG" and picture.width > 900


@pytest.mark.parametrize("x", ["env_steps", "frames", "updates"])
def test_every_axis_and_a_metric_without_smoothing(tmp_path, x):
    runs = [make_run(tmp_path, "Task", "agent", seed) for seed in range(2)]
    plot_learning_curves(runs, tmp_path / "a.png", x=x, metric="loss/actor", smoothing=0)
    assert (tmp_path / "a.png").exists()


def test_run_reader_takes_names_from_config_or_folders(tmp_path):
    folder = make_run(tmp_path, "Task-v0", "dreamer-v2", 7, config=False)
    curve, names = _read_run(folder, "frames", "episode/return")
    assert (curve.task, curve.agent, curve.seed) == ("Task-v0", "dreamer-v2", "7")
    assert curve.x[:3].tolist() == [0, 400, 800]
    assert curve.score_x.tolist() == [12000] and curve.score_y.tolist() == [50]
    assert names == {"episode/return", "loss/actor"}
    (folder / "config.json").write_text(json.dumps({"environment": {"name": "Other"}, "agent": {"name": "planet"}}))
    curve, _ = _read_run(folder, "frames", "loss/actor")
    assert (curve.task, curve.agent, curve.seed) == ("Other", "planet", "7")
    assert curve.score_x.size == 0  # evaluations are returns, not losses


def test_non_finite_values_are_left_out(tmp_path):
    lines = [{"env_steps": step, "episode/return": step} for step in range(4)]
    lines[1]["episode/return"] = None
    lines[1]["not_finite"] = {"episode/return": "nan"}
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    curve, _ = _read_run(tmp_path, "env_steps", "episode/return")
    assert curve.y.tolist() == [0, 2, 3]


def test_runs_without_metrics(tmp_path):
    empty = tmp_path / "Task" / "agent" / "new"
    empty.mkdir(parents=True)
    with pytest.raises(ReverieError, match="not written metrics yet"):
        plot_learning_curves([empty], tmp_path / "a.png")
    full = make_run(tmp_path, "Task", "agent", 0)
    with pytest.raises(ReverieError, match="loss/actor"):
        plot_learning_curves([full], tmp_path / "a.png", metric="loss/critic")
    assert plot_learning_curves([full, empty], tmp_path / "a.png") == [empty]
    with pytest.raises(RunFolderError, match="no run folder"):
        plot_learning_curves([tmp_path / "absent"], tmp_path / "a.png")
    with pytest.raises(ReverieError, match="steps"):
        plot_learning_curves([full], tmp_path / "a.png", x="steps")


def test_a_run_with_evaluations_alone(tmp_path):
    folder = tmp_path / "CarRacing-v3" / "world-models" / "0"
    folder.mkdir(parents=True)
    append_scores(folder, {"env_steps": 100, "frames": 100, "updates": 7, "generation": 20, "mean": 5.0})
    assert plot_learning_curves([tmp_path], tmp_path / "a.png", x="generation") == []
    assert (tmp_path / "a.png").exists()
    curve, _ = _read_run(folder, "generation", "episode/return")
    assert (curve.score_x.tolist(), curve.score_y.tolist()) == ([20], [5.0])


def test_published_scores_beside_the_runs(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(curves, "draw_published", lambda axis, *rest: drawn.append((axis.get_title(), *rest)))
    runs = [make_run(tmp_path, task, "planet", 0) for task in ("dmc/walker-walk-v0", "ALE/Pong-v5", "Task")]
    assert plot_learning_curves(runs, tmp_path / "a.png", x="frames", published="agents") == []
    titles, scores, colours, ends = zip(*drawn, strict=True)
    assert titles == ("ALE/Pong-v5", "Task", "dmc/walker-walk-v0")
    assert [bool(found) for found in scores] == [True, False, True]
    assert colours[0] == {"planet": "C0", "dreamer-v1": "C1", "dreamer-v2": "C2", "dreamer-v3": "C3"}
    assert ends == (4 * 59 * 400, 59 * 400, 59 * 400)  # one step of the Atari environment is four frames


def test_published_scores_that_cannot_be_drawn(tmp_path):
    run = make_run(tmp_path, "CartPole-v1", "dreamer-v3", 0)
    with pytest.raises(ReverieError, match="no published scores for CartPole-v1; there are some for"):
        plot_learning_curves([run], tmp_path / "a.png", x="frames", published="all")
    with pytest.raises(ReverieError, match="so they need x 'frames'"):
        plot_learning_curves([run], tmp_path / "a.png", published="all")
    with pytest.raises(ReverieError, match="loss/actor"):
        plot_learning_curves([run], tmp_path / "a.png", x="frames", metric="loss/actor", published="all")
    assert not (tmp_path / "a.png").exists()


def test_moving_average_by_hand():
    x, y = np.array([0.0, 1, 2, 3, 4]), np.array([0.0, 3, 6, 3, 0])
    # window 0.5 * 4 = 2, so one neighbour on each side: (0+3)/2, (0+3+6)/3, (3+6+3)/3, (6+3+0)/3, (3+0)/2
    np.testing.assert_allclose(_moving_average(x, y, 0.5), [1.5, 3, 4, 3, 1.5])
    np.testing.assert_array_equal(_moving_average(x, y, 0), y)


def test_interquartile_mean_by_hand():
    # 8 values: 2 are cut from each end, (3 + 4 + 5 + 6) / 4 = 4.5
    assert interquartile_mean(np.array([[8.0, 1, 7, 2], [3, 6, 4, 5]])) == 4.5
    # 6 values: floor(1.5) = 1 is cut from each end, so outliers do not count: (1 + 2 + 3 + 4) / 4 = 2.5
    assert interquartile_mean(np.array([-1e9, 1, 2, 3, 4, 1e9])) == 2.5
    with pytest.raises(ReverieError, match="non-finite"):
        interquartile_mean(np.array([1.0, np.nan]))
    with pytest.raises(ReverieError, match="at least one"):
        interquartile_mean(np.array([]))


def test_stratified_bootstrap_keeps_tasks_apart():
    # Both runs agree on every task, so a draw inside the tasks cannot change anything: the mean is always (0 + 10) / 2.
    assert stratified_bootstrap(np.array([[0.0, 10], [0, 10]]), statistic=np.mean) == (5, 5, 5)


def test_stratified_bootstrap_of_two_runs_by_hand():
    # Scores 0 and 1, one task: the mean of a draw is 0, 1/2 or 1 with probability 1/4, 1/2, 1/4.
    point, low, high = stratified_bootstrap(np.array([[0.0], [1.0]]), statistic=np.mean, confidence=0.95)
    assert (point, low, high) == (0.5, 0, 1)
    # The middle 40% of that distribution is the value 1/2 alone.
    assert stratified_bootstrap(np.array([[0.0], [1.0]]), statistic=np.mean, confidence=0.4) == (0.5, 0.5, 0.5)


def test_stratified_bootstrap_agrees_with_the_normal_interval():
    scores = np.random.default_rng(1).normal(size=(50, 4))
    point, low, high = stratified_bootstrap(scores, statistic=np.mean, resamples=1000)
    # the standard error of a mean of 4 tasks x 50 runs of unit variance is 1 / sqrt(200) = 0.0707
    assert high - low == pytest.approx(2 * 1.96 * 0.0707, rel=0.15)
    assert low < point < high
    assert stratified_bootstrap(scores, resamples=50) == stratified_bootstrap(scores, resamples=50)
    with pytest.raises(ReverieError, match="runs, tasks"):
        stratified_bootstrap(scores[:, 0])


def test_mean_interval_of_equal_and_of_two_runs():
    low, high = _mean_interval(np.full((5, 3), 2.0))
    np.testing.assert_allclose([low, high], 2.0)
    low, high = _mean_interval(np.array([[0.0], [1.0]]))
    assert (low[0], high[0]) == (0, 1)


def test_importing_the_output_modules_is_light():
    program = """
import sys
import reverie.dream.pictures, reverie.training.curves, reverie.training.metrics
print(sorted({"torch", "matplotlib", "PIL", "av", "tensorboard", "scipy"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
