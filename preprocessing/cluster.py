"""The same work on a Dask cluster: of this machine, a running one, or jobs of SLURM.

A Dask worker does its recordings in a child process, as the local pool does: a reader that
crashes or hangs costs its recording and not the worker, and both ways give the same bytes.
"""

from __future__ import annotations

import shutil
import threading
import time
import uuid
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import Field

from neurofm.config import Config
from neurofm.errors import ConfigError
from neurofm.preprocessing.worker import TimedOut, Worker, WorkerDied

T = TypeVar("T")
R = TypeVar("R")

# Enough for workers that join later to find work; a task is a few kilobytes.
_AHEAD = 1000
# Time that SLURM may take to answer to sbatch; its jobs may wait as long as they like.
_SUBMIT_S = 60.0


class LocalClusterConfig(Config):
    """A Dask cluster on this machine, for as long as the run lasts.

    Parameters
    ----------
    name : "local"
        Of the family.
    workers : int
        Worker processes.
    """

    name: Literal["local"] = "local"
    workers: int = Field(default=2, ge=1)

    @contextmanager
    def client(self) -> Iterator[Any]:
        """Start the cluster, and connect to it."""
        distributed = _import("distributed")
        with (
            distributed.LocalCluster(
                n_workers=self.workers,
                threads_per_worker=1,
                processes=True,
                memory_limit=0,  # the children hold the data, which Dask does not see
                dashboard_address=":0",
            ) as cluster,
            distributed.Client(cluster) as client,
        ):
            yield client


class SchedulerConfig(Config):
    """A Dask cluster that runs already, wherever it was deployed.

    Parameters
    ----------
    name : "scheduler"
        Of the family.
    address : str
        Of its scheduler: ``tcp://host:8786``. Its workers must see the files and the store
        under the same paths, and have this version of neurofm.
    """

    name: Literal["scheduler"] = "scheduler"
    address: str = Field(min_length=1)

    @contextmanager
    def client(self) -> Iterator[Any]:
        """Connect to it.

        Raises
        ------
        ConfigError
            If no scheduler answers there, or Dask is not installed.
        """
        distributed = _import("distributed")
        try:
            client = distributed.Client(self.address)
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"cluster.address: no Dask scheduler answers at {self.address!r}: {error}",
                hint="start one with `dask scheduler`, and workers with `dask worker ADDRESS`",
            ) from None
        with client:
            yield client


class SlurmConfig(Config):
    """Jobs of SLURM that serve as Dask workers, through dask-jobqueue.

    Parameters
    ----------
    name : "slurm"
        Of the family.
    jobs : int
        How many jobs are submitted; each begins to work when SLURM starts it.
    cores : int
        Recordings that a job does side by side.
    memory : str
        Of a job, such as ``8GB``.
    walltime : str
        Of a job, ``HH:MM:SS``. What a job was doing when its time ran out is done again.
    queue, account, interface : str
        Partition, account, and network interface, where the site wants them named.
    directives : tuple of str
        More ``#SBATCH`` options, such as ``--constraint=cpu``.
    prologue : tuple of str
        Lines of shell before the worker starts, such as ``module load python``.
    log_folder : str
        Where the jobs' output goes.
    """

    name: Literal["slurm"] = "slurm"
    jobs: int = Field(ge=1)
    cores: int = Field(default=1, ge=1)
    memory: str = Field(default="8GB", pattern=r"^\d+(\.\d+)? ?[kKMGT]i?B$")
    walltime: str = Field(default="04:00:00", pattern=r"^(\d+-)?\d{1,2}:\d{2}(:\d{2})?$")
    queue: str = ""
    account: str = ""
    interface: str = ""
    directives: tuple[str, ...] = ()
    prologue: tuple[str, ...] = ()
    log_folder: str = ""

    @contextmanager
    def client(self) -> Iterator[Any]:
        """Submit the jobs, and connect to their cluster."""
        distributed = _import("distributed")
        if shutil.which("sbatch") is None:
            raise ConfigError(
                "cluster.name: slurm submits jobs by sbatch, which is not on this machine's path",
                hint="run it where jobs are submitted; `--dry-run` shows the job's script anywhere",
            )
        cluster = self._cluster()
        try:
            with distributed.Client(cluster) as client:
                cluster.scale(jobs=self.jobs)
                _require_submitted(cluster)
                yield client
        finally:
            with suppress(AssertionError):  # Dask takes for granted that every job was started
                cluster.close()

    def job_script(self) -> str:
        """Return what is given to ``sbatch``."""
        with self._cluster() as cluster:
            return str(cluster.job_script())

    def _cluster(self) -> Any:
        jobqueue = _import("dask_jobqueue")
        given = {
            "queue": self.queue,
            "account": self.account,
            "interface": self.interface,
            "log_directory": self.log_folder,
        }
        return jobqueue.SLURMCluster(
            cores=self.cores,
            processes=1,
            memory=self.memory,
            walltime=self.walltime,
            job_name="neurofm",
            job_extra_directives=list(self.directives),
            job_script_prologue=list(self.prologue),
            # the children hold the data, which Dask does not see
            worker_extra_args=["--memory-limit", "0"],
            scheduler_options={"dashboard_address": ":0"},
            **{key: value for key, value in given.items() if value},
        )


