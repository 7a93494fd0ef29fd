"""Multi-objective Bayesian optimisation on a lattice: tensors in, tensors out.

Knows nothing of PEFT or Optuna. Two objectives throughout: a *score*, noisy and to be maximised,
and a *cost*, known exactly and to be minimised. Whoever calls turns its objectives that way round
(`sampler` does). Importing this package itself imports nothing heavy.
"""
