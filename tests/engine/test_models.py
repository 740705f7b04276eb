"""Models that are no such classifiers, and samples that are no such images: the right number, or one line with why."""

import warnings
from collections import OrderedDict, namedtuple
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from robustcli.attacks import ATTACKS, FGSM, PGD, DeepFool, Square, parse_attack
from robustcli.engine.guard import Meter
from robustcli.engine.run import Samples, predict, run_attack
from robustcli.errors import AttackError, ModelError, OutOfMemoryError
from robustcli.measure.evaluate import predict_clean
from robustcli.testing import tiny_net
from robustcli.testing.effort import small_attack
from robustcli.verdict.model import inspect_model

Output = namedtuple("Output", ["logits", "aux_logits"])
ALL = [small_attack(name, "l2" if name == "cw" else "linf") for name in ATTACKS]
every_attack = pytest.mark.parametrize("attack", ALL, ids=lambda attack: attack.name)


class Returns(nn.Module):
    """A network whose images, and whose logits, something is done to."""

    def __init__(self, net, after=lambda logits: logits, before=lambda x: x):
        super().__init__()
        self.net, self.after, self.before = net, after, before

    def forward(self, x):
        return self.after(self.net(self.before(x)))


def single(samples):
    return replace(samples, x=samples.x.float())


def refused(model, samples, match, attack=None):
    with pytest.raises(AttackError, match=match) as caught:
        run_attack(model, attack or PGD(0.1, steps=2), samples)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 3


# --- What a model returns

FORMS = {
    "tuple": lambda z: (z, z.flip(1)),
    "a loss before": lambda z: (z.sum(), z),
    "a value before": lambda z: (z[:, :1], z),
    "classes before": lambda z: (z.argmax(1), z),
    "maps before": lambda z: (z[:, :, None, None], z),
    "list": lambda z: [z],
    "dict": lambda z: {"loss": z.sum(), "logits": z},
    "mapping": lambda z: OrderedDict(logits=z),
    "namedtuple": lambda z: Output(z, z.flip(1)),
    "object": lambda z: SimpleNamespace(logits=z),
    "features before": lambda z: (torch.cat([z, z, z], 1).square(), z),
    "features after": lambda z: (z, torch.cat([z, z, z], 1).square()),
}


def test_features_and_logits_that_cannot_be_told_apart_are_refused(net, samples):
    both = Returns(net, lambda z: (torch.cat([z, z, z], 1), torch.cat([z, z], 1)))
    refused(both, samples, "tensors of 9 and 6 columns, and the labels go up to 2: which of them are the logits")


@pytest.mark.parametrize(
    ("attack", "form"),
    [*((attack, "tuple") for attack in ALL), *((PGD(0.1, steps=2), form) for form in FORMS)],
    ids=lambda part: getattr(part, "name", part),
)
def test_logits_are_found_in_what_a_model_returns(net, samples, attack, form):
    expected = run_attack(net, attack, samples)[-1]
    outcome = run_attack(Returns(net, FORMS[form]), attack, samples)[-1]
    assert torch.equal(outcome.distance, expected.distance)
    assert (outcome.forwards, outcome.backwards) == (expected.forwards, expected.backwards)


def test_so_they_are_in_the_clean_pass_and_the_preflight(net, samples):
    model = Returns(net, FORMS["dict"])
    assert torch.equal(predict(model, samples.x, 4), predict(net, samples.x, 4))
    assert torch.equal(predict_clean(model, samples, 128, None)[0], predict(net, samples.x, 4))
    assert torch.equal(inspect_model(model, samples, []).logits, inspect_model(net, samples, []).logits)


@every_attack
@pytest.mark.parametrize("shape", ["(n, 1)", "(n,)"])
def test_one_output_neuron_is_refused(net, samples, attack, shape):
    after = (lambda z: z[:, :1]) if shape == "(n, 1)" else (lambda z: z[:, 0])
    refused(Returns(net, after), samples, r"\(n, classes\), n=\d+: one output neuron .* two outputs", attack)


