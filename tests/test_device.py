"""Where a run computes, and what it does with memory."""

from __future__ import annotations

import ctypes
import platform
import resource
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

from robustcli.device import keep_freed_memory, multiplies, pick_device
from robustcli.errors import ConfigError


def test_the_first_gpu_or_else_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    for there, expected in ((True, "cuda"), (False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=there: there)
        assert pick_device("auto") == expected
    assert pick_device("cpu") == "cpu"


@pytest.mark.parametrize("name", ["", "gpu", "meta", "cuda:", "cuda:x", "CPU"])
def test_an_unknown_device_is_named(name: str) -> None:
    with pytest.raises(ConfigError, match=f"--device '{name}' is unknown"):
        pick_device(name)


def test_a_device_that_is_not_here_is_named() -> None:
    with pytest.raises(ConfigError, match="--device cuda:99: not available here"):
        pick_device("cuda:99")


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({"avx2": True, "avx512_bf16": False, "amx_bf16": False}, False),
        ({"avx512_bf16": True, "amx_bf16": False}, True),
        ({"avx512_bf16": False, "amx_bf16": True}, True),
        ({"neon": True, "bf16": False}, False),
        ({"neon": True, "bf16": True}, True),
        ({}, True),
    ],
)
def test_a_processor_without_bfloat16_is_known(
    capabilities: dict[str, bool], expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert multiplies("bfloat16", "cpu") is expected
    assert multiplies("float32", "cpu")
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    assert multiplies("bfloat16", "cpu"), "an older torch does not say"


@pytest.mark.parametrize("there", [True, False])
def test_a_gpu_that_would_emulate_bfloat16_has_none(there: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    current = ["cuda:0"]

    @contextmanager
    def switched(device: str) -> Iterator[None]:
        current.append(device)
        yield
        current.pop()

    def has(including_emulation: bool) -> bool:
        return including_emulation or (current[-1] == "cuda:1") is there

    monkeypatch.setattr(torch.cuda, "device", switched)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", has)
    assert multiplies("bfloat16", "cuda:1") is there
    assert multiplies("bfloat16", "cuda:0") is not there


def test_keeping_freed_memory_changes_no_value_and_may_be_asked_for_twice() -> None:
    x = torch.rand(64, 64, generator=torch.Generator().manual_seed(0))
    before = x @ x
    keep_freed_memory()
    keep_freed_memory()
    assert torch.equal(x @ x, before)
    for _ in range(20):
        assert float(torch.ones(1 << 20).sum()) == 1 << 20, "blocks of 4 MB, the ones that are kept"


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc only")
def test_freed_memory_is_kept() -> None:
    """The kernel has no page to clear when a block of 32 MB is asked for again and again."""
    keep_freed_memory()
    for _ in range(30):  # the first few still grow the heap: each aligned block splits the one before
        block = torch.ones(1 << 23)
        del block
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        block = torch.ones(1 << 23)
        del block
    assert resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before < 5 * 8192 / 2, "of 8192 pages a block"


def test_elsewhere_nothing_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> None:
        raise AssertionError("not glibc")

    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    monkeypatch.setattr(ctypes, "CDLL", never)
    keep_freed_memory()
