"""Verdicts on the ablations: each rule at its edges, on results made by hand."""

from __future__ import annotations

import pytest

from robustcli.studies.batchout import ablation_claims as ablations
from robustcli.studies.batchout.evidence import NotMeasuredError
from robustcli.studies.batchout.part_results import PartResults

from .conftest import ETA_LABELS, K_LABELS, SLOT_LABELS, STOP_LABELS, evidence, made, network, seeded

HOLDS, PART, NOT, OPEN = "holds", "holds in part", "does not hold", "cannot be told"
STEADY = seeded(50, 50, 50)
"""Seeds that agree: intervals alone decide what is beyond them."""


def curves(vanilla: list[float], batchout: list[float]) -> PartResults:
    networks = [network("vanilla", val_accuracies=vanilla), network("BatchOut", val_accuracies=batchout)]
    return made("fig4a", {}, networks=networks)


def reaching(epoch: int, last: float = 0.8) -> list[float]:
    """Ten epochs, within a point of 0.8 from `epoch` on."""
    return [0.5] * (epoch - 1) + [0.795] * (10 - epoch) + [last]


@pytest.mark.parametrize(("batchout", "expected"), [(3, HOLDS), (5, HOLDS), (6, HOLDS), (7, PART), (8, NOT)])
def test_convergence_is_the_epochs_to_the_lower_last_accuracy(batchout: int, expected: str) -> None:
    """Vanilla takes 5: 1.2 x 5 = 6 and 1.5 x 5 = 7.5."""
    found = ablations.converges_alike(evidence(curves(reaching(5), reaching(batchout))))
    assert found.verdict == expected
    assert f"to 79.0 % on held-out images: vanilla 5, BatchOut {batchout};" in found.numbers


def test_convergence_is_to_what_both_reach() -> None:
    found = ablations.converges_alike(evidence(curves([0.5, 0.8, 0.9, 0.99], [0.5, 0.8, 0.8, 0.8])))
    assert found.verdict == HOLDS
    assert "to 79.0 % on held-out images: vanilla 2, BatchOut 2;" in found.numbers


@pytest.mark.parametrize(
    "results",
    [
        made("fig4a", {"vanilla": {}}),
        made("fig4a", {"BatchOut": {}}),
        curves([0.9, 0.98], []),
    ],
)
def test_convergence_is_not_judged_without_both_curves(results: PartResults) -> None:
    with pytest.raises(NotMeasuredError):
        ablations.converges_alike(evidence(results))


def slots(**changes: float) -> PartResults:
    """Figure 4b with more accuracy the more slots are filled, but for `changes` (`c1_c2=20`)."""
    fgsm = dict(zip(SLOT_LABELS, (15.0, 20.0, 20.0, 20.0, 30.0, 30.0, 30.0, 40.0), strict=True))
    fgsm |= {name.replace("_", "+"): percent for name, percent in changes.items()}
    return made("fig4b", {label: {"FGSM 0.3": percent, "PGD-40 0.1": 60.0} for label, percent in fgsm.items()})


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, HOLDS),
        ({"c1_c2": 20}, HOLDS),  # a pair need not beat its members, only reach them
        ({"c1_c2": 19.9}, PART),
        ({"c1_c2": 40}, HOLDS),  # nor all the pairs
        ({"c1_f1": 40.1}, PART),  # best is a pair
        ({"all": 25.1, "c1_c2": 25, "c1_f1": 25, "c2_f1": 25}, PART),  # [22.51, 27.88] and [17.64, 22.59] touch
        ({"c1_f1": 40.1, "c1_c2": 19.9}, PART),  # still, all are better than none
        ({"c1_f1": 60}, NOT),  # a pair is better beyond seeds
        ({"all": 16, "c1_c2": 15, "c1_f1": 15, "c2_f1": 15, "c1": 15, "c2": 15, "f1": 15}, OPEN),
    ],
)
def test_more_slots_are_better(changes: dict[str, float], expected: str) -> None:
    found = ablations.more_slots(evidence(slots(**changes), STEADY))
    assert found.verdict == expected
    assert found.breaks.startswith("PGD-40 0.1: none 60.0 [")