def _require_submitted(cluster: Any) -> None:
    """Wait until SLURM has taken a job: what it refuses, Dask would wait for without end."""
    end = time.monotonic() + _SUBMIT_S
    while not any(getattr(job, "job_id", None) for job in dict(cluster.workers).values()):
        if time.monotonic() > end:
            raise ConfigError(
                f"cluster: sbatch has taken no job in {_SUBMIT_S:g} s",
                hint="its own message is above; `--dry-run` shows the script that it was given",
            )
        time.sleep(0.1)


ClusterConfig = Annotated[
    LocalClusterConfig | SchedulerConfig | SlurmConfig, Field(discriminator="name")
]


class DaskPool(Generic[T, R]):
    """Apply a function to items on a Dask cluster; as `pool.WorkerPool`, which see.

    Parameters
    ----------
    function : callable
        Must be importable; its results should be small.
    cluster : LocalClusterConfig, SchedulerConfig or SlurmConfig
        Where.
    timeout_s : float, optional
        Time that one item may take.
    """

    def __init__(
        self,
        function: Callable[[T], R],
        cluster: LocalClusterConfig | SchedulerConfig | SlurmConfig,
        *,
        timeout_s: float | None = None,
    ):
        self.function = function
        self.cluster = cluster
        self.timeout_s = timeout_s

    def each(
        self, items: Iterable[T]
    ) -> Generator[tuple[T, R | WorkerDied | TimedOut], None, None]:
        """Yield items with their results, in the order in which they finish.

        Raises
        ------
        ConfigError
            If Dask is not installed, or the cluster cannot be reached or is lost.
        """
        lost: list[T] = []
        with self.cluster.client() as client:
            for item, result in self._round(client, iter(items)):
                if isinstance(result, WorkerDied):
                    lost.append(item)
                else:
                    yield item, result
            yield from self._round(client, iter(lost))

    def _round(
        self, client: Any, waiting: Iterator[T]
    ) -> Iterator[tuple[T, R | WorkerDied | TimedOut]]:
        distributed = _import("distributed")
        token = uuid.uuid4().hex  # the children of one round know one function
        running: dict[Any, T] = {}
        done = distributed.as_completed()

        def fill() -> None:
            for item in islice(waiting, _AHEAD - len(running)):
                future = client.submit(
                    _in_child, token, self.function, item, self.timeout_s, pure=False
                )
                running[future] = item
                done.add(future)

        try:
            fill()
            while running:
                future = next(done)
                item = running.pop(future)
                fill()
                yield item, _result(future)
        finally:
            client.cancel(list(running))
            if client.status == "running":
                client.run(_end_children, token, on_error="ignore")


def _result(future: Any) -> Any:
    distributed = _import("distributed")
    if future.status == "finished":
        return future.result()
    if future.status == "error":
        error = future.exception()
        if isinstance(error, distributed.KilledWorker):
            return WorkerDied("the Dask workers that worked on it died, one after the other")
        raise error
    raise ConfigError(
        "the Dask cluster was lost before the work was done",
        hint="run it again: what is finished is kept",
    )


def _import(name: str) -> Any:
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ConfigError(
            f"`cluster` needs {name.replace('_', '-')}, which cannot be imported: {error}",
            hint="pip install 'neurofm[dask]'",
        ) from None


# ---------------------------------------------------------------------------------------
# In a Dask worker: a child process for each of its threads

_children: dict[int, tuple[str, Worker[Any, Any]]] = {}


def _in_child(
    token: str, function: Callable[[T], R], item: T, timeout_s: float | None
) -> R | WorkerDied | TimedOut:
    """Do one item in the child of this thread, which is started if it is not there."""
    thread = threading.get_ident()
    known, worker = _children.get(thread, ("", None))
    if worker is None or known != token or worker.process.poll() is not None:
        if worker is not None:
            worker.end()
        worker = Worker(function)
        _children[thread] = (token, worker)
    return worker.do(item, timeout_s)


def _end_children(token: str) -> None:
    for thread, (known, worker) in list(_children.items()):
        if known == token:
            _children.pop(thread)
            worker.end()
