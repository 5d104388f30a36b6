"What several benchmarks measure with."

import subprocess
import sys
import time
from datetime import datetime, timedelta

START = (2026, 1, 20, 11, 0)  # New York, in the middle of a session


class RunningClock:
    "Real seconds from a moment of a past session on."

    def __init__(self, start: datetime):
        self.start, self.began = start, time.monotonic()

    def now(self) -> datetime:
        return self.start + timedelta(seconds=time.monotonic() - self.began)

    def sleep(self, seconds: float) -> None:
        time.sleep(max(0.0, seconds))


def memory(code: str, names: int, sessions: int, kernel: str) -> float:
    "Highest resident memory, in panels, that a program printed first; it runs in a fresh process."
    filled = code.format(folder=sys.path[0], names=names, sessions=sessions, kernel=kernel)
    return float(subprocess.run([sys.executable, "-c", filled], capture_output=True, text=True, check=True).stdout.split()[0])
