import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from reverie.errors import ReverieError, RunFolderError
from reverie.training import curves
from reverie.training.curves import _moving_average, _read_run, plot_learning_curves
from reverie.training.metrics import MetricWriter, append_scores


def make_run(root, task, agent, seed, points=60, config=True, level=100.0, noise=1.0):
    folder = root / task / agent / str(seed)
    writer = MetricWriter(folder)
    writer._add_summary = lambda values, env_steps: None  # the curves read metrics.jsonl only
    generator = np.random.default_rng(seed)
    for index in range(points):
        counters = {"env_steps": 100 * index, "frames": 400 * index, "updates": 10 * index}
        writer.write(
            counters, {"episode/return": level * index / points + noise * generator.normal(), "loss/actor": 0.1}
        )
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

    def draw(axis, scores, colors, own_end):
        drawn.append((axis.get_title(), scores, colors, own_end))

    monkeypatch.setattr(curves, "draw_published", draw)
    runs = [make_run(tmp_path, task, "planet", 0) for task in ("dmc/walker-walk-v0", "ALE/Pong-v5", "Task")]
    assert plot_learning_curves(runs, tmp_path / "a.png", x="frames", published="agents") == []
    titles, scores, colors, ends = zip(*drawn, strict=True)
    assert titles == ("ALE/Pong-v5", "Task", "dmc/walker-walk-v0")
    assert [bool(found) for found in scores] == [True, False, True]
    assert colors[0] == {"planet": "C0", "dreamer-v1": "C1", "dreamer-v2": "C2", "dreamer-v3": "C3"}
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


@pytest.fixture
def figures(monkeypatch):
    """The figures that are drawn, newest last."""
    drawn, real = [], curves._draw
    monkeypatch.setattr(curves, "_draw", lambda *words, **named: drawn.append(real(*words, **named)) or drawn[-1])
    return drawn


def legend(figure):
    return [text.get_text() for axis in figure.axes if axis.get_legend() for text in axis.get_legend().get_texts()]


def test_different_settings_are_no_seeds_of_one_agent(tmp_path, figures):
    runs = [make_run(tmp_path, "CartPole-v1", "dreamer-v3", seed) for seed in range(3)]
    config = json.loads((runs[2] / "config.json").read_text()) | {"agent_config": {"horizon": 5}}
    (runs[2] / "config.json").write_text(json.dumps(config))
    plot_learning_curves(runs, tmp_path / "a.png")
    assert legend(figures[-1]) == ["dreamer-v3: horizon=5 (1 seed)", "dreamer-v3: horizon=15 (2 seeds)"]
    plot_learning_curves(runs, tmp_path / "a.png", group_by=["agent"])
    assert legend(figures[-1]) == ["dreamer-v3 (3 seeds)"]
    caption = " ".join(figures[-1].get_supxlabel().split())
    assert "95% Student t interval of the mean over 3 seeds" in caption and "differ in horizon" in caption
    plot_learning_curves(runs[1:], tmp_path / "a.png", labels=["old", "new"])
    assert legend(figures[-1]) == ["new (1 seed)", "old (1 seed)"]
    assert "interval" not in figures[-1].get_supxlabel()
    with pytest.raises(ReverieError, match="one label for each of the 3 given folders, got 1"):
        plot_learning_curves(runs, tmp_path / "a.png", labels=["old"])


def test_copies_are_no_seeds(tmp_path, figures):
    short = make_run(tmp_path / "short", "Task", "agent", 3, points=20)
    whole = make_run(tmp_path / "whole", "Task", "agent", 3)
    with pytest.warns(UserWarning, match=f"not drawn, .* of another run: {short} .as {whole}"):
        assert plot_learning_curves([short, whole, whole], tmp_path / "a.png") == []
    assert legend(figures[-1]) == ["agent (1 seed)"]


def test_curves_decide_the_range_and_a_wide_band_is_cut(tmp_path, figures):
    for name, noise in (("calm", 0.0), ("wild", 30.0)):
        for seed in range(2):
            make_run(tmp_path / name, "Task", "agent", seed, noise=noise)
        plot_learning_curves([tmp_path / name], tmp_path / "a.png")
    calm, wild = figures
    assert "cut off" not in calm.get_supxlabel()
    assert "interval of the mean over 2 seeds, cut off at the edge" in " ".join(wild.get_supxlabel().split())
    values = np.concatenate([line.get_ydata() for line in wild.axes[0].get_lines()])
    bottom, top = wild.axes[0].get_ylim()
    assert top - bottom < 1.75 * np.ptp(values)


def test_no_legend_covers_a_curve(tmp_path, figures):
    for place in range(6):
        folder = make_run(tmp_path / str(place), "Task", "dreamer-v3", place)
        config = json.loads((folder / "config.json").read_text())
        config["environment"]["kwargs"] = {"level": f"{place}-" + 80 * "long", "goal": place}
        (folder / "config.json").write_text(json.dumps(config))
    plot_learning_curves([tmp_path], tmp_path / "a.png")
    figure = figures[-1]
    axis = figure.axes[0]
    box = axis.get_legend().get_window_extent()
    assert len(legend(figure)) == len(set(legend(figure))) == 6
    assert box.y1 < axis.get_window_extent().y0 and box.y0 > 0 and box.x0 > 0 and box.x1 < figure.bbox.x1
    assert len({line.get_color() for line in axis.get_lines()}) == 6


def test_moving_average_by_hand():
    x, y = np.array([0.0, 1, 2, 3, 4]), np.array([0.0, 3, 6, 3, 0])
    # window 0.5 * 4 = 2, so one neighbor on each side: (0+3)/2, (0+3+6)/3, (3+6+3)/3, (6+3+0)/3, (3+0)/2
    np.testing.assert_allclose(_moving_average(x, y, 0.5), [1.5, 3, 4, 3, 1.5])
    np.testing.assert_array_equal(_moving_average(x, y, 0), y)


def test_importing_the_output_modules_is_light():
    program = """
import sys
import reverie.dream.pictures, reverie.training.curves, reverie.training.metrics
print(sorted({"torch", "matplotlib", "PIL", "av", "tensorboard", "scipy"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
