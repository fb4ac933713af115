"""What a person sees of a run: the bar on a terminal, and lines elsewhere."""

import io
import threading
import time

import pytest
from rich.console import Console
from rich.live import Live

from reverie.training import progress
from reverie.training.evaluation import Playing
from reverie.training.progress import Display

NOTE = "return 23.41 · loss 3.215"


@pytest.fixture
def now(monkeypatch):
    """The clock, in seconds, as a list of one number."""
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    return clock


def shown(display, width):
    """The lines of the bar on a terminal of this width."""
    out = io.StringIO()
    Console(file=out, force_terminal=True, color_system=None, width=width).print(display)
    return out.getvalue().splitlines()


def test_lines_tell_how_long_the_rest_takes(now, capsys):
    display = Display("evolving", 60, unit="generations")
    for generation in range(10, 13):  # a resumed run: the first ten are not of this hour
        now[0] += 90
        display.update(generation, "best 5")
    now[0] += 40
    display.update(59, "best 6")
    now[0] += 40
    display.update(60, "best 7")
    assert capsys.readouterr().err.splitlines() == [
        "evolving: 10 of 60 generations · best 5",
        "evolving: 11 of 60 generations · best 5 · about 74 min left",
        "evolving: 12 of 60 generations · best 5 · about 72 min left",
        "evolving: 59 of 60 generations · best 6 · about 4 s left",
        "evolving: 60 of 60 generations · best 7",
    ]


def test_lines_go_on_while_nothing_else_does(monkeypatch, capsys):
    monkeypatch.setattr(progress, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(progress, "QUIET_SECONDS", 0.03)
    updates = iter(range(1, 1000))
    with Display("dreamer-v3 on Task", 100, more=lambda: f"{next(updates)} updates"):
        time.sleep(0.3)  # one long call of the learner
    lines = capsys.readouterr().err.splitlines()
    assert lines[:2] == [f"dreamer-v3 on Task: 0 of 100 steps · {number} updates" for number in (1, 2)]
    assert threading.active_count() < 10


def test_a_quick_warm_up_says_nothing_of_the_rest(now, capsys):
    display = Display("learning", 1_000)
    display.update(0)
    now[0] += 10
    display.update(100)  # a tenth of a second per step, without updates
    display.forget_speed()
    for done in (101, 111):
        now[0] += 60
        display.update(done)
    assert capsys.readouterr().err.splitlines()[-1] == "learning: 111 of 1,000 steps · starting · about 89 min left"


@pytest.mark.parametrize(("width", "count"), [(130, 1), (80, 2), (60, 3)])
def test_the_bar_takes_the_lines_that_it_needs(now, width, count):
    display = Display("dreamer-v3 on CartPole-v1", 12_000, more=lambda: "1,234 updates")
    display.update(0)
    now[0] = 90.0
    display.update(3_000, NOTE)
    lines = shown(display, width)
    assert len(lines) == count and all(len(line) <= width for line in lines)
    text = " ".join(" · ".join(lines).split())
    for part in ("dreamer-v3 on CartPole-v1 ━", "3,000/12,000 steps", *NOTE.split(" · "), "1,234 updates", "0:01:30"):
        assert part in text
    assert "left 0:04:30" in text, "three times what a quarter took"


def test_a_narrow_terminal_cuts_the_title_and_not_the_bar():
    display = Display("dreamer-v3 on a_module_of_mine:TheEnvironmentWithALongName-v12", 12_000)
    display.update(12_000)
    lines = shown(display, 50)
    assert "…" in lines[0] and "━" * 5 in lines[0] and lines[0].endswith("12,000/12,000 steps")
    assert all(len(line) <= 50 for line in lines)


def test_an_evaluation_is_shown_with_its_own_time(now):
    display = Display("planet on Pendulum-v1", 1_000)
    display.update(500, NOTE)
    with display.busy("evaluating"):
        now[0] = 60.0
        display.watch(Playing(finished=0, episodes=10, decisions=400, share=0.2))
        text = " ".join(shown(display, 200))
        assert "evaluating 0:01:00 · 0 of 10 episodes · 400 decisions · at most 4 min left" in text
        assert "return" not in text and "· left" not in text
        display.watch(Playing(finished=2, episodes=10, decisions=800, share=0.5))
        assert "2 of 10 episodes · 800 decisions · about 60 s left" in " ".join(shown(display, 200))
    assert NOTE in " ".join(shown(display, 200))


def test_a_bar_moves_by_itself():
    out = io.StringIO()
    display = Display("planet on Pendulum-v1", 1_000)
    console = Console(file=out, force_terminal=True, color_system=None, width=100)
    updates = iter(range(1, 1000))
    display._more = lambda: f"{next(updates)} updates"
    with Live(get_renderable=lambda: display, console=console, refresh_per_second=20):
        time.sleep(0.4)
    assert "1 updates" in out.getvalue() and "3 updates" in out.getvalue()


@pytest.mark.parametrize("name", ["runs/sweep[lr=1e-4]", "runs/[/a]", "[bold]x[/bold]", "a:smile:", "[red]"])
def test_names_are_text(now, capsys, name):
    display = Display(f"dreamer-v3 on {name}", 100)
    display.say(f"run folder {name} {'and much more ' * 20}")
    now[0] = 100.0
    display.update(5, f"best of {name}")
    said, line = capsys.readouterr().err.splitlines()
    assert f"run folder {name} and" in said, "a line in a file is neither broken nor read as markup"
    assert f"on {name}: 5 of 100 steps · best of {name}" in line
    assert f"on {name}" in shown(display, 120)[0]


def test_the_speed_is_that_of_late(now):
    display = Display("planet on Pendulum-v1", 10_000)
    for step in range(1_000):  # random steps are quick
        now[0] += 0.001
        display.update(step)
    for step in range(1_000, 1_400):
        now[0] += 10.0
        display.update(step)
    assert display._seconds_left(now[0]) == pytest.approx(8_600 * 10, rel=0.02)


def test_a_bar_knows_the_speed_of_steps_that_take_minutes(now):
    display = Display("evolving", 60)
    for generation in range(4):
        now[0] = generation * 65.0
        display.update(generation, "")
    assert display._seconds_left(now[0]) == pytest.approx(57 * 65)
