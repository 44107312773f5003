import operator
import os
import pathlib
import signal
import sys
import time
from functools import partial

import pytest

from neurofm.config import Config, parse_config
from neurofm.errors import ConfigError
from neurofm.preprocessing import cluster as cluster_module
from neurofm.preprocessing.cluster import (
    ClusterConfig,
    DaskPool,
    LocalClusterConfig,
    SchedulerConfig,
    SlurmConfig,
)
from neurofm.preprocessing.worker import TimedOut, WorkerDied

CALL = operator.call

# keeps the script, as SLURM does: it is deleted once it was submitted
FAKE_SBATCH = f"""#!{sys.executable}
import pathlib, shutil, subprocess, sys
here = pathlib.Path(__file__).parent
script = shutil.copy(sys.argv[-1], here / "job.sh")
log = open(here / "job.log", "ab")
job = subprocess.Popen(["bash", script], stdout=log, stderr=log, start_new_session=True)
with open(here / "jobs", "a") as jobs:
    jobs.write(f"{{job.pid}}\\n")
print(f"Submitted batch job {{job.pid}}")
"""
FAKE_SCANCEL = f"""#!{sys.executable}
import os, signal, sys
for job in sys.argv[1:]:
    os.killpg(int(job), signal.SIGTERM)
"""


@pytest.fixture(scope="module")
def cluster():
    """A running cluster of two worker processes, by its address."""
    import distributed

    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, memory_limit=0, dashboard_address=":0"
    ) as running:
        yield running


@pytest.fixture
def pool(cluster):
    def make(**options):
        return DaskPool(CALL, SchedulerConfig(address=cluster.scheduler_address), **options)

    return make


def test_every_item_comes_back_from_dask_with_its_result(pool):
    items = [partial(abs, -n) for n in range(7)]
    results = {item.args[0]: result for item, result in pool().each(items)}
    assert results == {-n: n for n in range(7)}


def test_an_item_that_kills_or_hangs_its_process_costs_no_dask_worker(pool, cluster):
    before = {name: worker.pid for name, worker in cluster.workers.items()}
    deadly, hanging, harmless = partial(os._exit, 9), partial(time.sleep, 60), partial(abs, -2)
    results = dict(pool(timeout_s=0.5).each([deadly, hanging, harmless]))
    assert isinstance(results[deadly], WorkerDied) and "status 9" in results[deadly].problem
    assert isinstance(results[hanging], TimedOut)
    assert results[harmless] == 2
    assert {name: worker.pid for name, worker in cluster.workers.items()} == before


def test_a_killed_dask_worker_loses_nothing(pool, cluster):
    items = [partial(time.sleep, 0.3) for _ in range(8)]
    results = pool().each(items)
    done = [next(results)]
    os.kill(next(iter(cluster.workers.values())).pid, signal.SIGKILL)
    done += results
    assert len(done) == 8 and all(result is None for _, result in done)


def test_errors_of_the_function_are_raised_through_dask(pool):
    with pytest.raises(ZeroDivisionError):
        list(pool().each([partial(divmod, 1, 0)]))


def test_children_end_with_the_run(pool):
    ((_, pid),) = pool().each([os.getpid])
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_cluster_of_this_machine_is_started_and_ended():
    results = dict(DaskPool(CALL, LocalClusterConfig(workers=1)).each([os.getppid]))
    with pytest.raises(ProcessLookupError):
        os.kill(results[os.getppid], 0)


def test_an_address_where_nobody_answers_is_named(monkeypatch):
    import dask

    with (
        dask.config.set({"distributed.comm.timeouts.connect": 0.2}),
        pytest.raises(ConfigError, match=r"no Dask scheduler answers at 'tcp://127.0.0.1:9'"),
    ):
        list(DaskPool(CALL, SchedulerConfig(address="tcp://127.0.0.1:9")).each([os.getpid]))


def test_without_dask_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ConfigError, match=r"needs distributed.*\n.*neurofm\[dask\]"):
        list(DaskPool(CALL, LocalClusterConfig()).each([os.getpid]))


def test_what_slurm_is_told():
    config = SlurmConfig(
        jobs=3,
        cores=4,
        memory="16GB",
        walltime="01:30:00",
        queue="cpu",
        account="lab",
        directives=("--constraint=avx2",),
        prologue=("module load python",),
    )
    script = config.job_script().splitlines()
    for line in (
        "#SBATCH -J neurofm", "#SBATCH -p cpu", "#SBATCH -A lab", "#SBATCH --cpus-per-task=4",
        "#SBATCH --mem=15G", "#SBATCH -t 01:30:00", "#SBATCH --constraint=avx2",
        "module load python",
    ):  # fmt: skip
        assert line in script
    assert "--nthreads 4" in script[-1] and "--memory-limit 0" in script[-1]


def test_jobs_of_slurm_do_the_work_and_are_cancelled(tmp_path, monkeypatch):
    """With programs in place of sbatch and scancel that run the job script here."""
    for name, text in (("sbatch", FAKE_SBATCH), ("scancel", FAKE_SCANCEL)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    results = dict(DaskPool(CALL, SlurmConfig(jobs=1)).each([partial(abs, -1), os.getpid]))
    assert 1 in results.values()
    (job,) = map(int, (tmp_path / "jobs").read_text().split())
    end = time.monotonic() + 600
    while time.monotonic() < end and _is_running(job):
        time.sleep(0.05)
    assert not _is_running(job)


def test_jobs_that_nobody_takes_are_not_waited_for(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    pool = DaskPool(CALL, SlurmConfig(jobs=1))
    with pytest.raises(ConfigError, match="sbatch, which is not on this machine's path"):
        list(pool.each([os.getpid]))
    (tmp_path / "sbatch").write_text("#!/bin/sh\necho invalid partition >&2\nexit 1\n")
    (tmp_path / "sbatch").chmod(0o755)
    monkeypatch.setattr(cluster_module, "_SUBMIT_S", 2.0)
    with pytest.raises(ConfigError, match=r"sbatch has taken no job in 2 s\n.*--dry-run"):
        list(pool.each([os.getpid]))


def _is_running(pid):
    try:
        with pathlib.Path(f"/proc/{pid}/stat").open() as stat:
            return stat.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"name": "kubernetes"}, "unknown name 'kubernetes'; known: local, scheduler, slurm"),
        ({"name": "slurm"}, "cluster.jobs: Field required"),
        ({"name": "slurm", "jobs": 1, "walltime": "4 hours"}, "cluster.walltime: .*'4 hours'"),
        ({"name": "slurm", "jobs": 1, "memory": "lots"}, "cluster.memory: .*'lots'"),
        ({"name": "scheduler", "adress": "x"}, "did you mean 'address'"),
    ],
)
def test_mistakes_in_the_cluster_are_named(values, words):
    class Holder(Config):
        cluster: ClusterConfig

    with pytest.raises(ConfigError, match=words):
        parse_config(Holder, {"cluster": values}, where="test")
