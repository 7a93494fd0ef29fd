"""The search space: what may vary, and the only place that speaks both PEFT and numbers.

On the way it stands first: a `SearchSpace` turns Optuna's parameters or a search's vector into an
`AutoPEFTConfig` and back, and knows exactly how many numbers a configuration saves, without
building a model. A *configuration* is one size per module, shared by the layers of one mask; a
learning rate may vary beside it and costs no parameters. A *vector* holds, in the order of
`SearchSpace.dimensions`, each value's place among its choices, scaled to [0, 1].
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import ConfigError
from ..tuner.config import AutoPEFTConfig
from .choices import check_names, check_positive, check_rates, check_sizes, read_model
from .grid import SizeGrid, nearest_levels, scale_levels

if TYPE_CHECKING:
    import optuna

__all__ = ["SearchSpace"]

SIZE_NAMES = ("serial_bottleneck_size", "parallel_bottleneck_size", "prefix_length")
LEARNING_RATE = "learning_rate"


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
        ConfigError: If a choice is impossible or no configuration is left; from every method that
            is given a configuration, parameters or a vector that the space does not hold.
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
        kept: dict[str, Any] = {
            name: check_sizes(name, getattr(self, name))
            for name in ("serial_bottleneck_sizes", "parallel_bottleneck_sizes", "prefix_lengths")
        }
        for name in ("num_layers", "hidden_size"):
            kept[name] = check_positive(name, getattr(self, name))
        if self.learning_rates is not None:
            kept["learning_rates"] = check_rates("learning_rates", self.learning_rates)
        if self.key_value_size is None:
            kept["key_value_size"] = kept["hidden_size"]
        for name in ("key_value_size", "max_params"):
            if getattr(self, name) is not None:
                kept[name] = check_positive(name, getattr(self, name))
        for name, value in kept.items():
            object.__setattr__(self, name, value)
        _ = self._grid  # raises if no configuration is left

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
        width = check_positive("hidden_size", hidden_size)
        sizes = sorted({0, 1} | {width // 2**k for k in range(9)})
        preset: dict[str, Any] = {
            "serial_bottleneck_sizes": sizes,
            "parallel_bottleneck_sizes": sizes,
            "prefix_lengths": sizes,
        }
        check_names("a search space", choices, [f.name for f in fields(cls)])
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
        return cls.paper(**(read_model(model_or_config, given=set(choices)) | choices))

    @cached_property
    def dimensions(self) -> dict[str, tuple[float, ...]]:
        """The choices of every dimension by Optuna name, in the vector's order."""
        dimensions: dict[str, tuple[float, ...]] = dict(zip(SIZE_NAMES, self._sizes, strict=True))
        dimensions.update({name: (0, 1) for name in self._layer_names})
        if self.learning_rates is not None:
            dimensions[LEARNING_RATE] = self.learning_rates
        return dimensions

    @property
    def distributions(self) -> dict[str, optuna.distributions.BaseDistribution]:
        """The Optuna distributions of the dimensions: what `suggest` asks a trial for."""
        from optuna.distributions import CategoricalDistribution, IntDistribution

        return {
            name: IntDistribution(0, 1)
            if name in self._layer_names
            else CategoricalDistribution(choices)
            for name, choices in self.dimensions.items()
        }

    def suggest(self, trial: optuna.trial.BaseTrial) -> AutoPEFTConfig:
        """Returns the configuration that a trial stands for, asking it for every dimension.

        The learning rate is then ``trial.params["learning_rate"]``.

        Raises:
            optuna.TrialPruned: If a sampler that does not know the space drew an invalid point.
        """
        import optuna

        params: dict[str, Any] = {}
        for name, choices in self.dimensions.items():
            if name in self._layer_names:
                params[name] = trial.suggest_int(name, 0, 1)
            else:
                params[name] = trial.suggest_categorical(name, choices)
        reason = self._reason_against(params)
        if reason is not None:
            raise optuna.TrialPruned(reason)
        return self.config(params)

    def params(self, config: AutoPEFTConfig, learning_rate: float | None = None) -> dict[str, Any]:
        """Returns the Optuna parameters of a configuration; inverse of `config`."""
        params = self._structure(config)
        if (learning_rate is None) != (self.learning_rates is None):
            wanted = "no learning rate" if self.learning_rates is None else "a learning rate"
            raise ConfigError(
                f"expected {wanted}, as the space varies it or not, got {learning_rate}"
            )
        if learning_rate is not None:
            params[LEARNING_RATE] = learning_rate
        self._check(params)
        return params

    def config(self, params: Mapping[str, Any]) -> AutoPEFTConfig:
        """Returns the configuration of Optuna's parameters; other entries are ignored."""
        self._check(params)
        layers = [i for i, name in enumerate(self._layer_names) if params[name]]
        return AutoPEFTConfig(
            serial_bottleneck_size=int(params["serial_bottleneck_size"]),
            parallel_bottleneck_size=int(params["parallel_bottleneck_size"]),
            prefix_length=int(params["prefix_length"]),
            layers_to_transform=None if len(layers) == self.num_layers else layers,
        )

    @property
    def size(self) -> int:
        """The exact number of valid configurations (learning rates not multiplied in)."""
        return self._grid.size

    @property
    def num_points(self) -> int:
        """The number of different trials: valid configurations times learning rates."""
        return self.size * len(self.learning_rates or (None,))

    @property
    def params_range(self) -> tuple[int, int]:
        """The parameter counts of the smallest and of the largest valid configuration."""
        counts = self._grid.per_layer * self._grid.most_active
        return int(self._grid.per_layer[self._grid.most_active > 0].min()), int(counts.max())

    def is_valid(self, config: AutoPEFTConfig) -> bool:
        """Returns whether the configuration lies in the space, its budget included."""
        try:
            self._check(self._structure(config))
        except ConfigError:
            return False
        return True

    def canonical(self, config: AutoPEFTConfig) -> AutoPEFTConfig:
        """Returns the configuration with shared sizes and the shortest mask; the rest is kept."""
        plain = self.config(self._structure(config))
        names = (*SIZE_NAMES, "layers_to_transform")
        return replace(config.joined(), **{name: getattr(plain, name) for name in names})

    def neighbors(self, config: AutoPEFTConfig) -> list[AutoPEFTConfig]:
        """Returns all valid configurations that differ in one size or in one layer's bit."""
        params = self._structure(config)
        self._check(params)
        changed = [
            params | {name: choice}
            for name, choices in self.dimensions.items()
            for choice in choices
            if name != LEARNING_RATE and choice != params[name]
        ]
        return [self.config(other) for other in changed if self._reason_against(other) is None]

    def sample(self, seed: int | np.random.Generator) -> AutoPEFTConfig:
        """Returns a configuration drawn uniformly from all valid ones."""
        levels = self._grid.sample(1, np.random.default_rng(seed))[0]
        return self.config(self._at_levels(levels))

    def encode(
        self, config: AutoPEFTConfig, learning_rate: float | None = None
    ) -> NDArray[np.float64]:
        """Returns the vector ``d`` in [0, 1] of a configuration; inverse of `decode`."""
        return self.encode_params(self.params(config, learning_rate))

    def decode(self, x: ArrayLike) -> tuple[AutoPEFTConfig, float | None]:
        """Returns the configuration and the learning rate nearest to a vector ``d``."""
        params = self.decode_params(x)
        return self.config(params), params.get(LEARNING_RATE)

    def encode_params(self, params: Mapping[str, Any]) -> NDArray[np.float64]:
        """Returns the vector ``d`` in [0, 1] of Optuna's parameters."""
        self._check(params)
        if self.learning_rates is not None and LEARNING_RATE not in params:
            raise ConfigError(f"expected a parameter {LEARNING_RATE}, got only {sorted(params)}")
        levels = [choices.index(params[name]) for name, choices in self.dimensions.items()]
        return scale_levels(np.array(levels), self._num_levels)

    def decode_params(self, x: ArrayLike) -> dict[str, Any]:
        """Returns the Optuna parameters nearest to a vector ``d``, valid or not."""
        return self._at_levels(nearest_levels(np.asarray(x)[None], self._num_levels)[0])

    def sample_stratified(self, n: int, seed: int | np.random.Generator) -> NDArray[np.float64]:
        """Returns vectors ``n x d`` of valid points, drawn from cheap to dear; repeats may occur.

        See `SizeGrid.sample_stratified` for the distribution; learning rates are uniform.
        """
        generator = np.random.default_rng(seed)
        levels = self._grid.sample_stratified(n, generator)
        if self.learning_rates is not None:
            rates = generator.integers(len(self.learning_rates), size=(n, 1))
            levels = np.hstack([levels, rates])
        return scale_levels(levels, self._num_levels)

    def points(self) -> NDArray[np.float64]:
        """Returns the vectors ``num_points x d`` of every different trial; for small spaces."""
        levels = self._grid.all_levels()
        if self.learning_rates is not None:
            rates = np.arange(len(self.learning_rates))
            repeated = np.repeat(levels, len(rates), axis=0)
            levels = np.hstack([repeated, np.tile(rates, len(levels))[:, None]])
        return scale_levels(levels, self._num_levels)

    def num_params(self, config: AutoPEFTConfig) -> int:
        """Returns how many numbers the saved adapter of any `AutoPEFTConfig` holds.

        Biases count, a prefix is its keys and values, the task head does not count."""
        sizes = self._layer_sizes(config)
        return sum(self._layer_params(i, size) for layer in sizes for i, size in enumerate(layer))

    def num_paper_params(self, config: AutoPEFTConfig) -> int:
        """Returns the count that AutoPEFT reports: as `num_params`, without the biases."""
        biases = sum(
            size + self.hidden_size
            for layer in config.layer_sizes(self.num_layers)
            for size in (layer.serial, layer.parallel)
            if size
        )
        return self.num_params(config) - biases

    def num_trained_params(self, config: AutoPEFTConfig, num_head_params: int = 0) -> int:
        """Returns how many numbers training changes: the adapter's and the task head's."""
        return self.num_params(config) + num_head_params

    def count_params(self, X: ArrayLike) -> NDArray[np.int64]:
        """Returns the parameter counts ``n`` of vectors ``n x d``; 0 where everything is off."""
        levels = nearest_levels(X, self._num_levels)
        return self._grid.count_params(levels[:, : len(SIZE_NAMES) + self.num_layers])

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
        names = [f.name for f in fields(cls)]
        check_names("a search space", values, names)
        missing = sorted(set(names[:5]) - set(values))
        if missing:
            raise ConfigError(f"expected a whole search space, got one without {missing}")
        return cls(**values)

    @property
    def _sizes(self) -> tuple[tuple[int, ...], ...]:
        return self.serial_bottleneck_sizes, self.parallel_bottleneck_sizes, self.prefix_lengths

    @cached_property
    def _layer_names(self) -> tuple[str, ...]:
        return tuple(f"layer_{i}" for i in range(self.num_layers))

    @cached_property
    def _grid(self) -> SizeGrid:
        costs = [
            tuple(self._layer_params(i, size) for size in sizes)
            for i, sizes in enumerate(self._sizes)
        ]
        return SizeGrid(tuple(costs), self.num_layers, self.max_params)

    @cached_property
    def _num_levels(self) -> NDArray[np.int64]:
        return np.array([len(choices) for choices in self.dimensions.values()])

    def _layer_params(self, module: int, size: int) -> int:
        """Returns the parameters of one layer's module, by its place in `SIZE_NAMES`."""
        if SIZE_NAMES[module] == "prefix_length":
            return 2 * size * (self.key_value_size or self.hidden_size)
        return 2 * self.hidden_size * size + size + self.hidden_size if size else 0

    def _layer_sizes(self, config: AutoPEFTConfig) -> list[tuple[int, ...]]:
        """Returns the sizes that the space knows, in the order of `SIZE_NAMES`, of each layer."""
        layers = config.layer_sizes(self.num_layers)
        if any(layer.lora for layer in layers):
            raise ConfigError(
                f"expected no low-rank part in this space, got lora_rank={config.lora_rank}"
            )
        return [(layer.serial, layer.parallel, layer.prefix) for layer in layers]

    def _structure(self, config: AutoPEFTConfig) -> dict[str, Any]:
        """Returns the parameters of a configuration without a learning rate, not yet checked."""
        layers = self._layer_sizes(config)
        shared = {layer for layer in layers if any(layer)}
        if len(shared) != 1:
            raise ConfigError(
                "expected the same (serial, parallel, prefix) sizes in every active layer, as this "
                f"space shares them, got {sorted(shared)}"
            )
        params: dict[str, Any] = dict(zip(SIZE_NAMES, shared.pop(), strict=True))
        active = zip(self._layer_names, layers, strict=True)
        return params | {name: int(any(layer)) for name, layer in active}

    def _reason_against(self, params: Mapping[str, Any]) -> str | None:
        """Returns why parameters do not stand for a valid point, or None if they do."""
        for name, choices in self.dimensions.items():
            if name not in params and name != LEARNING_RATE:
                return f"expected a parameter {name}, got only {sorted(params)}"
            if params.get(name, choices[0]) not in choices:
                return f"expected {name} among {list(choices)}, got {params[name]}"
        active = sum(int(params[name]) for name in self._layer_names)
        sizes = (int(params[name]) for name in SIZE_NAMES)
        count = active * sum(self._layer_params(i, size) for i, size in enumerate(sizes))
        if count == 0:
            return "expected at least one layer and one module on, got everything off"
        if self.max_params is not None and count > self.max_params:
            return f"expected at most {self.max_params} parameters (max_params), got {count}"
        return None

    def _check(self, params: Mapping[str, Any]) -> None:
        reason = self._reason_against(params)
        if reason is not None:
            raise ConfigError(f"{reason}; SearchSpace.dimensions lists what this space holds")

    def _at_levels(self, levels: NDArray[np.int64]) -> dict[str, Any]:
        """Returns the parameters at levels, as many dimensions as there are levels."""
        named = zip(self.dimensions.items(), levels, strict=False)
        return {name: choices[level] for (name, choices), level in named}
