"""Says where a run keeps what people look at."""

from __future__ import annotations

import os
from pathlib import Path

CURVE_FILE = "learning_curve.png"


def print_run_files(path: Path) -> None:
    """Prints where the folder of a run, its learning curve and its newest dream video are, those that there are."""
    from reverie.training.run_folder import shown

    print(f"run folder        {shown(path)}{os.sep}")
    curve = path / CURVE_FILE
    if curve.exists():
        print(f"learning curve    {shown(curve)}")
    videos = sorted((path / "videos").glob("open_loop_*.mp4"))
    if videos:
        print(f"dream video       {shown(videos[-1])}")
