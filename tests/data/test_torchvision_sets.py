from __future__ import annotations

import hashlib
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from robustcli.config import DataSpec, Fit
from robustcli.data.load import is_here, load
from robustcli.data.named import DATASETS
from robustcli.errors import ConfigError

from .conftest import draw, failure, load_path, write_idx, write_images, write_npz


def by_name(name: str, root: Path, **spec: object):
    return load(DataSpec(dataset=name, data_dir=root, **spec))


def test_cifar100s_pickles_are_read(tmp_path, monkeypatch):
    from torchvision.datasets import CIFAR100

    folder = tmp_path / "cifar-100-python"
    folder.mkdir()
    parts = {
        "train": {"data": draw(4, 3072), "fine_labels": [3, 99, 0, 1]},
        "test": {"data": draw(2, 3072), "fine_labels": [7, 8]},
    }
    files = {name: pickle.dumps(part) for name, part in parts.items()}
    files["meta"] = pickle.dumps({"fine_label_names": [f"class {i}" for i in range(100)]})
    for name, content in files.items():
        (folder / name).write_bytes(content)
    md5 = {name: hashlib.md5(content).hexdigest() for name, content in files.items()}
    for split in ("train", "test"):
        monkeypatch.setattr(CIFAR100, f"{split}_list", [[split, md5[split]]])
    monkeypatch.setattr(CIFAR100, "meta", CIFAR100.meta | {"md5": md5["meta"]})
    images = by_name("CIFAR100", tmp_path)
    assert (images.name, images.source, images.shape) == ("cifar100", "cifar100/test", (3, 32, 32))
    assert (images.y.tolist(), images.classes[7]) == ([7, 8], "class 7")
    assert torch.equal(images.x.reshape(2, -1), torch.from_numpy(parts["test"]["data"]))
    assert by_name("cifar100", tmp_path, split="train", limit=3).y.tolist() == [3, 99, 0]
    (folder / "test").write_bytes(b"other")
    assert "cannot be read from" in failure("cifar100", data_dir=tmp_path)


def test_svhns_mat_is_read_and_its_classes_are_numbers(tmp_path, monkeypatch):
    from scipy.io import savemat
    from torchvision.datasets import SVHN

    x = draw(3, 32, 32, 3)
    savemat(tmp_path / "test_32x32.mat", {"X": x.transpose(1, 2, 3, 0), "y": np.array([[10], [3], [9]])})
    monkeypatch.setattr(SVHN, "_check_integrity", lambda self: (tmp_path / self.filename).is_file())
    images = by_name("svhn", tmp_path)
    assert (images.y.tolist(), images.classes[-1]) == ([0, 3, 9], "9")
    assert np.array_equal(images.x.permute(0, 2, 3, 1).numpy(), x)
    assert "--dataset svhn: cannot be read from" in failure("svhn", data_dir=tmp_path, split="train")


def test_kmnist_and_emnist_are_idx_files(tmp_path):
    write_idx(tmp_path, layout="KMNIST")
    assert by_name("kmnist", tmp_path).classes[:2] == ("o", "ki")
    write_idx(tmp_path, layout="EMNIST")
    for file in list((tmp_path / "EMNIST/raw").iterdir()):
        part, rest = file.name.split("-", 1)
        for kind in ("balanced", "letters"):
            file.with_name(f"emnist-{kind}-{part.replace('t10k', 'test')}-{rest}").write_bytes(file.read_bytes())
    assert len(by_name("EMNIST", tmp_path).classes) == 47
    images = by_name("emnist:letters", tmp_path, split="train")
    assert (images.name, len(images.classes), images.y.tolist()) == ("emnist:letters", 27, [0, 1, 2, 3])
    with pytest.raises(ConfigError, match=r"--dataset emnist:foo: Unknown value 'foo' .* Valid values are"):
        by_name("emnist:foo", tmp_path)


def write_photos(folder: Path, names: list[str], sizes: list[tuple[int, int]]) -> None:
    for level, name in enumerate(names):
        (folder / name).mkdir(parents=True)
        for i, size in enumerate(sizes):
            Image.new("RGB", size, (50 * level, i, 0)).save(folder / name / f"{i}.JPEG")


def test_imagenette_is_read_from_its_files_as_they_are_asked_for(tmp_path, monkeypatch):
    monkeypatch.setattr("robustcli.data.folders.IN_MEMORY", 0)
    for split in ("train", "val"):
        write_photos(tmp_path / "imagenette2" / split, ["n01440764", "n02102040"], [(40, 30), (30, 40)])
    images = by_name("imagenette", tmp_path, fit=Fit(crop=(24, 24)))
    assert (images.shape, images.y.tolist(), type(images.x).__name__) == ((3, 24, 24), [0, 1, 0, 1], "Files")
    assert images.classes == ("tench, Tinca tinca", "English springer, English springer spaniel")
    assert images.fit == Fit(crop=(24, 24))


def test_imagenets_validation_folder_needs_nothing_else(tmp_path):
    write_photos(tmp_path / "imagenet" / "val", ["n01440764", "n02102040"], [(8, 8), (8, 8)])
    images = by_name("ImageNet", tmp_path)
    assert (images.source, images.classes, len(images)) == ("imagenet/test", ("n01440764", "n02102040"), 4)
    assert "holds 0 class folders" in failure("imagenet", data_dir=tmp_path, split="train") or "1 class" in failure(
        "imagenet", data_dir=tmp_path, split="train"
    )


def test_a_set_without_splits_tests_on_every_fifth_image_of_a_class(tmp_path):
    root = tmp_path / "eurosat" / "2750"
    for level, name in enumerate(("Forest", "River")):
        write_images(root / name, 6, mode="RGB", level=100 * level)
    train, test = (by_name("eurosat", tmp_path, split=split) for split in ("train", "test"))
    assert test.x[:, 0, 0, 0].tolist() == [4, 104]
    assert (len(train), train.classes) == (10, ("Forest", "River"))