@pytest.mark.parametrize(
    ("after", "match"),
    [
        (lambda z: None, "the model returned NoneType; it should be logits"),
        (lambda z: {"out": z, "aux": z}, r"returned a dict without 'logits' \(its keys: 'out', 'aux'\)"),
        (lambda z: (z.argmax(1), "a"), r"returned a tuple of a tensor of shape \(\d+,\), str"),
        (lambda z: [], "returned a list of nothing"),
        (lambda z: z.detach().numpy(), "returned ndarray"),
        (lambda z: SimpleNamespace(logits=lambda: z), "returned SimpleNamespace"),
        (lambda z: z[:, :, None, None].expand(-1, -1, 4, 4), r"\(\d+, 3, 4, 4\); .* not one a pixel"),
        (lambda z: z.repeat(2, 1), r"returned shape \(22, 3\); it should be \(n, classes\), n=11"),
        (lambda z: z[:, :0], r"returned shape \(11, 0\)"),
        (lambda z: z.sum(), r"returned shape \(\); it should be"),
        (lambda z: (z * 100).long(), "returned torch.int64; it should be logits in floats"),
        (lambda z: z > 0, "returned torch.bool"),
        (lambda z: z.to(torch.complex64), "returned torch.complex64"),
        (lambda z: z.to("meta"), "returned logits on meta for images on cpu"),
        (lambda z: z.detach().to_sparse(), "returned logits as torch.sparse_coo"),
    ],
)
def test_what_holds_no_logits_is_refused(net, samples, after, match):
    refused(Returns(net, after), samples, match)


@every_attack
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_logits_of_any_precision_are_taken(net, samples, attack, dtype):
    outcome = run_attack(Returns(net.float(), lambda z: z.to(dtype)), attack, single(samples))[-1]
    expected = run_attack(net, attack, single(samples))[-1]
    assert int((outcome.robust != expected.robust).sum()) <= (0 if dtype == torch.float64 else 3)


def test_logits_that_are_made_without_gradients_can_be_searched(net, samples):
    class Inference(nn.Module):
        @torch.inference_mode()
        def forward(self, x):
            return net(x)

    refused(Inference(), samples, r"no gradient to its images \(its forward pass runs under .*inference_mode")
    expected = run_attack(net, Square(0.1, queries=20), samples)[0]
    assert torch.equal(run_attack(Inference(), Square(0.1, queries=20), samples)[0].robust, expected.robust)


def test_a_caller_under_inference_mode_is_refused(net, samples):
    with torch.inference_mode():
        refused(net, samples, "torch.inference_mode is on")
        x = samples.x.clone()
    expected = run_attack(net, PGD(0.1, steps=2), samples)[0]
    assert torch.equal(run_attack(net, PGD(0.1, steps=2), replace(samples, x=x))[0].robust, expected.robust)


# --- What a model does


def in_place(x):
    return x.mul_(0.9).add_(0.05).clamp_(0, 1)


def behind_autograd(x):
    x.data.mul_(0.9).add_(0.05).clamp_(0, 1)
    return x


@every_attack
def test_a_model_may_change_its_images_in_place(net, samples, attack):
    before = samples.x.clone()
    clean = Returns(net, before=lambda x: in_place(x.clone()))
    expected = run_attack(clean, attack, samples)[-1]
    assert torch.equal(run_attack(Returns(net, before=in_place), attack, samples)[-1].distance, expected.distance)
    assert torch.equal(samples.x, before)


def test_so_it_may_behind_the_back_of_autograd_and_in_its_first_layer(net, samples):
    before = samples.x.clone()
    expected = run_attack(Returns(net, before=lambda x: in_place(x.clone())), FGSM(0.05), samples)[0]
    assert torch.equal(run_attack(Returns(net, before=behind_autograd), FGSM(0.05), samples)[0].robust, expected.robust)
    relu, plain = (nn.Sequential(nn.ReLU(inplace=inplace), net) for inplace in (True, False))
    outcomes = [run_attack(model.eval(), PGD(0.05), samples)[0].distance for model in (relu, plain)]
    assert torch.equal(*outcomes)
    assert torch.equal(samples.x, before)


def test_a_model_may_return_a_view_of_its_images(samples):
    view = nn.Flatten().eval()
    labels = view(samples.x).argmax(1)
    outcome = run_attack(view, PGD(0.3), Samples(samples.x, labels, samples.ids))[0]
    assert outcome.clean.all()
    assert not outcome.robust.all()


