"""Batches of stored images by index: from memory where the store fits, else streamed from the disk.

Both give the same tensors in the same order. Streaming reads ahead in a thread, from the memory map
into a ring of buffers (pinned for a CUDA device, so that copies do not wait), which are used again:
memory stays at `ahead` + 2 batches whatever the store's size.
"""

import os
import queue
import threading
from collections.abc import Iterable, Iterator

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

# A store is streamed when it is larger than this share of what the device (or the host) has free.
SHARE = 0.5
AHEAD = 3
_END = object()


def image_batches(
    images: np.ndarray,
    batches: Iterable[np.ndarray],
    *,
    device: torch.device,
    share: float = SHARE,
) -> Iterator[UInt8[Tensor, "B S S 3"]]:
    """Yield `images[items]` on the device for each array of indices, in their order.

    Units: `share` of free memory, beyond which the store is streamed.
    """
    if needs_streaming(images.nbytes, device, share):
        return streamed(images, batches, device=device)
    return resident(images, batches, device=device)


def needs_streaming(size: int, device: torch.device, share: float = SHARE) -> bool:
    """Say whether `size` bytes are more than `share` of the memory that is free for them."""
    return size > share * free_bytes(device)


def free_bytes(device: torch.device) -> int:
    """Return the bytes that the device has free; of the host, those it can give without swapping."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            fields = dict(line.split(":") for line in file)
        return int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")


def resident(
    images: np.ndarray, batches: Iterable[np.ndarray], *, device: torch.device
) -> Iterator[UInt8[Tensor, "B S S 3"]]:
    """Yield batches out of a copy of the whole store on the device."""
    held = torch.from_numpy(np.array(images)).to(device)
    for items in batches:
        yield held[torch.from_numpy(items).to(device)]


def streamed(
    images: np.ndarray,
    batches: Iterable[np.ndarray],
    *,
    device: torch.device,
    ahead: int = AHEAD,
) -> Iterator[UInt8[Tensor, "B S S 3"]]:
    """Yield batches read from the memory map, `ahead` of them before they are asked for.

    On the host a batch is valid until the next is taken; on a device it is the caller's.
    """
    ring = _Ring(ahead + 2, pinned=device.type == "cuda")

    def read(items: np.ndarray):
        slot, buffer = ring.take((len(items), *images.shape[1:]))
        gather(images, items, buffer.numpy())
        return slot, buffer

    for slot, buffer in prefetched(map(read, batches), ahead=ahead):
        yield buffer if device.type == "cpu" else buffer.to(device, non_blocking=True)
        ring.give(slot)


def gather(images: np.ndarray, items: np.ndarray, out: np.ndarray) -> None:
    """Copy `images[items]` into `out`, in the order in which they lie on the disk."""
    order = np.argsort(items, kind="stable")
    for place in order:
        out[place] = images[items[place]]


def prefetched(items: Iterable, *, ahead: int = AHEAD) -> Iterator:
    """Yield items of an iterable that a thread draws from, up to `ahead` of them in advance.

    The thread ends with the generator. What the iterable raises is raised here, in its place.
    """
    waiting: queue.Queue = queue.Queue(ahead)
    stopped = threading.Event()

    def draw() -> None:
        try:
            for item in items:
                if not _put(waiting, item, stopped):
                    return
            _put(waiting, _END, stopped)
        # Whatever it is belongs to the reader of the batches, not to this thread.
        except BaseException as error:
            _put(waiting, error, stopped)

    thread = threading.Thread(target=draw, name="images-ahead", daemon=True)
    thread.start()
    try:
        while (item := waiting.get()) is not _END:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stopped.set()
        thread.join()


def _put(waiting: queue.Queue, item: object, stopped: threading.Event) -> bool:
    while not stopped.is_set():
        try:
            waiting.put(item, timeout=0.1)
        except queue.Full:
            continue
        return True
    return False


class _Ring:
    """Buffers that are used in turn; one is free again when the copy out of it has ended."""

    def __init__(self, slots: int, *, pinned: bool):
        self._pinned = pinned
        self._buffers: list[Tensor | None] = [None] * slots
        self._copied: list[torch.cuda.Event | None] = [None] * slots
        self._turn = 0

    def take(self, shape: tuple[int, ...]) -> tuple[int, Tensor]:
        slot = self._turn % len(self._buffers)
        self._turn += 1
        if (copied := self._copied[slot]) is not None:
            copied.synchronize()
        held = self._buffers[slot]
        if held is None or held.shape != shape:
            held = torch.empty(shape, dtype=torch.uint8, pin_memory=self._pinned)
            self._buffers[slot] = held
        return slot, held

    def give(self, slot: int) -> None:
        if self._pinned:
            event = torch.cuda.Event()
            event.record()
            self._copied[slot] = event