def test_items_that_are_in_no_array_and_no_file_are_read_one_by_one(tmp_path, monkeypatch):
    from torchvision.datasets import FER2013

    (tmp_path / "fer2013").mkdir()
    pixels = draw(3, 48 * 48)
    rows = "".join(
        f"{label},{' '.join(map(str, row))},PublicTest\n" for label, row in zip((4, 0, 1), pixels, strict=True)
    )
    (tmp_path / "fer2013" / "fer2013.csv").write_text(f"emotion,pixels,Usage\n{rows}")
    monkeypatch.setattr("torchvision.datasets.fer2013.check_integrity", lambda *_, **__: True)
    images = by_name("fer2013", tmp_path, limit=2)
    assert (images.shape, images.y.tolist()) == ((1, 48, 48), [4, 0])
    assert np.array_equal(images.x.reshape(2, -1).numpy(), pixels[:2])
    assert FER2013.__name__.lower() in DATASETS


def test_what_is_not_here_names_the_ways_out_and_an_npz_of_the_name_is_read(tmp_path, probes):
    message = failure("dtd", data_dir=tmp_path)
    assert message.startswith(f"--dataset dtd: is not in {tmp_path} (--data-dir), and there is no network (")
    assert "dtd.npz" in message
    assert probes == ["www.robots.ox.ac.uk:443"]
    assert "torchvision does not download it" in failure("imagenet", data_dir=tmp_path)
    assert list(tmp_path.iterdir()) == [], "nothing is made where nothing is read"
    write_npz(tmp_path / "dtd.npz")
    assert by_name("DTD", tmp_path).name == "dtd"
    assert is_here("dtd", tmp_path)
    assert not is_here("svhn", tmp_path)


@pytest.mark.parametrize("name", ["VOCDetection", "fakedata", "UCF101"])
def test_what_is_no_classification_is_refused(name):
    with pytest.raises(ConfigError, match="has not one class for each image"):
        load(DataSpec(dataset=name))


def test_every_name_is_a_class_of_torchvisions():
    from torchvision import datasets

    from robustcli.data import named
    from robustcli.data.torchvision_sets import host_of

    classes = [known.torchvision.loader for known in DATASETS.values() if known.torchvision]
    assert [name for name in (*classes, *named._NO_CLASSIFICATION.split()) if not hasattr(datasets, name)] == []
    without = {name for name in classes if host_of(getattr(datasets, name)) is None}
    assert without == {"FER2013", "ImageNet"}


# A .pt of tensors


def test_a_pt_of_tensors_is_read_as_an_npz_is(tmp_path):
    x = {"x_train": draw(6, 3, 8, 8), "x_test": draw(3, 3, 8, 8)}
    labels = {"y_train": torch.tensor([0, 1, 2] * 2), "y_test": torch.tensor([2, 1, 0])}
    for made in (
        {name: torch.from_numpy(one) for name, one in x.items()},
        {name: torch.from_numpy(one) / 255 for name, one in x.items()},
    ):
        torch.save(made | labels | {"classes": ["a", "b", "c"]}, tmp_path / "set.pt")
        images = load_path(tmp_path / "set.pt")
        assert (images.classes, images.y.tolist()) == (("a", "b", "c"), [2, 1, 0])
        assert np.array_equal(images.x.numpy(), x["x_test"])
        assert len(load_path(tmp_path / "set.pt", limit="first:2")) == 2
    torch.save({name: torch.from_numpy(one[:, 0]) for name, one in x.items()} | labels, tmp_path / "set.pt")
    assert load_path(tmp_path / "set.pt", split="train").shape == (1, 8, 8)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"x_test": torch.zeros(3, 8, 8, 3)},
            "'x_test' has the shape (3, 8, 8, 3); allowed: (n, h, w) or (n, c, h, w)",
        ),
        ({"x_test": torch.full((3, 8, 8), 7.0)}, "array 'x_test' holds float32 from 7 to 7; allowed: uint8"),
        ({"y_test": torch.tensor([0.5, 1, 2])}, "array 'y_test' has the shape (3,) and holds float32"),
        ({"y_test": [0, 1, 2]}, "'y_test' is a list; should be a tensor, or text in a list of classes"),
        ({"y_test": None}, "array 'y_test' is missing"),
        ({"x_test": torch.zeros(1, dtype=torch.uint8).expand(3, 8, 8)}, "it.x_test: claims 192 values"),
    ],
)
def test_a_pt_that_lacks_something_is_said(tmp_path, changes, message):
    valid = {"x_train": torch.zeros(6, 8, 8), "y_train": torch.tensor([0, 1, 2] * 2)}
    valid |= {"x_test": torch.zeros(3, 8, 8), "y_test": torch.tensor([2, 1, 0])}
    torch.save({key: value for key, value in (valid | changes).items() if value is not None}, tmp_path / "set.pt")
    assert message in failure(tmp_path / "set.pt")


def test_a_pt_that_holds_no_images_is_told_as_what_it_is(tmp_path):
    path = tmp_path / "model.pt"
    torch.save({"state_dict": {"w": torch.zeros(2)}}, path)
    assert failure(path).startswith(f"{path}: holds a model's checkpoint or weights, and no images: ")
    torch.save(torch.nn.Linear(2, 2), path)
    assert "is refused: it holds a pickled object" in failure(path)
    path.write_bytes(b"text")
    assert "cannot be read as a file that torch.save wrote" in failure(path)
    assert "no such file" in failure(tmp_path / "none.pt")
