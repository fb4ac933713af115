"""What strangers' folders and slips in commands and in Python lead to: `benchmarks/fuzz.py` for half a minute."""

import importlib.util
import sys
from pathlib import Path

FILE = Path(__file__).parent.parent / "benchmarks" / "fuzz.py"
SECONDS = 30.0


def load():
    specification = importlib.util.spec_from_file_location("fuzz", FILE)
    module = importlib.util.module_from_spec(specification)
    sys.modules["fuzz"] = module
    specification.loader.exec_module(module)
    return module


def test_nothing_ends_with_a_traceback_hangs_or_reaches_outside(tmp_path):
    report = load().fuzz(tmp_path, SECONDS)
    assert report.wrong == []
    assert sum(report.tries.values()) > 5, report.tries
