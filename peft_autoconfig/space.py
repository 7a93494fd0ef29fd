"""The search space: what may vary, and the only place that speaks both PEFT and numbers.

On the way it stands first: a `SearchSpace` turns Optuna's parameters or a search's vector into an
`AutoPEFTConfig` and back, and knows exactly how many numbers a configuration saves, without
building a model. A *configuration* is one size per module, shared by the layers of one mask; a
learning rate may vary beside it and costs no parameters. A *vector* holds, in the order of
`SearchSpace.dimensions`, each value's place among its choices, scaled to [0, 1].
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from operator import index
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .errors import ConfigError
from .tuner.config import AutoPEFTConfig

if TYPE_CHECKING:
    import optuna

__all__ = ["SearchSpace"]

Number = TypeVar("Number", int, float)

SIZE_NAMES = ("serial_bottleneck_size", "parallel_bottleneck_size", "prefix_length")
LEARNING_RATE = "learning_rate"
MAX_SIZE_COMBINATIONS = 1_000_000  # the table of size combinations is held in memory


@dataclass(frozen=True)
class SearchSpace:
    """The configurations that a search may propose, and their exact parameter counts.

    Every active layer gets the same three sizes; an inactive layer gets nothing. A configuration
    is valid when at least one layer and one module are on and it has at most `max_params`
    parameters.

    Attributes:
        num_layers: Transformer blocks of the base model, at least 1.
        hidden_size: Width of the base model's residual stream, at least 1.
        serial_bottleneck_sizes: Choices for the serial adapter, ascending; 0 means absent.
        parallel_bottleneck_sizes: Choices for the parallel adapter, ascending; 0 means absent.
        prefix_lengths: Choices for the prefix, in positions, ascending; 0 means absent.
        learning_rates: Choices for the learning rate, ascending; None if it does not vary.
        key_value_size: Width of one layer's keys, ``num_key_value_heads * head_dim``; None stands
            for `hidden_size`.
        max_params: Only configurations with at most so many parameters; None for no limit.

    Raises:
        ConfigError: If a choice is impossible, or no configuration is left.
    """

    num_layers: int
    hidden_size: int
    serial_bottleneck_sizes: tuple[int, ...]
    parallel_bottleneck_sizes: tuple[int, ...]
    prefix_lengths: tuple[int, ...]
    learning_rates: tuple[float, ...] | None = None
    key_value_size: int | None = None
    max_params: int | None = None

    def __post_init__(self) -> None:
        checked: dict[str, Any] = {
            "num_layers": _positive_int("num_layers", self.num_layers),
            "hidden_size": _positive_int("hidden_size", self.hidden_size),
            "serial_bottleneck_sizes": _sizes("serial_bottleneck_sizes", self),
            "parallel_bottleneck_sizes": _sizes("parallel_bottleneck_sizes", self),
            "prefix_lengths": _sizes("prefix_lengths", self),
            "learning_rates": _rates(self.learning_rates),
            "key_value_size": _positive_int(
                "key_value_size",
                self.hidden_size if self.key_value_size is None else self.key_value_size,
            ),
        }
        if self.max_params is not None:
            checked["max_params"] = _positive_int("max_params", self.max_params)
        for name, value in checked.items():
            object.__setattr__(self, name, value)
        self._check_not_empty()

    @classmethod
    def paper(cls, num_layers: int, hidden_size: int, **choices: Any) -> SearchSpace:
        """Returns AutoPEFT's space for any model: sizes 0, 1 and ``hidden_size // 2**k``, k = 0..8.

        For BERT-base that is 0, 1, 3, 6, ..., 384, 768 for each of the three modules (Zhou et al.,
        TACL 2024, section 3 and the released code).

        Args:
            num_layers: Transformer blocks of the base model.
            hidden_size: Width of the base model.
            **choices: Any other attribute of `SearchSpace`; what is given replaces the preset.
        """
        halves = {hidden_size // 2**k for k in range(9)} if _is_int(hidden_size) else set()
        sizes = tuple(sorted({0, 1} | halves))
        preset: dict[str, Any] = {
            "serial_bottleneck_sizes": sizes,
            "parallel_bottleneck_sizes": sizes,
            "prefix_lengths": sizes,
        }
        _check_names("SearchSpace", choices, {f.name for f in fields(cls)})
        return cls(num_layers=num_layers, hidden_size=hidden_size, **(preset | choices))

    @classmethod
    def from_model(cls, model_or_config: Any, **choices: Any) -> SearchSpace:
        """Returns the paper's space for a Transformers model or its config (no weights are loaded).

        Args:
            model_or_config: A `PreTrainedModel`, or a `PreTrainedConfig`.
            **choices: Any attribute of `SearchSpace`; what is given replaces what is read.

        Raises:
            ConfigError: If the config does not tell its layers, width or heads.
        """
        config = getattr(model_or_config, "config", model_or_config)
        if hasattr(config, "get_text_config"):
            config = config.get_text_config()
        read: dict[str, Any] = {
            "num_layers": choices.get("num_layers", getattr(config, "num_hidden_layers", None)),
            "hidden_size": choices.get("hidden_size", getattr(config, "hidden_size", None)),
        }
        missing = [name for name, value in read.items() if value is None]
        if missing:
            raise ConfigError(
                f"expected a Transformers model or config that tells its {' and '.join(missing)}, "
                f"got {type(model_or_config).__name__}; pass "
                f"{', '.join(f'{name}=...' for name in missing)}"
            )
        read["key_value_size"] = _key_value_size(config)
        return cls.paper(**(read | choices))

    # --- the grid -----------------------------------------------------------------------------

    @cached_property
    def dimensions(self) -> dict[str, tuple[float, ...]]:
        """The choices of every dimension by Optuna name, in the vector's order."""
        dimensions: dict[str, tuple[float, ...]] = dict(zip(SIZE_NAMES, self._choices, strict=True))
        dimensions.update({name: (0, 1) for name in self._layer_names})
        if self.learning_rates is not None:
            dimensions[LEARNING_RATE] = self.learning_rates
        return dimensions

    @property
    def distributions(self) -> dict[str, optuna.distributions.BaseDistribution]:
        """The Optuna distributions of the dimensions: what `suggest` asks a trial for."""
        from optuna.distributions import (
            BaseDistribution,
            CategoricalDistribution,
            IntDistribution,
        )

        made: dict[str, BaseDistribution] = {}
        for name, choices in self.dimensions.items():
            is_layer = name in self._layer_names
            made[name] = IntDistribution(0, 1) if is_layer else CategoricalDistribution(choices)
        return made

    @cached_property
    def size(self) -> int:
        """The exact number of valid configurations (learning rates not multiplied in)."""
        per_layer = self._params_per_layer
        most = self._most_active(per_layer)
        tally = np.bincount(most[per_layer > 0], minlength=self.num_layers + 1)
        masks = [math.comb(self.num_layers, active) for active in range(self.num_layers + 1)]
        return sum(int(n) * sum(masks[1 : k + 1]) for k, n in enumerate(tally))

    @property
    def num_points(self) -> int:
        """The number of different trials: valid configurations times learning rates."""
        return self.size * len(self.learning_rates or (None,))

    # --- Optuna's parameters ------------------------------------------------------------------

    def suggest(self, trial: optuna.trial.BaseTrial) -> AutoPEFTConfig:
        """Returns the configuration that a trial stands for, asking it for every dimension.

        Raises:
            optuna.TrialPruned: If a sampler that does not know the space drew an invalid point.
        """
        import optuna

        params: dict[str, float] = {}
        for name, choices in self.dimensions.items():
            if name in self._layer_names:
                params[name] = trial.suggest_int(name, 0, 1)
            else:
                params[name] = trial.suggest_categorical(name, choices)
        try:
            return self.config(params)
        except ConfigError as error:
            raise optuna.TrialPruned(str(error)) from error

    def params(self, config: AutoPEFTConfig, learning_rate: float | None = None) -> dict[str, Any]:
        """Returns the Optuna parameters of a configuration; inverse of `config`.

        Raises:
            ConfigError: If the configuration or the learning rate is not in the space.
        """
        sizes, active = self._shared_sizes(config)
        params: dict[str, Any] = dict(zip(SIZE_NAMES, sizes, strict=True))
        params.update({name: int(i in active) for i, name in enumerate(self._layer_names)})
        if (learning_rate is None) != (self.learning_rates is None):
            wanted = "no learning rate" if self.learning_rates is None else "a learning rate"
            raise ConfigError(f"expected {wanted}, as the space says, got {learning_rate}")
        if learning_rate is not None:
            params[LEARNING_RATE] = learning_rate
        self._levels(params)
        return params

    def config(self, params: Mapping[str, Any]) -> AutoPEFTConfig:
        """Returns the configuration of Optuna's parameters; other entries are ignored.

        Raises:
            ConfigError: If a parameter is missing or the configuration is not valid.
        """
        self._levels(params)
        layers = [i for i, name in enumerate(self._layer_names) if params[name]]
        return AutoPEFTConfig(
            **{name: int(params[name]) for name in SIZE_NAMES},
            layers_to_transform=None if len(layers) == self.num_layers else layers,
        )

    def canonical(self, config: AutoPEFTConfig) -> AutoPEFTConfig:
        """Returns the configuration with shared sizes and the shortest mask; the rest is kept.

        Raises:
            ConfigError: If the configuration is not in the space.
        """
        plain = self.config(self._structure(config))
        names = (*SIZE_NAMES, "layers_to_transform")
        return replace(config.joined(), **{name: getattr(plain, name) for name in names})

    def is_valid(self, config: AutoPEFTConfig) -> bool:
        """Returns whether the configuration lies in the space, its budget included."""
        try:
            self._levels(self._structure(config))
        except ConfigError:
            return False
        return True

    # --- vectors ------------------------------------------------------------------------------

    def encode(
        self, config: AutoPEFTConfig, learning_rate: float | None = None
    ) -> NDArray[np.float64]:
        """Returns the vector ``d`` in [0, 1] of a configuration; inverse of `decode`.

        Raises:
            ConfigError: If the configuration or the learning rate is not in the space.
        """
        return self.encode_params(self.params(config, learning_rate))

    def encode_params(self, params: Mapping[str, Any]) -> NDArray[np.float64]:
        """Returns the vector ``d`` in [0, 1] of Optuna's parameters.

        Raises:
            ConfigError: If a parameter is missing or the configuration is not valid.
        """
        return np.asarray(self._levels(params) / self._scale, dtype=np.float64)

    def decode(self, x: ArrayLike) -> tuple[AutoPEFTConfig, float | None]:
        """Returns the configuration and learning rate nearest to a vector ``d``.

        Raises:
            ConfigError: If the vector has another length or its configuration is not valid.
        """
        params = self.decode_params(x)
        return self.config(params), params.get(LEARNING_RATE)

    def decode_params(self, x: ArrayLike) -> dict[str, Any]:
        """Returns the Optuna parameters nearest to a vector ``d``, valid or not."""
        levels = self._nearest_levels(np.asarray(x, dtype=np.float64)[None])[0]
        return {
            name: choices[level]
            for (name, choices), level in zip(self.dimensions.items(), levels, strict=True)
        }

    def neighbors(self, config: AutoPEFTConfig) -> list[AutoPEFTConfig]:
        """Returns all valid configurations that differ in one size or in one layer's bit."""
        params = self._structure(config)
        self._levels(params)
        changed = [
            params | {name: choice}
            for name, choices in self.dimensions.items()
            for choice in choices
            if name != LEARNING_RATE and choice != params[name]
        ]
        return [self.config(other) for other in changed if self._reason_against(other) is None]

    def sample(self, seed: int | np.random.Generator) -> AutoPEFTConfig:
        """Returns a configuration drawn uniformly from all valid ones."""
        generator = np.random.default_rng(seed)
        per_layer = self._params_per_layer
        most = self._most_active(per_layer) * (per_layer > 0)
        masks = [math.comb(self.num_layers, active) for active in range(self.num_layers + 1)]
        up_to = np.array([sum(masks[1 : k + 1]) / 2**self.num_layers for k in range(len(masks))])
        weights = up_to[most]
        combination = int(generator.choice(len(weights), p=weights / weights.sum()))
        shares = np.array([n / 2**self.num_layers for n in masks[1 : most[combination] + 1]])
        active = 1 + int(generator.choice(len(shares), p=shares / shares.sum()))
        layers = generator.choice(self.num_layers, size=active, replace=False)
        sizes = np.unravel_index(combination, self._grid_shape)
        params = {n: c[k] for n, c, k in zip(SIZE_NAMES, self._choices, sizes, strict=True)}
        return self.config(params | {n: int(i in layers) for i, n in enumerate(self._layer_names)})

    def sample_stratified(
        self, n: int, seed: int | np.random.Generator, *, p_absent: float = 0.4
    ) -> NDArray[np.float64]:
        """Returns vectors ``n x d`` of valid points from cheap to dear; repeats are possible.

        Uniform draws hardly ever are small: half of the layers are on and each module is mostly
        present. Here the number of active layers is uniform, each module is absent with
        probability `p_absent`, and a present one takes each of its sizes alike.

        Args:
            n: Number of points.
            seed: Seed or generator.
            p_absent: Probability that a module is absent, in [0, 1).
        """
        generator = np.random.default_rng(seed)
        weights = self._stratified_weights(p_absent)
        most = self._most_active(self._params_per_layer) * (self._params_per_layer > 0)
        active = generator.integers(1, most.max(), size=n, endpoint=True)
        levels = np.zeros((n, len(self.dimensions)), dtype=np.int64)
        for count in np.unique(active):
            rows = np.flatnonzero(active == count)
            allowed = weights * (most >= count)
            picked = generator.choice(len(allowed), size=len(rows), p=allowed / allowed.sum())
            levels[rows, :3] = np.stack(np.unravel_index(picked, self._grid_shape), axis=1)
        ranks = generator.random((n, self.num_layers)).argsort(axis=1).argsort(axis=1)
        levels[:, 3 : 3 + self.num_layers] = ranks < active[:, None]
        if self.learning_rates is not None:
            levels[:, -1] = generator.integers(len(self.learning_rates), size=n)
        return np.asarray(levels / self._scale, dtype=np.float64)

    # --- parameter counts ---------------------------------------------------------------------

    def num_params(self, config: AutoPEFTConfig) -> int:
        """Returns how many numbers the saved adapter of any `AutoPEFTConfig` holds.

        Biases count, a prefix is its keys and values (a projection used in training is folded
        away), the task head does not count.

        Raises:
            ConfigError: If the configuration does not fit `num_layers`.
        """
        return sum(
            self._layer_params(layer.serial, layer.parallel, layer.prefix)
            for layer in config.layer_sizes(self.num_layers)
        )

    def num_paper_params(self, config: AutoPEFTConfig) -> int:
        """Returns the count that AutoPEFT reports: as `num_params`, without the biases."""
        return sum(
            2 * self.hidden_size * (layer.serial + layer.parallel)
            + 2 * self._key_value_size * layer.prefix
            for layer in config.layer_sizes(self.num_layers)
        )

    def num_trained_params(self, config: AutoPEFTConfig, num_head_params: int = 0) -> int:
        """Returns how many numbers training changes: the adapter's and the task head's."""
        return self.num_params(config) + num_head_params

    def count_params(self, X: ArrayLike) -> NDArray[np.int64]:
        """Returns the parameter counts ``n`` of vectors ``n x d``; 0 where everything is off."""
        levels = self._nearest_levels(np.asarray(X, dtype=np.float64))
        per_layer = self._params_per_layer.reshape(self._grid_shape)[tuple(levels[:, :3].T)]
        active = levels[:, 3 : 3 + self.num_layers].sum(axis=1)
        return np.asarray(per_layer * active, dtype=np.int64)

    # --- JSON ---------------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """Returns the space as JSON-compatible values; inverse of `from_dict`."""
        values = asdict(self)
        return {n: list(v) if isinstance(v, tuple) else v for n, v in values.items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> SearchSpace:
        """Returns the space that `to_dict` described.

        Raises:
            ConfigError: If an entry is unknown, missing or impossible.
        """
        names = {f.name for f in fields(cls)}
        _check_names("SearchSpace", values, names)
        missing = sorted(names - set(values) - {"learning_rates", "key_value_size", "max_params"})
        if missing:
            raise ConfigError(f"expected a whole search space, got one without {missing}")
        return cls(**values)

    # --- inner workings -----------------------------------------------------------------------

    @property
    def _choices(self) -> tuple[tuple[int, ...], ...]:
        return self.serial_bottleneck_sizes, self.parallel_bottleneck_sizes, self.prefix_lengths

    @property
    def _grid_shape(self) -> tuple[int, ...]:
        return tuple(len(choices) for choices in self._choices)

    @cached_property
    def _layer_names(self) -> tuple[str, ...]:
        return tuple(f"layer_{i}" for i in range(self.num_layers))

    @property
    def _key_value_size(self) -> int:
        assert self.key_value_size is not None  # __post_init__ filled it in
        return self.key_value_size

    @cached_property
    def _num_levels(self) -> NDArray[np.int64]:
        return np.array([len(choices) for choices in self.dimensions.values()])

    @property
    def _scale(self) -> NDArray[np.int64]:
        """Divisors ``d`` from level to [0, 1]; a dimension with one choice stays at 0."""
        return np.maximum(self._num_levels - 1, 1)

    @cached_property
    def _params_per_layer(self) -> NDArray[np.int64]:
        """Parameters of one active layer, for every combination of sizes, flat in grid order."""
        counts = [
            np.array([self._layer_params(*(k * (d == i) for d in range(3))) for k in choices])
            for i, choices in enumerate(self._choices)
        ]
        grid = counts[0][:, None, None] + counts[1][None, :, None] + counts[2][None, None, :]
        return np.asarray(grid.reshape(-1), dtype=np.int64)

    def _layer_params(self, serial: int, parallel: int, prefix: int) -> int:
        bottlenecks = sum(
            2 * self.hidden_size * size + size + self.hidden_size
            for size in (serial, parallel)
            if size
        )
        return bottlenecks + 2 * self._key_value_size * prefix

    def _most_active(self, per_layer: NDArray[np.int64]) -> NDArray[np.int64]:
        """Active layers that the budget allows, for every combination of sizes."""
        if self.max_params is None:
            return np.full_like(per_layer, self.num_layers)
        return np.minimum(self.max_params // np.maximum(per_layer, 1), self.num_layers)

    def _stratified_weights(self, p_absent: float) -> NDArray[np.float64]:
        """Weight of every combination of sizes: absent or, alike, one of the present sizes."""
        weights = []
        for choices in self._choices:
            present = np.array([size > 0 for size in choices])
            share = (1 - p_absent) / max(int(present.sum()), 1)
            weights.append(np.where(present, share, p_absent))
        grid = weights[0][:, None, None] * weights[1][None, :, None] * weights[2][None, None, :]
        return np.asarray(grid.reshape(-1), dtype=np.float64)

    def _check_not_empty(self) -> None:
        combinations = math.prod(self._grid_shape)
        if combinations > MAX_SIZE_COMBINATIONS:
            raise ConfigError(
                f"expected at most {MAX_SIZE_COMBINATIONS} combinations of sizes, got "
                f"{combinations}; thin the lists (sizes work on a log scale)"
            )
        present = self._params_per_layer[self._params_per_layer > 0]
        if not present.size:
            raise ConfigError(
                "expected a size above 0 for at least one module, got only 0 (absent) everywhere; "
                "add a size to serial_bottleneck_sizes, parallel_bottleneck_sizes or prefix_lengths"
            )
        if self.max_params is not None and present.min() > self.max_params:
            raise ConfigError(
                f"expected max_params of at least {present.min()}, which the smallest "
                f"configuration needs, got {self.max_params}; raise the budget or add smaller sizes"
            )

    def _shared_sizes(self, config: AutoPEFTConfig) -> tuple[tuple[int, int, int], set[int]]:
        """Returns the one set of sizes that all active layers share, and those layers."""
        layers = config.layer_sizes(self.num_layers)
        sizes = [(layer.serial, layer.parallel, layer.prefix) for layer in layers]
        active = {i for i, size in enumerate(sizes) if any(size)}
        different = {sizes[i] for i in active}
        if len(different) != 1:
            raise ConfigError(
                "expected the same (serial, parallel, prefix) sizes in every active layer, got "
                f"{sorted(different)}; this space shares the sizes between its layers"
            )
        return different.pop(), active

    def _structure(self, config: AutoPEFTConfig) -> dict[str, Any]:
        """Returns the parameters of a configuration, with any learning rate of the space."""
        rate = None if self.learning_rates is None else self.learning_rates[0]
        return self.params(config, rate)

    def _reason_against(self, params: Mapping[str, Any]) -> str | None:
        """Returns why parameters do not stand for a point of the space, or None if they do."""
        for name, choices in self.dimensions.items():
            if name not in params and name != LEARNING_RATE:
                return f"expected a parameter {name}, got only {sorted(params)}"
            if params.get(name, choices[0]) not in choices:
                return f"expected {name} among {list(choices)}, got {params[name]}"
        active = sum(int(params[name]) for name in self._layer_names)
        count = active * self._layer_params(*(int(params[name]) for name in SIZE_NAMES))
        if count == 0:
            return "expected at least one layer and one module on, got everything off"
        if self.max_params is not None and count > self.max_params:
            return f"expected at most {self.max_params} parameters (max_params), got {count}"
        return None

    def _levels(self, params: Mapping[str, Any]) -> NDArray[np.int64]:
        """Returns the place of every parameter among its choices, ``d``, after checking them."""
        reason = self._reason_against(params)
        if reason is not None:
            raise ConfigError(f"{reason}; see SearchSpace.dimensions for the choices")
        items = self.dimensions.items()
        return np.array([choices.index(params.get(name, choices[0])) for name, choices in items])

    def _nearest_levels(self, X: NDArray[np.float64]) -> NDArray[np.int64]:
        if X.ndim != 2 or X.shape[1] != len(self.dimensions):
            raise ConfigError(
                f"expected vectors with {len(self.dimensions)} entries, got shape {X.shape}"
            )
        if not np.isfinite(X).all():
            raise ConfigError("expected finite numbers in [0, 1], got NaN or infinity")
        levels = np.rint(np.clip(X, 0, 1) * (self._num_levels - 1))
        return np.asarray(levels, dtype=np.int64)


def _is_int(value: Any) -> bool:
    return hasattr(value, "__index__") and not isinstance(value, bool)


def _positive_int(name: str, value: Any) -> int:
    if not _is_int(value) or index(value) < 1:
        raise ConfigError(f"expected {name} to be a whole number of at least 1, got {value!r}")
    return index(value)


def _sizes(name: str, space: SearchSpace) -> tuple[int, ...]:
    """Returns one list of sizes of a space, checked and ascending."""
    values = getattr(space, name)
    if isinstance(values, str) or not isinstance(values, Sequence | np.ndarray):
        raise ConfigError(f"expected {name} to be a list of whole numbers, got {values!r}")
    if len(values) == 0:
        raise ConfigError(f"expected at least one value in {name}, got none; [0] means absent")
    for value in values:
        if not _is_int(value) or index(value) < 0:
            raise ConfigError(
                f"expected whole numbers of at least 0 in {name} (0 means absent), got {value!r}"
            )
    return _distinct(name, tuple(sorted(index(value) for value in values)))


def _rates(values: Any) -> tuple[float, ...] | None:
    """Returns the learning rates of a space, checked and ascending."""
    if values is None:
        return None
    name = "learning_rates"
    if isinstance(values, str) or not isinstance(values, Sequence | np.ndarray) or not len(values):
        raise ConfigError(f"expected {name} to be a non-empty list or None, got {values!r}")
    for value in values:
        is_number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
        if not is_number or not 0 < value < math.inf:
            raise ConfigError(f"expected numbers above 0 in {name}, got {value!r}")
    return _distinct(name, tuple(sorted(float(value) for value in values)))


def _distinct(name: str, values: tuple[Number, ...]) -> tuple[Number, ...]:
    twice = sorted({value for value in values if values.count(value) > 1})
    if twice:
        raise ConfigError(f"expected different values in {name}, got {twice} more than once")
    return values


def _check_names(what: str, given: Mapping[str, Any], known: set[str]) -> None:
    unknown = sorted(set(given) - known)
    if unknown:
        raise ConfigError(f"expected attributes of {what} ({sorted(known)}), got {unknown}")


def _key_value_size(config: Any) -> int | None:
    """Returns ``num_key_value_heads * head_dim`` of a model config, or None if it has no heads."""
    heads = getattr(config, "num_attention_heads", None)
    key_value_heads = getattr(config, "num_key_value_heads", None) or heads
    if not heads or not key_value_heads:
        return None
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // heads
    return int(key_value_heads * head_dim)
