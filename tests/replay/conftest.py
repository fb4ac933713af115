import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # replay_helpers, for the tests and for the process that is killed
