"""Out of memory is told as such, whoever says so and whatever was made of it since."""

from __future__ import annotations

import pytest
import torch

from robustcli.errors import CheckpointError, OutOfMemoryError, is_out_of_memory, memory_error, memory_guard

SAID = [
    MemoryError(),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory: you tried"),
    RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 4000000000000 bytes."),
    RuntimeError("std::bad_alloc"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"),
    RuntimeError("can't start new thread"),
    RuntimeError("could not create a primitive"),
    RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. "),
    OSError(12, "Cannot allocate memory"),
    ImportError("libx.so: cannot allocate memory in static TLS block"),
]


@pytest.mark.parametrize("error", SAID, ids=str)
def test_it_is_known_by_what_is_said(error: Exception) -> None:
    assert is_out_of_memory(error)
    with pytest.raises(OutOfMemoryError, match=r"^out of memory: .*--batch-size") as caught, memory_guard():
        raise error
    assert caught.value.exit_code == 3


@pytest.mark.parametrize("hidden", [True, False])
def test_it_is_known_behind_another_error(hidden: bool) -> None:
    def load() -> None:
        try:
            raise SAID[2]
        except RuntimeError as error:
            raise CheckpointError("a.pt: is unusable") from (None if hidden else error)

    with pytest.raises(OutOfMemoryError), memory_guard():
        load()


@pytest.mark.parametrize(
    "error",
    [
        None,
        RuntimeError("shapes do not fit"),
        RuntimeError("could not create a primitive descriptor for a convolution"),
        ValueError("out of memory"),
        CheckpointError("a.pt: is missing"),
    ],
)
def test_another_error_is_left_alone(error: Exception | None) -> None:
    assert not is_out_of_memory(error)
    if error is not None:
        assert memory_error(error) is None
        with pytest.raises(type(error)) as caught, memory_guard():
            raise error
        assert caught.value is error


def test_an_error_that_is_told_already_is_passed_on() -> None:
    error = OutOfMemoryError("out of memory: once")
    assert memory_error(error) is error
    with pytest.raises(OutOfMemoryError, match="once") as caught, memory_guard():
        raise error
    assert caught.value is error
