"""Optimisers and schedules that a recipe may name."""

from collections.abc import Callable, Iterable

from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import ConstantLR, LRScheduler, OneCycleLR, PolynomialLR

MOMENTUM = 0.99
POLYNOMIAL_POWER = 0.9

Parameters = Iterable[nn.Parameter]

# From parameters, learning rate and weight decay.
OPTIMISERS: dict[str, Callable[[Parameters, float, float], Optimizer]] = {
    "adam": lambda parameters, rate, decay: Adam(parameters, lr=rate, weight_decay=decay),
    "adamw": lambda parameters, rate, decay: AdamW(parameters, lr=rate, weight_decay=decay),
    # As nnU-Net has it.
    "sgd": lambda parameters, rate, decay: SGD(
        parameters, lr=rate, weight_decay=decay, momentum=MOMENTUM, nesterov=True
    ),
}

# From optimiser, peak of the learning rate and number of steps; stepped after each training step.
SCHEDULES: dict[str, Callable[[Optimizer, float, int], LRScheduler]] = {
    "one_cycle": lambda optimiser, rate, steps: OneCycleLR(optimiser, max_lr=rate, total_steps=steps + 1),
    "constant": lambda optimiser, rate, steps: ConstantLR(optimiser, factor=1.0),
    # As nnU-Net has it, by steps in the place of epochs.
    "polynomial": lambda optimiser, rate, steps: PolynomialLR(optimiser, total_iters=steps, power=POLYNOMIAL_POWER),
}