@pytest.mark.parametrize(
    ("seeds", "expected"), [((50, 50, 50), HOLDS), ((46, 50, 54), PART), ((42, 50, 58), OPEN), ((50, 50), OPEN)]
)
def test_all_slots_beat_single_ones_beyond_seeds(seeds: tuple[float, ...], expected: str) -> None:
    """By 20 points, and none by 25, against 4.303 sqrt(2) x 4 = 24.3, x 8 = 48.7 and too few seeds to know."""
    assert ablations.more_slots(evidence(slots(), seeded(*seeds))).verdict == expected


@pytest.mark.parametrize(
    ("f1", "both", "expected"), [(35.9, 30, HOLDS), (35.8, 30, OPEN), (30, 30, OPEN), (30, 35.8, OPEN), (30, 35.9, NOT)]
)
def test_the_hidden_layer_alone_beats_both_convolutions(f1: float, both: float, expected: str) -> None:
    """[33.0, 38.9] and [27.2, 32.9] are apart by 0.08 points."""
    assert ablations.hidden_layer_alone(evidence(slots(f1=f1, c1_c2=both), STEADY)).verdict == expected


def test_the_hidden_layer_alone_cannot_be_judged_with_too_few_seeds() -> None:
    for others in ([], [seeded(50, 50)], [seeded(30, 50, 70)]):
        assert ablations.hidden_layer_alone(evidence(slots(f1=50), *others)).verdict == OPEN


def shares(clean: tuple[float, ...], fgsm: tuple[float, ...]) -> PartResults:
    """Figure 5a: clean accuracy and FGSM 0.4 for k = 0, 0.25, 0.5, 0.75, 1."""
    cells = {
        label: {"clean": a, "FGSM 0.4": b, "PGD-40 0.1": 60.0}
        for label, a, b in zip(K_LABELS, clean, fgsm, strict=True)
    }
    return made("fig5a", cells)


FALLING, RISING = (99.5, 99, 99, 99, 98), (10, 15, 20, 25, 30)


@pytest.mark.parametrize(
    ("clean", "fgsm", "expected"),
    [
        (FALLING, RISING, HOLDS),
        ((99.5, 99, 99, 99, 99.4), RISING, PART),  # within the intervals, clean accuracy stays
        (FALLING, (10, 10, 10, 10, 14), PART),  # [8.3, 12.0] and [12.0, 16.3] touch
        (FALLING, (10, 10, 10, 10, 14.1), HOLDS),
        (FALLING, (10, 35.8, 30, 30, 30), HOLDS),  # a fall within the intervals is none
        (FALLING, (10, 35.9, 30, 30, 30), PART),
        ((99.5, 99, 99, 99, 99.6), (10, 10, 10, 10, 14), OPEN),
        ((99.5, 99, 99, 99, 99.6), (10, 90, 30, 30, 30), OPEN),
        ((98, 99, 99, 99, 99.5), RISING, NOT),  # clean accuracy rises
        (FALLING, (30, 25, 20, 15, 10), NOT),  # attacked accuracy falls
        ((99.5, 50, 50, 50, 98), RISING, HOLDS),  # of clean accuracy only the ends count
    ],
)
def test_a_larger_share_costs_clean_accuracy_and_gains_under_fgsm(
    clean: tuple[float, ...], fgsm: tuple[float, ...], expected: str
) -> None:
    assert ablations.larger_k(evidence(shares(clean, fgsm), STEADY)).verdict == expected


