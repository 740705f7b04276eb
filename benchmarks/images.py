"""`robustcli evaluate` on a folder that memory does not hold, against a bare loop over the same files.

The bare loop is what one would write by hand: torchvision's `ImageFolder` and torch's `DataLoader` with as many worker
processes, then for each batch the clean predictions, FGSM, and the predictions after it. Both are whole processes, and
alternate. Memory is the largest sum of the proportional shares (PSS) of a process and its workers, read four times a
second, beyond that of a process that has imported torch and torchvision.

    python benchmarks/images.py --n 20000                     # makes the files in a temporary folder; half an hour
    python benchmarks/images.py --n 2000 --rounds 1 --folder DIR
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

SIDE, CLASSES, EPS, EVERY = 224, 10, "2/255", 0.25

NETWORK = """
import torch
from torch import nn

def make():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 7, 4, 3), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(512, 10),
    )
"""

BARE = """
import sys, torch
from network import make
from torchvision.datasets import ImageFolder
from torchvision.transforms import ToTensor
from torch.utils.data import DataLoader

folder, workers, eps = sys.argv[1], int(sys.argv[2]), eval(sys.argv[3])
model, right, robust = make().eval().requires_grad_(False), 0, 0
for x, y in DataLoader(ImageFolder(folder, ToTensor()), batch_size=64, num_workers=workers):
    with torch.no_grad():
        clean = model(x).argmax(1) == y
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(torch.nn.functional.cross_entropy(model(x), y, reduction="sum"), x)
    with torch.no_grad():
        robust += int((clean & (model((x + eps * gradient.sign()).clamp(0, 1)).argmax(1) == y)).sum())
    right += int(clean.sum())
print(right, robust)
"""


def make_files(folder: Path, n: int) -> None:
    """So many JPEG files of smooth colours, in class folders below `test`, where there are none yet."""
    rng = np.random.default_rng(0)
    for i in range(n):
        path = folder / "test" / f"class{i % CLASSES}" / f"{i:06}.jpg"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            coarse = Image.fromarray(rng.integers(0, 256, (28, 28, 3), dtype=np.uint8))
            coarse.resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(path, quality=90)


def shared_memory(process: int) -> int:
    """The PSS of a process and all below it, in bytes."""
    try:
        children = Path(f"/proc/{process}/task/{process}/children").read_text(encoding="ascii").split()
        lines = Path(f"/proc/{process}/smaps_rollup").read_text(encoding="ascii").splitlines()
    except OSError:  # it has ended
        return 0
    own = sum(1024 * int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return own + sum(shared_memory(int(child)) for child in children)


def run(command: list[str], folder: Path) -> tuple[float, int, str]:
    """The seconds, the most memory and the stdout of a command."""
    with tempfile.TemporaryFile("w+") as out:
        started, most = time.perf_counter(), 0
        process = subprocess.Popen(command, cwd=folder, stdout=out, env=os.environ | {"PYTHONPATH": path_of_package()})
        while process.poll() is None:
            time.sleep(EVERY)
            most = max(most, shared_memory(process.pid))
        seconds = time.perf_counter() - started
        if process.returncode:
            raise SystemExit(f"{command}: exit code {process.returncode}")
        out.seek(0)
        return seconds, most, out.read()


def path_of_package() -> str:
    """Where this checkout is, for processes in other folders."""
    return os.pathsep.join((str(Path(__file__).resolve().parents[1]), os.environ.get("PYTHONPATH", "")))


def main() -> None:
    """Run both in turn, and print a line each and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=20_000, help="files")
    parser.add_argument("--workers", type=int, default=2, help="of both sides")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where the files are, or are made; a temporary one if left out")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = (options.folder or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        make_files(folder / "photos", options.n)
        (folder / "network.py").write_text(NETWORK, encoding="utf-8")
        (folder / "bare.py").write_text(BARE, encoding="utf-8")
        python, workers = sys.executable, str(options.workers)
        _, base, _ = run([python, "-c", "import torch, torchvision, time; time.sleep(1)"], folder)
        bare = [python, "bare.py", "photos/test", workers, EPS]
        flags = ["--normalize", "none", "--workers", workers, "--format", "json"]
        ours = [python, "-m", "robustcli", "evaluate", "network.py:make", "--dataset", "photos", "--attack", "fgsm"]
        ours += ["--eps", EPS, *flags]
        times: dict[str, list[float]] = {"bare": [], "ours": [], "again": []}
        peaks = []
        for i in range(options.rounds):
            store = folder / f"store-{os.getpid()}-{i}.db"
            seconds, _, text = run(bare, folder)
            times["bare"].append(seconds)
            seconds, most, out = run([*ours, "--store", str(store)], folder)
            row = json.loads(out)["rows"][0]
            assert text.split() == [str(row["clean_correct"]), str(row["correct"])], (text, row["correct"])
            times["ours"].append(seconds)
            peaks.append(most - base)
            times["again"].append(run([*ours, "--store", str(store)], folder)[0])
            print(i, {name: round(values[-1], 1) for name, values in times.items()}, f"{most / 1e9:.2f} GB", flush=True)
        ratio = statistics.median(a / b for a, b in zip(times["bare"], times["ours"], strict=True))
        print(f"speed {ratio:.2f} of the bare loop, the same call again {statistics.median(times['again']):.1f} s")
        print(f"memory at most {max(peaks) / 1e9:.2f} GB beyond torch's {base / 1e9:.2f} GB")


if __name__ == "__main__":
    main()
