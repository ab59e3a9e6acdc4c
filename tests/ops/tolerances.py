"""Tolerances of the operators by precision of their inputs; the sums are float32 throughout."""

import torch

# half results differ from the float64 oracle by the rounding of the result alone
TOLERANCES = {
    torch.float64: {"rtol": 1e-10, "atol": 1e-10},
    torch.float32: {"rtol": 2e-5, "atol": 5e-5},
    torch.float16: {"rtol": 6e-4, "atol": 1e-3},
    torch.bfloat16: {"rtol": 4.5e-3, "atol": 8e-3},
}
# sums over many positions; in half their terms are rounded on the way into the sum's input
GRADIENT_TOLERANCES = {
    torch.float64: {"rtol": 1e-9, "atol": 1e-9},
    torch.float32: {"rtol": 1e-4, "atol": 2e-4},
}
