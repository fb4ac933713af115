"""docs/metrics.md explains every metric, and no file of a run is ever unpickled."""

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GLOSSARY = ROOT / "docs" / "metrics.md"


@pytest.mark.skipif(not GLOSSARY.exists(), reason="docs/metrics.md is not there")
def test_every_metric_is_in_the_glossary(finished_run):
    lines = [json.loads(line) for line in (finished_run / "metrics.jsonl").read_text().splitlines()]
    names = {name for line in lines for name in line}
    assert {"loss/total", "episode/return", "replay/ratio"} <= names
    terms = re.findall(r"`([^`\n]+)`", GLOSSARY.read_text())
    patterns = [re.sub(r"<[^>]+>", "[^`]+", re.sub(r"([.+*?^$()\[\]{}|\\])", r"\\\1", term)) for term in terms]
    missing = sorted(name for name in names if not any(re.fullmatch(pattern, name) for pattern in patterns))
    assert missing == []


def test_nothing_is_unpickled():
    found = []
    for path in (ROOT / "src").rglob("*.py"):
        for number, line in enumerate(path.read_text().splitlines(), start=1):
            if re.search(r"torch\.load|allow_pickle=True|\bpickle\.load|import pickle|from pickle|joblib|dill", line):
                found.append(f"{path}:{number}: {line}")
            if "cloudpickle" in line and path.parent.name != "envs":
                found.append(f"{path}:{number}: {line}")
    assert found == []
