"A shim for tools that still call setup.py, and the one build step pyproject.toml cannot say: job notebooks travel in the wheel."

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class build_py_with_jobs(build_py):
    "Copy nbs/jobs/*.ipynb to v23/job_notebooks/, where an installed v23 looks for them."

    def _job_pages(self) -> dict[str, str]:
        pages = sorted(Path("nbs/jobs").glob("[!_]*.ipynb"))
        return {str(Path(self.build_lib, "v23", "job_notebooks", p.name)): str(p) for p in pages}

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            for target, page in self._job_pages().items():
                self.mkpath(str(Path(target).parent))
                self.copy_file(page, target)

    def get_output_mapping(self) -> dict[str, str]:
        return super().get_output_mapping() | ({} if self.editable_mode else self._job_pages())

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        return super().get_outputs(include_bytecode) + ([] if self.editable_mode else list(self._job_pages()))


setup(cmdclass={"build_py": build_py_with_jobs})
