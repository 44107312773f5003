"""The same windows as other projects store and load them, for `loading.py`.

Each maker writes a folder and returns how to open it: a list of data set classes or iterables
that torch's DataLoader, or the project's own, goes through in random order.
"""

from __future__ import annotations

import importlib.machinery
import pickle
import sys
import types
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

BATCH = 32  # 16 MB as float32
Windows = Callable[[], Iterator[np.ndarray]]
Opened = Callable[[int], Any]  # number of workers -> something that yields batches for ever


class Lazily(torch.utils.data.Dataset):
    """Windows of something that is opened where it is first read: in the worker."""

    def __init__(self, path: Path, n_windows: int, opener: Callable[[Path], Any]):
        self.path, self.n_windows, self.opener = path, n_windows, opener
        self.opened: Any = None

    def __len__(self) -> int:
        return self.n_windows

    def __getitem__(self, i: int) -> torch.Tensor:
        if self.opened is None:
            self.opened = self.opener(self.path)
        window = self.opened[i]
        return torch.from_numpy(window if window.flags.writeable else np.array(window))


def behind_dataloader(make: Callable[[], torch.utils.data.Dataset]) -> Opened:
    """Return a way through torch's DataLoader, shuffled."""

    def opened(workers: int) -> Any:
        dataset = make()
        sampler = torch.utils.data.RandomSampler(dataset)
        return torch.utils.data.DataLoader(
            dataset, BATCH, sampler=sampler, num_workers=workers, drop_last=True
        )

    return opened


def memmap(folder: Path, shape: tuple[int, ...], windows: Windows) -> Opened:
    """Write window-major float32, what most scripts do."""
    path = folder / "windows.npy"
    file = np.lib.format.open_memmap(path, "w+", np.float32, shape)
    for i, window in enumerate(windows()):
        file[i] = window
    file.flush()
    return behind_dataloader(lambda: Lazily(path, shape[0], open_memmap))


def open_memmap(path: Path) -> np.ndarray:
    """Open the memmap."""
    array: np.ndarray = np.load(path, mmap_mode="r")
    return array


def hdf5(folder: Path, shape: tuple[int, ...], windows: Windows) -> Opened:
    """Write float32, a chunk a window."""
    path = folder / "windows.h5"
    with h5py.File(path, "w") as file:
        array = file.create_dataset("windows", shape, np.float32, chunks=(1, *shape[1:]))
        for i, window in enumerate(windows()):
            array[i] = window
    return behind_dataloader(lambda: Lazily(path, shape[0], open_hdf5))


def open_hdf5(path: Path) -> Any:
    """Open the array of the HDF5 file."""
    return h5py.File(path, "r")["windows"]


def lmdb(folder: Path, shape: tuple[int, ...], windows: Windows) -> Opened:
    """Write pickled float32 windows by key, as CBraMod's scripts do."""
    import lmdb as library

    path = folder / "windows.lmdb"
    with library.open(str(path), map_size=8 * int(np.prod(shape)) + 2**28) as environment:
        for i, window in enumerate(windows()):
            with environment.begin(write=True) as transaction:
                transaction.put(str(i).encode(), pickle.dumps(window))
    return behind_dataloader(lambda: Lazily(path, shape[0], OpenLmdb))


class OpenLmdb:
    """Windows by number out of LMDB."""

    def __init__(self, path: Path):
        import lmdb as library

        self.environment = library.open(str(path), readonly=True, lock=False, readahead=False)

    def __getitem__(self, i: int) -> np.ndarray:
        with self.environment.begin() as transaction:
            window: np.ndarray = pickle.loads(transaction.get(str(i).encode()))
        return window


def litdata(folder: Path, shape: tuple[int, ...], windows: Windows) -> Opened:
    """Write litdata's chunks of about 64 MB; it shuffles chunk by chunk."""
    from litdata.streaming import Cache, StreamingDataLoader, StreamingDataset

    path = folder / "litdata"
    cache = Cache(str(path), chunk_bytes=2**26)
    for i, window in enumerate(windows()):
        cache[i] = torch.from_numpy(np.array(window))
    cache.done()
    cache.merge()

    def opened(workers: int) -> Any:
        dataset = StreamingDataset(str(path), shuffle=True, drop_last=False)
        return StreamingDataLoader(dataset, batch_size=BATCH, num_workers=workers, drop_last=True)

    return opened


def braindecode(
    folder: Path, signals: Sequence[Callable[[], np.ndarray]], sfreq: float, n_times: int
) -> Opened:
    """Write FIF files, read lazily by braindecode's fixed-length windows."""
    import mne

    for i, signal in enumerate(signals):
        data = signal()
        info = mne.create_info([f"E{c}" for c in range(len(data))], sfreq, "eeg")
        raw = mne.io.RawArray(data, info, verbose="error")
        raw.save(folder / f"{i:04d}_raw.fif", fmt="single", verbose="error")

    def make() -> Any:
        from_files = _import_braindecode()
        return from_files(sorted(folder.glob("*.fif")), n_times)

    return behind_dataloader(make)


class OnlySignal(torch.utils.data.Dataset):
    """The signals of windows that come with label and position."""

    def __init__(self, windows: Any):
        self.windows = windows

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, i: int) -> torch.Tensor:
        return torch.from_numpy(np.asarray(self.windows[i][0], np.float32))


def mend_torchaudio() -> None:
    """Make braindecode importable, also where torchaudio was built for another torch."""
    try:
        import torchaudio  # noqa: F401
    except OSError:
        for name in [n for n in sys.modules if n.partition(".")[0] == "torchaudio"]:
            del sys.modules[name]
        absent = types.ModuleType("torchaudio._extension")
        absent.__dict__.update(
            _IS_TORCHAUDIO_EXT_AVAILABLE=False,
            _IS_RIR_AVAILABLE=False,
            lazy_import_sox_ext=lambda: None,
            fail_if_no_align=lambda function: function,
        )
        absent.__spec__ = importlib.machinery.ModuleSpec("torchaudio._extension", None)
        sys.modules["torchaudio._extension"] = absent


def _import_braindecode() -> Callable[[Sequence[Path], int], torch.utils.data.Dataset]:
    mend_torchaudio()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import mne
        from braindecode.datasets import BaseConcatDataset, RawDataset
        from braindecode.preprocessing import create_fixed_length_windows

    def from_files(paths: Sequence[Path], n_times: int) -> torch.utils.data.Dataset:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            recordings = [
                RawDataset(mne.io.read_raw_fif(path, preload=False, verbose="error"), {})
                for path in paths
            ]
            windows = create_fixed_length_windows(
                BaseConcatDataset(recordings),
                window_size_samples=n_times,
                window_stride_samples=n_times,
                drop_last_window=True,
                verbose="error",
            )
        return OnlySignal(windows)

    return from_files
