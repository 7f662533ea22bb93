"""A cluster of one machine: stand-ins for the programs of SLURM that submitit calls."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from hrcam_lightning.compare import cluster, runner

if TYPE_CHECKING:
    import pytest

    from hrcam_lightning.compare.plan import Job, Record, State

STAND_IN = Path(__file__).with_name("stand_in.py")

# sbatch: runs the script in the background, as SLURM would, and notes how it ended.
SBATCH = """
here="{here}"
number=$(( $(ls "$here"/*.state 2>/dev/null | wc -l) + 101 ))
echo PENDING > "$here/$number.state"
cp "$1" "$here/$number.sh"
(
    export SLURM_JOB_ID=$number SLURM_NTASKS=1 SLURM_JOB_NUM_NODES=1 SLURM_NODEID=0 SLURM_PROCID=0 SLURM_LOCALID=0
    export SLURM_JOB_NAME=batch SLURM_JOB_NODELIST=here SLURM_CPUS_ON_NODE=1
    echo RUNNING > "$here/$number.state"
    setsid bash "$1" < /dev/null > /dev/null 2>&1 &
    echo $! > "$here/$number.pid"
    if wait $!; then echo COMPLETED > "$here/$number.state"; else echo FAILED > "$here/$number.state"; fi
) > /dev/null 2>&1 &
echo "Submitted batch job $number"
"""
# srun: drops its own options, up to the program; what that says goes where the cluster would put it.
SRUN = """
while [ "${{1#-}}" != "$1" ] || [ ! -x "$1" ]; do
    [ "$1" = --output ] && output="${{2//%j/$SLURM_JOB_ID}}"
    shift
done
exec "$@" > "${{output//%t/0}}" 2>&1
"""
SACCT = """
echo "JobID|State|NodeList"
for file in "{here}"/*.state; do
    number=$(basename "$file" .state)
    echo "$number|$(cat "$file")|here"
done
"""


def run_on_node(job: Job, state: State, budget_minutes: float | None) -> Record:
    """What a node does, with a stand-in for ``hrcam`` that first says what Lightning would make of the job."""
    runner.HRCAM = ("bash", "-c", f'echo "job name: $SLURM_JOB_NAME"; exec {sys.executable} {STAND_IN} "$@"', "hrcam")  # type: ignore[assignment]
    setattr(runner, "measure", lambda *_: (1234, 1.5))  # noqa: B010 - a name that it imports
    return _run_on_node(job, state, budget_minutes)


_run_on_node = cluster.run_on_node


def install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put them on the PATH; the state of job N is in ``N.state``, its script in ``N.sh``."""
    folder.mkdir()
    for name, body in {"sbatch": SBATCH, "srun": SRUN, "sacct": SACCT}.items():
        program = folder / name
        program.write_text("#!/bin/bash" + body.format(here=folder))
        program.chmod(0o755)
    monkeypatch.setattr(cluster, "run_on_node", run_on_node)
    monkeypatch.setenv("PATH", os.pathsep.join([str(folder), os.environ["PATH"]]))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path for path in sys.path if path))
    return folder
