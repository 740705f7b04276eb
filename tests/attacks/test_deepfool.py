import pytest
import torch
from torch import nn

from robustcli.attacks import DeepFool, deepfool
from robustcli.engine.run import Samples, run_attack
from robustcli.noise import Noise
from robustcli.testing import tiny_net, tiny_samples

boxes = pytest.mark.parametrize("box", ["project", "clip", "none"])
norms = pytest.mark.parametrize("norm", ["linf", "l2"])


@boxes
@norms
def test_the_count_of_robust_samples_never_rises_and_ends_at_the_flags(box, norm):
    net = tiny_net()
    outcome = run_attack(net, DeepFool(iters=8, box=box, norm=norm), tiny_samples(net), batch_size=4)[0]
    assert len(outcome.by_iter) == 8
    assert list(outcome.by_iter) == sorted(outcome.by_iter, reverse=True)
    assert outcome.by_iter[-1] == int(outcome.robust.sum())


@boxes
def test_fewer_iterations_are_the_beginning_of_more(net, samples, box):
    long = run_attack(net, DeepFool(iters=6, box=box), samples)[0]
    short = run_attack(net, DeepFool(iters=2, box=box), samples)[0]
    assert long.by_iter[:2] == short.by_iter


@boxes
@norms
def test_a_tie_of_two_logits_is_left_not_sat_on(box, norm):
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 2, bias=False)).double()
    x = torch.full((1, 1, 8, 8), 0.5, dtype=torch.float64)
    x[0, 0, 0] = 0.0
    with torch.no_grad():
        model[1].weight.fill_(1)
        model[1].weight[1, 0] = 5  # The other class gains by a pixel that is black.
    samples = Samples(x, torch.zeros(1).long(), torch.zeros(1).long())
    assert not run_attack(model, DeepFool(box=box, norm=norm), samples)[0].robust


@boxes
def test_images_that_are_all_broken_already_come_back_unchanged(net, samples, box):
    wrong = samples[(net(samples.x).argmax(1) != samples.y).nonzero()[:, 0]]
    assert len(wrong)
    for attack in (DeepFool(box=box), DeepFool(box=box, iters=1)):
        x_adv = attack.perturb(net, wrong.x, wrong.y, Noise(0, wrong.ids))
        assert torch.equal(x_adv, wrong.x)
        assert x_adv.data_ptr() != wrong.x.data_ptr()
        assert list(attack.trace(net, wrong.x, wrong.y, Noise(0, wrong.ids))) == []


@boxes
@norms
def test_iterations_that_are_not_needed_cost_nothing(net, samples, box, norm):
    enough, many = (run_attack(net, DeepFool(iters=n, box=box, norm=norm), samples)[0] for n in (30, 90))
    assert enough.by_iter[-1] == 0, "all are broken"
    assert (many.forwards, many.backwards) == (enough.forwards, enough.backwards)
    assert many.by_iter == enough.by_iter + (0,) * 60
    assert torch.equal(many.distance, enough.distance)


def test_an_early_end_in_one_chunk_leaves_the_counts_of_the_others(net, samples):
    whole, parts = (run_attack(net, DeepFool(iters=4), samples, batch_size=size)[0] for size in (100, 1))
    assert len(parts.by_iter) == 4
    assert parts.by_iter == whole.by_iter


def linear(weight, bias):
    """A model with these weights (classes, 4) of the four pixels of an image, and a grey image of class 0."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, len(bias))).double()
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor(weight))
        model[1].bias.copy_(torch.tensor(bias))
    return model, Samples(torch.full((1, 1, 2, 2), 0.5, dtype=torch.float64), torch.zeros(1).long(), torch.zeros(1))


def test_at_most_the_nine_nearest_classes_are_tried(monkeypatch):
    monkeypatch.setattr(deepfool, "SLACK", torch.inf)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 30)).double()
    outcome = run_attack(model, DeepFool(iters=1), tiny_samples(model, n=5))[0]
    assert outcome.backwards == 9 * int(outcome.clean.sum())


@boxes
@norms
def test_the_classes_that_are_not_tried_change_no_step(trained, box, norm, monkeypatch):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 10)).double()
    samples = trained[1]
    right = Samples(samples.x, net(samples.x).argmax(1), samples.ids)
    few = run_attack(net, DeepFool(iters=4, box=box, norm=norm), right)[0]
    monkeypatch.setattr(deepfool, "SLACK", torch.inf)
    all_of_them = run_attack(net, DeepFool(iters=4, box=box, norm=norm), right)[0]
    assert few.backwards < 0.7 * all_of_them.backwards
    assert few.by_iter == all_of_them.by_iter
    assert torch.allclose(few.distance, all_of_them.distance, atol=1e-9)


@boxes
def test_a_farther_logit_with_the_nearer_boundary_is_found(box):
    # Gaps 0.3 and 0.45 along gradients 1 and 1.9 long: the second is nearer.
    model, samples = linear([[0.0] * 4, [1.0, 0, 0, 0], [0, 1.9, 0, 0]], [2.0, 1.2, 0.6])
    outcome = run_attack(model, DeepFool(iters=1, box=box, overshoot=0.1), samples, keep_images=True)[0]
    moved = (outcome.x_adv != samples.x).flatten()
    assert moved.tolist() == [False, True, False, False]


@boxes
def test_where_the_first_class_has_no_boundary_the_next_is_tried(box):
    model, samples = linear([[0.0] * 4, [0.0] * 4, [0, 0.1, 0, 0], [9.0, 0, 0, 0]], [1.0, 0.9, 0.0, -4.5])
    outcome = run_attack(model, DeepFool(iters=1, box=box), samples, keep_images=True)[0]
    assert outcome.pred_after.tolist() == [3], "class 1 never changes, class 2 is out of reach"


@boxes
def test_logits_may_be_wider_than_the_images(net, samples, box):
    narrow = Samples(samples.x.float(), samples.y, samples.ids)
    outcome = run_attack(Widened(net), DeepFool(iters=30, box=box), narrow)[0]
    assert outcome.by_iter[-1] == 0


class Widened(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net(x.double())


def test_only_without_a_box_may_pixels_leave_it():
    assert [DeepFool(box=box).bounded for box in ("project", "clip", "none")] == [True, True, False]
