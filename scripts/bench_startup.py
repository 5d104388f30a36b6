"How long `v23` takes to say something, beside the bare interpreter:  python scripts/bench_startup.py [rounds]"

import statistics
import subprocess
import sys
import tempfile
import time

ROUNDS = int(sys.argv[1]) if len(sys.argv) > 1 else 9
CASES = {
    "python -c pass": ["-c", "pass"],
    "argparse + json + hashlib": ["-c", "import argparse, json, hashlib"],
    "import v23": ["-c", "import v23"],
    "import v23.control": ["-c", "import v23.control"],
    "v23 --help": ["-m", "v23.cli", "--help"],
    "v23 status": ["-m", "v23.cli", "status"],
    "v23 jobs": ["-m", "v23.cli", "jobs"],
    "import pandas": ["-c", "import pandas"],
}


def once(arguments: list[str], folder: str) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, *arguments], cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - began


def main() -> None:
    took: dict[str, list[float]] = {name: [] for name in CASES}
    with tempfile.TemporaryDirectory() as folder:
        for arguments in CASES.values():
            once(arguments, folder)  # compiled and cached
        for _ in range(ROUNDS):  # in turn, so that a busy machine is busy for all
            for name, arguments in CASES.items():
                took[name].append(once(arguments, folder))
    bare = statistics.median(took["python -c pass"])
    for name, times in took.items():
        middle = statistics.median(times)
        print(f"{name:<28} {middle * 1e3:7.0f} ms  {middle / bare:6.1f} × bare")


if __name__ == "__main__":
    main()
