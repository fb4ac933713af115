"""Lines of progress where no terminal shows a live bar."""

import time

from reverie.training.progress import Display


def test_lines_tell_how_long_the_rest_takes(monkeypatch, capsys):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with Display("evolving", 60, unit="generations") as display:
        for generation in range(10, 13):  # a resumed run: the first ten are not of this hour
            now[0] += 90
            display.update(generation, "best 5")
        now[0] += 40
        display.update(59, "best 6")
        now[0] += 40
        display.update(60, "best 7")
    lines = capsys.readouterr().err.replace("\n", " ").split("evolving: ")[1:]
    assert [" ".join(line.split()) for line in lines] == [
        "10 of 60 generations · best 5",
        "11 of 60 generations · best 5 · about 74 min left",
        "12 of 60 generations · best 5 · about 72 min left",
        "59 of 60 generations · best 6 · less than a minute left",
        "60 of 60 generations · best 7",
    ]


def test_a_bar_knows_the_speed_of_steps_that_take_minutes():
    display = Display("evolving", 60)
    clock = [0.0]
    display._progress.get_time = lambda: clock[0]
    for generation in range(4):
        clock[0] = generation * 65.0
        display.update(generation, "")
    task = display._progress.tasks[0]
    assert task.speed is not None and abs(task.speed - 1 / 65) < 0.01
