"How long a job takes that does nothing, beside papermill's own command in the same run:  python scripts/bench_jobs.py [rounds] [--json]"

import json
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

from v23 import jobs
from v23.jobs import job_runner, run_job
from v23.supervisor import Supervisor, SupervisorPlan, own

ROUNDS = next((int(a) for a in sys.argv[1:] if a.isdigit()), 8)
INSIDE = 25  # Runs of ours for each of papermill's
DAY = date(2026, 1, 20)
RESULT = "from v23.jobs import write_result\nwrite_result(result, {'n': 1})"
TABLE = "import matplotlib.pyplot as plt\nimport pandas as pd\ntable = pd.DataFrame({'n': range(5)})\ntable.plot();"


def page(*cells: str) -> str:
    "A notebook with a parameters cell and these."
    def cell(n: int, source: str) -> dict[str, Any]:
        return {"cell_type": "code", "id": f"c{n}", "metadata": {"tags": ["parameters"]} if n == 0 else {}, "source": source, "outputs": [], "execution_count": None}

    kernel = {"kernelspec": {"display_name": "python3", "language": "python", "name": "python3"}}
    return json.dumps({"cells": [cell(n, s) for n, s in enumerate(('result: str = ""  # Where', *cells))], "metadata": kernel, "nbformat": 4, "nbformat_minor": 5})


def seconds(action: Callable[[], Any]) -> float:
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def measure(folder: Path, supervisor: Supervisor, took: dict[str, list[float]]) -> None:
    "Everybody in turn, so that a busy machine is busy for all."
    reports, environ = folder / "reports", os.environ | {"MPLBACKEND": "agg"}
    command = [sys.executable, "-m", "papermill", "--no-progress-bar", "-k", "python3", str(folder / "pages" / "empty.ipynb"), str(folder / "out.ipynb"), "-p", "result", str(folder / "r.json")]
    with job_runner() as runner:
        cases: dict[str, tuple[int, Callable[[], Any]]] = {
            "papermill's command": (1, lambda: subprocess.run(command, env=environ, check=True, capture_output=True)),
            "v23, papermill engine": (1, lambda: run_job("empty", {}, reports, DAY, engine="papermill")),
            "v23, empty page": (INSIDE, lambda: run_job("empty", {}, reports, DAY, runner=runner)),
            "v23, pandas and a plot": (INSIDE, lambda: run_job("plot", {}, reports, DAY, runner=runner)),
            "v23, empty, supervised": (INSIDE, lambda: supervisor.work("empty", DAY, 60.0)),
        }
        for _, action in cases.values():
            action()  # compiled, prepared, cached
        for done in range(ROUNDS):
            for name, (times, action) in cases.items():
                took.setdefault(name, []).extend(seconds(action) for _ in range(times))
            print(f"\r{done + 1} of {ROUNDS} rounds", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)


def main() -> None:
    "The table, or one JSON document."
    took: dict[str, list[float]] = {}
    logging.disable(logging.CRITICAL)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "pages").mkdir()
        (folder / "pages" / "empty.ipynb").write_text(page(RESULT))
        (folder / "pages" / "plot.ipynb").write_text(page(TABLE, RESULT))
        jobs.jobs_folder = lambda: folder / "pages"

        def ready(supervisor: Supervisor) -> None:
            supervisor.set_table()
            supervisor.begin()
            measure(folder, supervisor, took)
            supervisor.clock.stop()

        own(SupervisorPlan(mode="simulated", state=str(folder / "state"), reports=str(folder / "reports"), speed=0), ready)
    peer = statistics.median(took["papermill's command"])
    rows = [{"case": c, "n": len(t), "median_ms": statistics.median(t) * 1e3, "p99_ms": sorted(t)[int(0.99 * (len(t) - 1))] * 1e3, "times_as_fast": peer / statistics.median(t)} for c, t in took.items()]
    if "--json" in sys.argv:
        print(json.dumps({"load": os.getloadavg()[0], "rows": rows}))
        return
    for r in rows:
        print(f"{r['case']:<24} {r['n']:>4} runs  median {r['median_ms']:7.0f} ms   p99 {r['p99_ms']:7.0f} ms, {r['p99_ms'] / r['median_ms']:.1f} × the median   {r['times_as_fast']:6.1f} × as fast as papermill's command")
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