def test_buffers_that_a_forward_pass_replaces_are_handed_back(net, samples):
    class Counts(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net
            calls = torch.zeros(())
            for name, buffer in {"calls": calls, "same": calls, "last": torch.zeros(1), "cache": None}.items():
                self.register_buffer(name, buffer)

        def forward(self, x):
            self.calls = self.calls + 1
            self.same += 1
            self.last.resize_(len(x)).fill_(1)
            self.cache = x.detach().mean()
            self.register_buffer("more", x.detach())
            return self.net(x)

    model = Counts().eval()
    calls, last = model.calls, model.last
    run_attack(model, FGSM(0.1), samples)
    assert dict(model.named_buffers(recurse=False, remove_duplicate=False)).keys() == {"calls", "same", "last"}
    assert model.calls is model.same is calls
    assert model.last is last
    assert (float(calls), last.tolist(), model.cache) == (0, [0], None)


@pytest.mark.parametrize("compiled", ["script", "trace", "freeze"])
def test_compiled_models_give_the_same_and_are_handed_back(net, samples, compiled):
    with warnings.catch_warnings(action="ignore"):
        model = {
            "script": torch.jit.script,
            "freeze": lambda net: torch.jit.freeze(torch.jit.script(net)),
            "trace": lambda net: torch.jit.trace(net, samples.x),
        }[compiled](net)
        expected = run_attack(tiny_net(), PGD(0.05), samples)[0]
        assert torch.equal(run_attack(model, PGD(0.05), samples)[0].robust, expected.robust)
    assert not getattr(model, "training", False)


def test_a_model_that_fails_is_one_line_with_its_own_message(net, samples):
    refused(
        net, replace(samples, x=samples.x[:, :, :4]), r"the model failed on images of shape \(11, 1, 4, 8\): Runtime"
    )
    refused(Returns(net, lambda z: z[:, 5]), samples, "IndexError: index 5 is out of bounds")
    refused(net.float(), samples, r"its weights are torch.float32 on cpu, the images torch.float64 on cpu")
    refused(net.to("meta"), samples, "meta")


@pytest.mark.parametrize("error", [KeyboardInterrupt(), AttackError("its own"), SystemExit(2)])
def test_what_says_enough_by_itself_is_passed_on(net, samples, error):
    def fail(logits):
        raise error

    with pytest.raises(type(error)) as caught:
        run_attack(Returns(net, fail), FGSM(0.1), samples)
    assert caught.value is error


def test_a_failure_is_a_runtime_error_too(net, samples):
    with pytest.raises(RuntimeError) as caught:
        Meter(Returns(net, lambda z: z[:, 5]))(samples.x)
    assert isinstance(caught.value, ModelError)
    assert isinstance(caught.value.__cause__, IndexError)


def test_a_function_and_a_lazy_module_are_refused(net, samples):
    refused(lambda x: net(x), samples, r"the model is a function; should be a torch.nn.Module")
    with warnings.catch_warnings(action="ignore"):
        lazy = nn.Sequential(nn.Flatten(), nn.LazyLinear(3)).eval()
    refused(lazy, samples, r"the model's '1.weight' has no values yet; call it once")


@pytest.mark.parametrize("where", ["forward", "backward"])
@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory"),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB"),
        MemoryError(),
    ],
)
def test_out_of_memory_is_no_fault_of_the_model(net, samples, where, error):
    def fail(*_):
        raise error

    class Fails(torch.autograd.Function):
        @staticmethod
        def forward(ctx, z):
            return z.clone()

        backward = staticmethod(fail)

    model = Returns(net, fail if where == "forward" else Fails.apply)
    with pytest.raises(OutOfMemoryError, match=r"^out of memory: a smaller --batch-size"):
        run_attack(model, FGSM(0.1), samples[:1])


# --- What is attacked


@every_attack
@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda x: x * 255, r"pixels from 0 to 255; should be in \[0, 1\]: divide by 255"),
        (lambda x: x * 2 - 1, r"pixels from -1 to 1; should be in \[0, 1\]: undo the normalisation"),
        (lambda x: x * 1.5, r"pixels from 0 to 1.5; should be in \[0, 1\]"),
        (lambda x: x.where(x != x.max(), torch.nan), r"NaN or infinite pixels; should be in \[0, 1\]"),
        (lambda x: x.where(x != x.max(), torch.inf), r"NaN or infinite pixels; should be in \[0, 1\]"),
    ],
    ids=["bytes", "centred", "bright", "nan", "infinite"],
)
def test_pixels_outside_0_to_1_are_refused(net, samples, attack, change, match):
    refused(net, replace(samples, x=change(samples.x)), match, attack)


@pytest.mark.parametrize("attack", [FGSM(0.1), DeepFool(iters=3), parse_attack("fmn:iters=3")])
def test_an_excess_of_rounding_is_clamped(net, samples, attack):
    beyond = samples.x + 1e-6 * (samples.x == 1) - 1e-6 * (samples.x == 0)
    assert beyond.max() > 1 > 0 > beyond.min()
    expected = run_attack(net, attack, samples)[0]
    assert torch.equal(run_attack(net, attack, replace(samples, x=beyond))[0].distance, expected.distance)


