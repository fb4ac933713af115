"""What every command prints and writes when all is well."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from reverie.cli.main import COMMANDS, main
from reverie.training.model_files import trained_steps


def test_help_lists_the_commands(capsys):
    assert main([]) == 0
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(command in out for command in COMMANDS)
    assert main(["--version"]) == 0


@pytest.mark.parametrize("words", [[command] for command in COMMANDS] + [["train", "dreamer-v3"]], ids=" ".join)
def test_help_of_a_command(capsys, words):
    try:
        code = main([*words, "--help"])
    except SystemExit as end:
        code = end.code or 0
    assert code == 0
    assert "usage" in capsys.readouterr().out


def test_help_does_not_import_torch():
    program = "import sys; from reverie.cli.main import main; main(['--help']); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"


def test_train_says_where_everything_is(tmp_path, monkeypatch, capsys):
    from run_helpers import words

    monkeypatch.chdir(tmp_path)
    line = words("x", steps=60, videos=True)
    at = line.index("--run")
    del line[at : at + 3]  # the folder, to see the usual one, and --quiet
    assert main(line) == 0
    printed = capsys.readouterr()
    rows = dict(line.split("  ", 1) for line in printed.out.splitlines() if "  " in line)
    run = Path("runs/CartPole-v1/dreamer-v3/0")
    assert Path(rows["run folder"].strip()) == run
    assert "mean return" in rows["evaluation"]
    for name, suffix in (("learning curve", ".png"), ("dream video", ".mp4")):
        path = Path(rows[name].strip())
        assert path.suffix == suffix and path.parent.is_relative_to(run)
        assert path.stat().st_size > 1000
    assert "parameters" in printed.err
    for picture in (run / "videos").iterdir():
        assert f"drawn: {picture}" in printed.err.splitlines()
    for name in ("config.json", "metrics.jsonl", "scores.json", "tensorboard", "checkpoints/best", "replay"):
        assert (run / name).exists()


@pytest.mark.parametrize("folder", ["runs/sweep[lr=1e-4]", "runs/[/a]"])
def test_names_of_folders_are_shown_whole(folder, tmp_path, monkeypatch, capsys):
    from run_helpers import words

    monkeypatch.chdir(tmp_path)
    line = words(folder, steps=12, num_envs=1)
    line.remove("--quiet")
    assert main(line) == 0
    printed = capsys.readouterr()
    assert f"run folder {folder}" in printed.err and f"run folder        {folder}" in printed.out


@pytest.mark.parametrize("checkpoint", ["best", "latest"])
def test_evaluate(small_run, capsys, checkpoint):
    assert main(["evaluate", str(small_run), "--episodes", "3", "--checkpoint", checkpoint]) == 0
    first = capsys.readouterr().out
    assert first.count("episode ") == 3 and "mean return" in first
    assert f"run folder        {small_run}" in first
    assert main(["evaluate", str(small_run), "--episodes", "3", "--checkpoint", checkpoint]) == 0
    assert capsys.readouterr().out == first


def test_dream(run_copy, tmp_path, capsys):
    assert main(["dream", str(run_copy), "--length", "8", "--sequences", "2"]) == 0
    paths = [Path(line) for line in capsys.readouterr().out.splitlines()]
    assert paths == [run_copy / "videos" / "dream.mp4", run_copy / "videos" / "dream.png"]
    assert all(path.stat().st_size > 1000 for path in paths)
    assert main(["dream", str(run_copy), "--length", "8", "--sequences", "1", "--output", str(tmp_path / "d.gif")]) == 0
    assert (tmp_path / "d.gif").read_bytes().startswith(b"GIF89a")
    steps = json.loads((run_copy / "scores.json").read_text())[-1]["env_steps"]
    assert trained_steps(run_copy, "latest") == steps >= trained_steps(run_copy, "best") > 0
    assert trained_steps(run_copy / "checkpoints" / "best") is None


def test_plot(small_run, tmp_path, capsys):
    output = tmp_path / "curves.png"
    assert main(["plot", str(small_run), "--output", str(output)]) == 0
    assert capsys.readouterr().out.strip() == str(output)
    assert output.stat().st_size > 1000


def test_plot_of_a_copy_labels_and_groups(small_run, run_copy, tmp_path, capsys):
    output = tmp_path / "curves.png"
    command = ["plot", str(small_run), str(run_copy), "--output", str(output)]
    assert main(command) == 0
    warning = capsys.readouterr().err.splitlines()
    assert len(warning) == 1 and warning[0].startswith("reverie: warning: not drawn, since settings and seed are")
    assert main([*command, "--label", "before", "after"]) == 0
    assert capsys.readouterr().err == ""
    assert main([*command, "--label", "before"]) == 2
    assert "one label for each of the 2 given folders" in capsys.readouterr().err
    assert main([*command, "--group", "horizon", "num-envs"]) == 0
    assert main([*command, "--group", "horison"]) == 2
    assert "did you mean 'horizon'" in capsys.readouterr().err


def test_plot_with_published_scores(run_copy, tmp_path, capsys):
    output = tmp_path / "curves.png"
    command = ["plot", str(run_copy), "--output", str(output), "--published", "agents"]
    assert main(command) == 2
    err = capsys.readouterr().err
    assert "no published scores for CartPole-v1; there are some for 55 tasks" in err and err.count(os.linesep) == 1
    config = json.loads((run_copy / "config.json").read_text())
    config["environment"]["environment"] = "CarRacing-v3"
    (run_copy / "config.json").write_text(json.dumps(config))
    assert main(command) == 0
    assert output.stat().st_size > 1000
    assert main([*command, "--x", "updates"]) == 2
    assert "need x 'frames'" in capsys.readouterr().err


def test_envs(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")  # nothing is broken where there is no terminal
    assert main(["envs", "pole"]) == 0
    out = capsys.readouterr().out
    assert "CartPole-v1" in out and "MountainCar" not in out


@pytest.mark.parametrize(
    ("agent", "phase"),
    [
        (["--size", "100k"], "imagine"),
        (["dreamer-v3-2023", "--size", "nano"], "imagine"),
        (["dreamer-v2", "--preset", "quick"], "imagine"),
        (["dreamer-v1", "--preset", "quick"], "behavior loss"),
        (["planet", "--preset", "quick"], "world model loss"),
    ],
)
def test_bench(capsys, monkeypatch, agent, phase):
    from reverie.agents import registry

    real = registry.make_config
    small = {"batch_size": 2, "batch_length": 4}
    monkeypatch.setattr(registry, "make_config", lambda name, values, preset: real(name, {**values, **small}, preset))
    assert main(["bench", *agent, "--updates", "1", "--threads", "1", "--device", "cpu"]) == 0
    out = capsys.readouterr().out
    for word in ("observe", "backward", "parameters", "GFLOP", phase):
        assert word in out


def test_an_interruption_ends_with_130(monkeypatch):
    import reverie.cli.envs

    def interrupted(arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(reverie.cli.envs, "main", interrupted)
    assert main(["envs"]) == 130


def test_what_the_system_refuses_is_a_sentence(small_run, capsys):
    assert main(["plot", str(small_run), "--output", "/proc/curves.png"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("reverie: ") and "/proc" in err and err.count(os.linesep) == 1


def test_plot_finds_the_runs_inside_folders(small_run, tmp_path, capsys):
    picture = tmp_path / "curves.png"
    assert main(["plot", str(small_run.parents[2]), "--output", str(picture)]) == 0
    assert capsys.readouterr().out.strip() == str(picture) and picture.stat().st_size > 1000


def test_the_traceback_of_an_error_can_be_had(monkeypatch, capsys):
    monkeypatch.setenv("REVERIE_TRACEBACK", "1")
    assert main(["evaluate", "nowhere"]) == 2
    assert "Traceback" in capsys.readouterr().err
