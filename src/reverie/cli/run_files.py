"""Says where a run keeps what people look at."""

from __future__ import annotations

import os
from pathlib import Path

CURVE_FILE = "learning_curve.png"


def print_run_files(path: Path) -> None:
    """Prints where the folder of a run, its learning curve and its newest dream video are, those that there are."""
    print(f"run folder        {path}{os.sep}")
    curve = path / CURVE_FILE
    if curve.exists():
        print(f"learning curve    {curve}")
    videos = sorted((path / "videos").glob("open_loop_*.mp4"))
    if videos:
        print(f"dream video       {videos[-1]}")