N = 11


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        (
            {"x": lambda s: (s.x * 255).byte()},
            r"x is torch.uint8; should be floats in \[0, 1\], such as x.float",
        ),
        ({"x": lambda s: s.x.half()}, "x is torch.float16, which is too coarse"),
        ({"x": lambda s: s.x.flatten(1)}, r"x has the shape \(11, 64\); should be images \(n, c, h, w\)"),
        ({"x": lambda s: s.x[:, 0]}, r"x has the shape \(11, 8, 8\)"),
        ({"x": lambda s: s.x[:, :0]}, r"x has the shape \(11, 0, 8, 8\)"),
        ({"x": lambda s: s.x.to_sparse()}, "x is torch.sparse_coo; should be a dense tensor"),
        ({"x": lambda s: s.x.numpy()}, "x is a ndarray; should be a dense tensor"),
        ({"x": lambda s: s.x[:5]}, r"y has the shape \(11,\) for 5 images"),
        ({"y": lambda s: s.y[:5]}, r"y has the shape \(5,\) for 11 images; should be \(11,\)"),
        ({"y": lambda s: s.y[:, None]}, r"y has the shape \(11, 1\); should be \(11,\): y\[:, 0\]"),
        ({"y": lambda s: nn.functional.one_hot(s.y, 3)}, r"\(11, 3\); .* one-hot labels y.argmax\(1\)"),
        ({"y": lambda s: s.y.float()}, r"y is torch.float32; should be classes as integers: y.long\(\)"),
        ({"y": lambda s: s.y.tolist()}, "y is a list; should be a dense tensor"),
        ({"y": lambda s: s.y - 1}, "y has the class -1; should count from 0"),
        (
            {"y": lambda s: s.y + 1},
            "labels go up to 3, and the model's 3 outputs stand for 0 to 2: labels count from 0",
        ),
        ({"y": lambda s: s.y.to("meta")}, "y is on meta, x on cpu"),
        ({"ids": lambda s: s.ids[:5]}, r"ids are torch.int64 of shape \(5,\) for 11 images"),
        ({"ids": lambda s: s.ids + 0.5}, r"ids are torch.float32 .* such as torch.arange\(11\)"),
        ({"ids": lambda s: s.ids // 40}, "the id 0 occurs twice"),
    ],
)
def test_samples_that_are_none_are_refused_with_the_cure(net, samples, changes, match):
    refused(net, replace(samples, **{key: change(samples) for key, change in changes.items()}), match)


def test_labels_beyond_the_outputs_are_refused_where_predictions_are_known_and_in_the_clean_pass(net, samples):
    beyond = replace(samples, y=samples.y.where(torch.arange(N) > 0, 7))
    with pytest.raises(AttackError, match="the labels go up to 7"):
        run_attack(net, FGSM(0.1), beyond, pred=predict(net, samples.x, 4))
    with pytest.raises(AttackError, match="the labels go up to 7"):
        predict_clean(net, beyond, 128, None)
    with pytest.raises(AttackError, match=r"pred has the shape \(5,\); should be \(11,\)"):
        run_attack(net, FGSM(0.1), samples, pred=predict(net, samples.x, 4)[:5])


@pytest.mark.parametrize("dtype", [torch.int32, torch.int16, torch.uint8])
def test_classes_of_any_integers_are_taken(net, samples, dtype):
    expected = run_attack(net, PGD(0.1), samples)[0]
    assert torch.equal(run_attack(net, PGD(0.1), replace(samples, y=samples.y.to(dtype)))[0].robust, expected.robust)


# --- A randomised model


class Noisy(nn.Module):
    """Class 0 in the mean; in one pass of ten another."""

    def forward(self, x):
        logits = torch.zeros(len(x), 10) + 0 * x.sum((1, 2, 3))[:, None]
        return logits + torch.cat([1 + 0.8 * torch.randn(len(x), 1), torch.zeros(len(x), 9)], 1)


@pytest.mark.parametrize(
    ("spec", "eot"),
    [
        ("apgd:eps=0,steps=3,eot=20", 1),
        ("pgd:eps=0,steps=3,eot=20,restarts=2", 1),
        ("fgsm:eps=0,eot=20", 1),
        ("autoattack:eps=0,version=rand,rounds=2", 1),
        ("autoattack:eps=0,rounds=2,queries=2,eot=20", 1),
        ("square:eps=0,queries=2", 20),
        ("noise:eps=0", 20),
    ],
)
def test_at_eps_0_nothing_is_lost_where_predictions_are_averaged(spec, eot):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        samples = Samples(torch.full((60, 1, 4, 4), 0.5), torch.zeros(60).long(), torch.arange(60))
        outcome = run_attack(Noisy().eval(), parse_attack(spec), samples, eot=eot)[-1]
    assert outcome.clean.all()
    assert outcome.robust.all()
