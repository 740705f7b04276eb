"""From a part of the study to its files: JSON, a Markdown table, and a picture as PNG and SVG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from robustcli.config import DataSpec
from robustcli.data.load import data_folder, is_here, load
from robustcli.device import pick_device
from robustcli.disk import write_whole
from robustcli.errors import AttackError, CheckpointError, ConfigError, DataError, TrainingError
from robustcli.models import checkpoint, zoo
from robustcli.provenance import provenance
from robustcli.report.table import to_text
from robustcli.studies.batchout.experiments import Network, Part
from robustcli.studies.batchout.five_gaussians import measure_five_gaussians
from robustcli.studies.batchout.measurements import measure_network
from robustcli.studies.batchout.networks import checkpoint_path, find_checkpoint
from robustcli.studies.batchout.paper_figures import save_figure
from robustcli.studies.batchout.paper_tables import make_table
from robustcli.studies.batchout.part_results import PartResults, read
from robustcli.studies.batchout.study import Study, move_aside


def reproduce_part(part: Part, study: Study) -> PartResults:
    """Train what is missing, measure what was not measured, and write the part's files.

    A network that fails is named under `missing` with the reason, and the others go on. Interrupted, or where some
    failed, it writes what it has, unless the part's file holds more networks already.

    Raises:
        KeyboardInterrupt: after writing.
        RobustCliError: data are missing, or the file there holds more networks than this run asks for.
    """
    path = study.folder / f"{part.name}.json"
    check_replaceable(part, study)
    networks: list[dict[str, Any]] = []
    rows: list[dict[str, Any]] = []
    failed: dict[str, str] = {}
    stopped: KeyboardInterrupt | None = None
    for network in part.networks:
        try:
            found = measure_network(study, network, part.attacks, part.networks)
        except (TrainingError, AttackError, CheckpointError) as error:  # such as one that another process trains
            failed[network.name] = str(error)
            study.say(f"{network.name}: {error}")
            continue
        except KeyboardInterrupt as reason:
            stopped = reason
            break
        networks.append(describe_network(network, checkpoint_path(study, network)))
        rows += found
    done = {network["name"] for network in networks}
    results = PartResults(
        part=part.name,
        title=part.title,
        source=part.source,
        note=part.note,
        quick=study.scale.quick,
        networks=networks,
        rows=rows,
        missing=[
            _missing(network, study, failed.get(network.name)) for network in part.networks if network.name not in done
        ],
        toy=measure_five_gaussians() if part.name == "fig1" else {},
        provenance=provenance(seed=0, device=pick_device(study.device), data_fingerprint=None),
    )
    if (stopped and not networks) or (results.missing and _networks_in(path) > len(networks)):
        study.say(f"{path}: left as it was; this run finished {len(networks)} of {len(part.networks)} networks")
    else:
        _keep_other(results, path, study)
        write_part(results, study.folder)
    if stopped is not None:
        raise stopped
    return results


def check_replaceable(part: Part, study: Study) -> None:
    """Refuse to put a quick look, or fewer networks, in the place of a whole study; set a damaged file aside.

    Raises:
        ConfigError: says what is there.
    """
    path = study.folder / f"{part.name}.json"
    if not path.exists():
        return
    try:
        there = read(path)
    except ConfigError as error:
        study.say(f"{error}; it is made again, and kept as {move_aside(path).name}")
        return
    if study.scale.quick and not there.quick:
        raise ConfigError(f"--out {path.parent}: holds the whole study; give a quick look another folder")
    if not there.quick and len(there.networks) > len(part.networks):
        raise ConfigError(
            f"--out {path.parent}: {path.name} has {len(there.networks)} networks, this run asks for "
            f"{len(part.networks)}; give another folder"
        )


def _keep_other(results: PartResults, path: Path, study: Study) -> None:
    """Set a whole study's file aside where it tells of other weights than the one that takes its place."""
    there = {} if not path.exists() else {one["name"]: one["sha256"] for one in read(path).networks}
    if any(there.get(network["name"], network["sha256"]) != network["sha256"] for network in results.networks):
        study.say(f"{path}: tells of other weights; it is kept as {move_aside(path).name}")


def _networks_in(path: Path) -> int:
    """How many networks a part's file of an earlier run holds."""
    try:
        return len(read(path).networks)
    except ConfigError:
        return 0


def write_part(results: PartResults, folder: Path) -> None:
    """The part's JSON, Markdown table and picture."""
    results.write(folder)
    write_whole(folder / f"{results.part}.md", (to_text(make_table(results), "markdown") + "\n").encode(), "--out")
    save_figure(results, folder)


def describe_network(network: Network, path: Path) -> dict[str, Any]:
    """What a part's JSON says of a trained network."""
    saved = checkpoint.peek(path)
    kept = {key: saved.provenance.get(key) for key in ("commit", "device", "hardware", "threads", "versions")}
    kept["resumed"] = [again["commit"] for again in saved.provenance.get("resumed", ())]
    seconds = sorted(entry["seconds"] for entry in saved.history)
    return {
        "name": network.name,
        "label": network.label,
        "method": saved.spec["method"],
        "seed": saved.spec["seed"],
        "dataset": saved.data["name"],
        "network": saved.model["name"],
        "epochs": saved.spec["epochs"],
        "n_train": saved.data["n_train"],
        "spec": saved.spec,
        **kept,
        "sha256": checkpoint.sha256(path),
        "train_fingerprint": saved.data["fingerprint"],
        "from": str(path) if str(path).startswith(zoo.PREFIX) else "trained here",
        "losses": [round(entry["loss"], 6) for entry in saved.history],
        "val_accuracies": [round(entry["val_accuracy"], 6) for entry in saved.history if "val_accuracy" in entry],
        "seconds_an_epoch": round(seconds[len(seconds) // 2], 2),
    }


def _missing(network: Network, study: Study, reason: str | None) -> dict[str, Any]:
    found = find_checkpoint(study, network)
    done = 0 if found is None else len(found.history)
    entry = {"name": network.name, "label": network.label, "epochs_done": done, "epochs": network.spec.epochs}
    return entry | ({} if reason is None else {"reason": reason})


def available_parts(wanted: Sequence[Part], study: Study) -> tuple[list[Part], DataError | None]:
    """The parts whose data set is there or can be downloaded, and why the others are not; nothing is trained yet.

    A quick look downloads nothing.
    """
    problems: dict[str, DataError] = {}
    for part in wanted:
        dataset = next((network.spec.dataset for network in part.networks), None)
        if dataset is None or dataset in problems:
            continue
        try:
            if study.scale.quick and not is_here(dataset, study.data_dir):
                raise DataError(f"--dataset {dataset}: not in {data_folder(study.data_dir)}; --quick downloads nothing")
            for split in ("train", "test"):
                load(DataSpec(dataset=dataset, data_dir=study.data_dir, split=split, limit=1, allow_sample=False))
        except DataError as error:
            problems[dataset] = error
    there = [part for part in wanted if not {network.spec.dataset for network in part.networks} & problems.keys()]
    return there, next(iter(problems.values()), None)