def test_a_rise_within_what_seeds_move_is_none() -> None:
    """20 points, against 4.303 sqrt(2) x 8 = 48.7; clean accuracy falls all the same."""
    for others in ([], [seeded(50, 50)], [seeded(42, 50, 58)]):
        assert ablations.larger_k(evidence(shares(FALLING, RISING), *others)).verdict == PART


@pytest.mark.parametrize(
    ("clean", "fgsm", "expected"),
    [
        ((97, 97, 99, 97, 97), RISING, HOLDS),
        ((99, 99, 99.1, 99, 99), RISING, OPEN),
        ((99, 97, 97, 97, 97), RISING, NOT),
    ],
)
def test_a_share_of_half_has_the_highest_clean_accuracy(
    clean: tuple[float, ...], fgsm: tuple[float, ...], expected: str
) -> None:
    assert ablations.peaks_at_half(evidence(shares(clean, fgsm))).verdict == expected


def noise(batchout: float, gaussian: float) -> PartResults:
    """Figure 5b: these at the paper's eta; at the larger ones noise is the better."""
    fgsm = dict.fromkeys(ETA_LABELS, 30.0) | {"Gaussian, eta x 10": 90.0}
    fgsm |= {"BatchOut, eta x 1": batchout, "Gaussian, eta x 1": gaussian}
    return made("fig5b", {label: {"FGSM 0.3": percent, "PGD-40 0.1": 60.0} for label, percent in fgsm.items()})


@pytest.mark.parametrize(
    ("batchout", "gaussian", "expected"),
    [(35.9, 30, HOLDS), (35.8, 30, OPEN), (30, 30, OPEN), (30, 35.8, OPEN), (30, 35.9, NOT)],
)
def test_noise_of_the_papers_eta_is_beaten(batchout: float, gaussian: float, expected: str) -> None:
    found = ablations.beats_noise(evidence(noise(batchout, gaussian), STEADY))
    assert found.verdict == expected
    assert found.numbers.startswith(f"FGSM 0.3: eta x 1: {batchout:.1f} [")
    assert "eta x 10: 30.0 [" in found.numbers
    assert found.breaks == "PGD-40 0.1: x 1: 60.0 and 60.0; x 2: 60.0 and 60.0; x 5: 60.0 and 60.0; x 10: 60.0 and 60.0"


def test_whether_noise_is_beaten_cannot_be_told_with_too_few_seeds() -> None:
    for others in ([], [seeded(50, 50)], [seeded(30, 50, 70)]):
        assert ablations.beats_noise(evidence(noise(80, 30), *others)).verdict == OPEN


@pytest.mark.parametrize(
    ("stop", "free", "expected"),
    [
        ((40, 45, 50), (30, 35, 39), HOLDS),
        ((40, 45, 50), (30, 35, 40), OPEN),
        ((40, 45, 50), (30, 50, 55), OPEN),
        ((40, 45, 50), (51, 55, 60), NOT),
        ((40, 45), (30, 39), OPEN),  # two seeds are too few
        ((40,), (90,), OPEN),
    ],
)
def test_the_stop_gradient_is_needed_where_each_of_three_seeds_says_so(
    stop: tuple[float, ...], free: tuple[float, ...], expected: str
) -> None:
    cells = {
        label: [{"FGSM 0.3": float(percent), "PGD-40 0.1": 60.0} for percent in percents]
        for label, percents in zip(STOP_LABELS, (stop, free), strict=True)
    }
    found = ablations.needs_stop(evidence(made("stopgrad", cells)))
    assert found.verdict == expected
    assert found.numbers.startswith(f"FGSM 0.3, seeds {len(stop)}: with")


def test_the_stop_gradient_is_not_judged_on_unequal_seeds() -> None:
    one = {"FGSM 0.3": 40.0, "PGD-40 0.1": 60.0}
    results = made("stopgrad", {STOP_LABELS[0]: [one, one], STOP_LABELS[1]: [one]})
    with pytest.raises(NotMeasuredError):
        ablations.needs_stop(evidence(results))
