"""The contracts of this package as checks for your own code: each raises AssertionError with one clear sentence."""

from robustcli.testing.attacks import check_attack
from robustcli.testing.models import check_model, check_objective
from robustcli.testing.tiny import boundary_distance, largest_eps, linear_model, linear_samples, tiny_net, tiny_samples

__all__ = [
    "boundary_distance",
    "check_attack",
    "check_model",
    "check_objective",
    "largest_eps",
    "linear_model",
    "linear_samples",
    "tiny_net",
    "tiny_samples",
]
