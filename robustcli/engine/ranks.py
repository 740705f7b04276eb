"""Several processes in one run (torchrun): each computes its part of the samples, and all of them know every result."""

from __future__ import annotations

import hashlib
import io
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.rendezvous import rendezvous

from robustcli.engine.outcome import Journal, OutcomeBuilder, Work, split_evenly
from robustcli.errors import DataError, ProcessError, one_line

PATIENCE = timedelta(hours=1)
"""How long a process waits for the others, which may be slower; of one that has died all know at once."""

SECONDS = 0.002
"""Between two looks at whether the others are there."""

MOST_BYTES = 2**22
"""Of a value in torch's key-value store, which takes 8 MiB."""

FAILED, ENDED = "robustcli/failed", "robustcli/ended"
"""What a process that fails says to the others, and that rank 0 has ended as it should."""


class Ranks:
    """The processes of a run, connected as their environment says: RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT.

    Raises:
        ProcessError: they cannot be connected, or, of any method, another one is gone.
    """

    def __init__(self) -> None:
        try:
            self._store, self.rank, self.size = next(iter(rendezvous("env://", timeout=PATIENCE)))
            dist.init_process_group("gloo", store=self._store, rank=self.rank, world_size=self.size, timeout=PATIENCE)
        except (RuntimeError, ValueError) as error:
            raise ProcessError(f"torch.distributed: the processes cannot be connected ({one_line(error)})") from None
        self._sent, self._received = 0, [0] * self.size
        if "OMP_NUM_THREADS" not in os.environ:
            here = int(os.environ.get("LOCAL_WORLD_SIZE", self.size))
            torch.set_num_threads(max(1, torch.get_num_threads() // here))

    def own_device(self, name: str) -> str:
        """A GPU of its own where `auto` or `cuda` is asked for and there are any."""
        shared = name in ("auto", "cuda") and torch.cuda.is_available()
        return f"cuda:{os.environ.get('LOCAL_RANK', self.rank)}" if shared else name

    def part(self, missing: Tensor, busy: Tensor | None = None) -> Tensor:
        """Of the samples `missing` (m,), this process's, in ascending order; those that are `busy` (m,) take work."""
        busy = torch.ones_like(missing, dtype=torch.bool) if busy is None else busy
        idle = missing[~busy][self.rank :: self.size]
        return torch.cat([shares(missing[busy], self.size)[self.rank], idle]).sort().values

    def sum(self, values: Tensor, meanwhile: Callable[[], None] = lambda: None) -> Tensor:
        """The sum of all processes' tensors of one shape: what one of them knows, where the others have zeros."""
        total = values.to("cpu", copy=True)
        with self._connected():
            work = dist.all_reduce(total, async_op=True)
            while not work.is_completed():
                meanwhile()
                time.sleep(SECONDS)
            work.wait()
        return total.to(values.device)

    def total(self, work: Work) -> Work:
        """The work of all processes."""
        seconds, *passes = self.sum(torch.tensor([work.seconds, work.forwards, work.backwards]).double()).tolist()
        return Work(seconds, *map(int, passes))

    def agree(self, facts: Mapping[str, object]) -> None:
        """Refuse processes that would not measure the same.

        Raises:
            DataError: names the first that differs from rank 0, and in what.
        """
        table = torch.zeros(self.size, len(facts), 32, dtype=torch.int64)
        digests = [list(hashlib.sha256(repr(fact).encode()).digest()) for fact in facts.values()]
        table[self.rank] = torch.tensor(digests)
        table = self.sum(table)
        for rank, column in (table != table[0]).any(2).nonzero().tolist()[:1]:
            what = list(facts)[column]
            raise DataError(f"rank {rank}: has other {what} than rank 0; all need the same command and the same files")

    def send(self, content: bytes) -> None:
        """Bytes for rank 0, which has them even if this process dies after."""
        key, pieces = f"robustcli/{self.rank}/{self._sent}", range(0, len(content), MOST_BYTES)
        with self._connected():
            for i, start in enumerate(pieces):
                self._store.set(f"{key}/{i}", content[start : start + MOST_BYTES])
            self._store.set(key, str(len(pieces)))
            self._store.check([key])  # the answer comes after all of it has arrived
        self._sent += 1

    def receive(self) -> Iterator[bytes]:
        """What the others have sent since, at once; rank 0 alone may ask."""
        with self._connected():
            for rank in range(1, self.size):
                while self._store.check([key := f"robustcli/{rank}/{self._received[rank]}"]):
                    self._received[rank] += 1
                    pieces = [f"{key}/{i}" for i in range(int(self._store.get(key)))]
                    yield b"".join(self._store.get(piece) for piece in pieces)
                    for done in (key, *pieces):
                        self._store.delete_key(done)

    def tell(self, key: str, text: str = "") -> None:
        """Leave a word for the others, as far as they can be reached."""
        with suppress(RuntimeError):
            self._store.set(key, text)
            self._store.check([key])

    def word(self, key: str) -> str | None:
        """What another process has left under a key."""
        with suppress(RuntimeError):
            return self._store.get(key).decode() if self._store.check([key]) else None
        return None

    def failed(self) -> ProcessError | None:
        """The failure that another process has told of, if any has."""
        reason = self.word(FAILED)
        return None if reason is None else ProcessError(reason)

    def leave(self) -> None:
        """Close the connections; the others know that it is no failure."""
        if self.rank == 0:
            self.tell(ENDED)
        with suppress(RuntimeError):
            dist.destroy_process_group()

    @contextmanager
    def _connected(self) -> Iterator[None]:
        """The error for a connection that is closed, or for one that is silent too long, as one line."""
        try:
            yield
        except RuntimeError:
            gone = ProcessError("a process of this run has died, or its connection is lost")
            raise self.failed() or gone from None


def shares(busy: Tensor, ranks: int) -> list[Tensor]:
    """Samples (k,) by rank, as many each but for 1.

    A sample is its position's modulo `ranks`, so that it mostly stays with one process from attack to attack; what a
    rank has too many goes to those that have too few.
    """
    owned = [busy[busy % ranks == rank] for rank in range(ranks)]
    sizes = split_evenly(len(busy), ranks)
    spare = torch.cat([part[size:] for part, size in zip(owned, sizes, strict=True)])
    gaps = [max(0, size - len(part)) for part, size in zip(owned, sizes, strict=True)]
    more = torch.split(spare, gaps)
    return [torch.cat([part[:size], rest]) for part, size, rest in zip(owned, sizes, more, strict=True)]


class SharedJournal:
    """The `Journal` of all processes, and the stages that they share.

    Args:
        ranks: the processes.
        journal: rank 0's, where there is a store; it keeps what all have finished.
    """

    def __init__(self, ranks: Ranks, journal: Journal | None) -> None:
        self.ranks, self.journal = ranks, journal
        self.pictures = int(ranks.sum(torch.tensor(journal.pictures if journal else 0)))
        self._rows: Sequence[OutcomeBuilder] = ()
        self._member: int | None = None

    @contextmanager
    def stage(
        self, rows: Sequence[OutcomeBuilder], missing: Tensor, busy: Tensor, member: int | None = None
    ) -> Iterator[Tensor]:
        """Within it this process's part of the samples `missing`, of which the `busy` ones (n,) take work.

        After it all rows are the same everywhere, with the work of all. If it fails, what the others have finished is
        kept all the same.
        """
        self._rows, self._member = rows, member
        mine = self.ranks.part(missing, busy[missing])
        try:
            yield mine
            self._exchange(rows, mine)
            self._receive()
        except BaseException:
            with suppress(ProcessError):
                self._receive()
            raise
        for row in rows:
            row.spent = self.ranks.total(row.spent)

    def recall(self, row: OutcomeBuilder, member: int | None, index: Tensor) -> Tensor:
        """What rank 0 knows of a row's samples `index` (k,)."""
        known = self.journal.recall(row, member, index) if self.journal else torch.zeros_like(row.robust)
        return self._exchange([row], known.nonzero()[:, 0])

    def keep(self, rows: Sequence[OutcomeBuilder], index: Tensor, shares: Sequence[Work], member: int | None) -> None:
        """Keep the samples `index` of rows in rank 0's store, by way of a message from the others."""
        if self.journal is not None:
            self.journal.keep(rows, index, shares, member)
            self._receive()
            if failed := self.ranks.failed():
                raise failed
            return
        work = [[share.seconds, share.forwards, share.backwards] for share in shares]
        arrays = {"index": index.cpu(), "work": torch.tensor(work).double()}
        own = set(index.tolist())
        for i, row in enumerate(rows):
            arrays[f"row {i}"] = _columns(row, index)
            arrays |= {f"picture {i} {at}": image for at, image in row.pictures.items() if at in own}
        content = io.BytesIO()
        plain: dict[str, Any] = {name: array.numpy() for name, array in arrays.items()}
        np.savez(content, **plain)
        self.ranks.send(content.getvalue())

    def _receive(self) -> None:
        """Keep what the others have finished since."""
        if self.journal is None:
            return
        for content in self.ranks.receive():
            with np.load(io.BytesIO(content)) as arrays:  # it refuses pickles
                index = torch.from_numpy(arrays["index"]).to(self._rows[0].robust.device)
                for i, row in enumerate(self._rows):
                    _restore(row, index, torch.from_numpy(arrays[f"row {i}"]))
                    names = [name for name in arrays.files if name.startswith(f"picture {i} ")]
                    row.pictures |= {int(name.split()[-1]): torch.from_numpy(arrays[name]) for name in names}
                work = [Work(seconds, int(some), int(others)) for seconds, some, others in arrays["work"].tolist()]
            self.journal.keep(self._rows, index, work, self._member)

    def _exchange(self, rows: Sequence[OutcomeBuilder], index: Tensor) -> Tensor:
        """Give the samples `index` (k,) of rows to all; (n,) bool, which samples any process has given."""
        device, n = rows[0].robust.device, len(rows[0].robust)
        packed = torch.zeros(len(rows), 5, n, dtype=torch.float64)
        for row, place in zip(rows, packed, strict=True):
            place[0, index.cpu()] = 1
            place[1:, index.cpu()] = _columns(row, index)
        packed = self.ranks.sum(packed, self._receive)
        known = packed[0, 0] > 0
        given = known.nonzero()[:, 0]
        for row, place in zip(rows, packed, strict=True):
            _restore(row, given.to(device), place[1:, given])
            if row.x_adv is not None:
                images = torch.zeros_like(row.x_adv)
                images[index] = row.x_adv[index]
                row.x_adv[given.to(device)] = self.ranks.sum(images)[given.to(device)]
        return known.to(device)


def _columns(row: OutcomeBuilder, index: Tensor) -> Tensor:
    """(4, k) float64, what is known of the samples `index` (k,) of a row."""
    return torch.stack(
        [values[index].cpu().double() for values in (row.robust, row.distance, row.pred_after, row.broken_at)]
    )


def _restore(row: OutcomeBuilder, index: Tensor, columns: Tensor) -> None:
    robust, distance, pred_after, broken_at = columns.to(index.device)
    row.restore(index, robust.bool(), distance, pred_after.long(), broken_at.long())
