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
from ..tuner.config import PARTS, AutoPEFTConfig, LayerSizes
from .choices import check_attributes, check_names, check_positive
from .configs import layer_sizes, only_varied, shared_sizes
from .counts import LayerCosts
from .grid import SizeGrid, nearest_levels, scale_levels
from .structure import read_structure

if TYPE_CHECKING:
    import optuna

__all__ = ["SearchSpace"]

LORA_RANK = PARTS["lora"]
LEARNING_RATE = "learning_rate"
SIZE_NAMES = tuple(name for name in PARTS.values() if name != LORA_RANK)  # those of AutoPEFT


@dataclass(frozen=True)
class SearchSpace:
    """The configurations that a search may propose, and their exact parameter counts.

    Every active layer gets the same sizes; an inactive layer gets nothing. A configuration is valid
    when at least one layer and one module are on and it has at most `max_params` parameters.
    Whatever else an `AutoPEFTConfig` may hold is at its default.

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
        lora_ranks: Choices for the rank of low-rank updates, ascending; 0 means absent. None leaves
            that dimension out, as AutoPEFT does.
        low_rank_size: Inputs and outputs of one layer's modules with low-rank updates, summed;
            given with `lora_ranks`, and read by `from_model`.
        lora_modules: Which modules these are, as in `AutoPEFTConfig`.

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
    lora_ranks: tuple[int, ...] | None = None
    low_rank_size: int | None = None
    lora_modules: str | tuple[str, ...] = "all"

    def __post_init__(self) -> None:
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        for name, value in check_attributes(given).items():
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
            ConfigError: If it is neither, or its layers differ in a size that a space shares.
            PlacementError: If the tuner does not know its layers, or none of their modules are
                those of `lora_modules`.
        """
        check_names("a search space", choices, [f.name for f in fields(cls)])
        has_low_rank = choices.get("lora_ranks") is not None
        modules = choices.get("lora_modules", "all") if has_low_rank else None
        found = read_structure(model_or_config, given=choices, lora_modules=modules)
        return cls.paper(**(found | choices))

    @property
    def size_names(self) -> tuple[str, ...]:
        """The fields of `AutoPEFTConfig` with the sizes that vary: the first dimensions."""
        return SIZE_NAMES if self.lora_ranks is None else (*SIZE_NAMES, LORA_RANK)

    @cached_property
    def dimensions(self) -> dict[str, tuple[float, ...]]:
        """The choices of every dimension by Optuna name, in the vector's order."""
        dimensions: dict[str, tuple[float, ...]] = dict(
            zip(self.size_names, self._sizes, strict=True)
        )
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
        params = self._structure(only_varied(config))
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
        chosen: dict[str, Any] = {name: int(params[name]) for name in self.size_names}
        if chosen.get(LORA_RANK):
            chosen["lora_modules"] = self._lora_modules
        if len(layers) < self.num_layers:
            chosen["layers_to_transform"] = layers
        return AutoPEFTConfig(**chosen)

    @property
    def size(self) -> int:
        """The exact number of valid configurations (learning rates not multiplied in)."""
        return self._grid.size

    @property
    def num_points(self) -> int:
        """The number of different trials: valid configurations times learning rates."""
        return self._grid.size * max(self._grid.num_free, 1)

    @property
    def params_range(self) -> tuple[int, int]:
        """The parameter counts of the smallest and of the largest valid configuration."""
        counts = self._grid.per_layer * self._grid.most_active
        return int(self._grid.per_layer[self._grid.most_active > 0].min()), int(counts.max())

    def is_valid(self, config: AutoPEFTConfig) -> bool:
        """Returns whether the configuration lies in the space, its budget included."""
        try:
            self._check(self._structure(only_varied(config)))
        except ConfigError:
            return False
        return True

    def canonical(self, config: AutoPEFTConfig) -> AutoPEFTConfig:
        """Returns the configuration with shared sizes and the shortest mask; the rest is kept."""
        plain = self.config(self._structure(config))
        names = (*self.size_names, "layers_to_transform")
        return replace(config.joined(), **{name: getattr(plain, name) for name in names})

    def neighbors(self, config: AutoPEFTConfig) -> list[AutoPEFTConfig]:
        """Returns all valid configurations that differ in one size or in one layer's bit."""
        params = self._structure(only_varied(config))
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
        levels = self._grid.sample_stratified(n, np.random.default_rng(seed))
        return scale_levels(levels, self._num_levels)

    def points(self) -> NDArray[np.float64]:
        """Returns the vectors ``num_points x d`` of every different trial; for small spaces."""
        return scale_levels(self._grid.all_levels(), self._num_levels)

    def num_params(self, config: AutoPEFTConfig) -> int:
        """Returns how many numbers the saved adapter of any `AutoPEFTConfig` holds.

        Biases count, a prefix is its keys and values, the task head does not count. The
        configuration need not lie in the space.

        Raises:
            ConfigError: If its modules are named one by one, or have low-rank updates that are not
                those of this space.
        """
        layers = self._layer_sizes(config)
        return sum(self._costs.of_layer(config.joined(), sizes) for sizes in layers)

    def num_paper_params(self, config: AutoPEFTConfig) -> int:
        """Returns the count that AutoPEFT reports: as `num_params`, without the biases."""
        layers = self._layer_sizes(config)
        biases = sum(self._costs.biases(config.joined(), sizes) for sizes in layers)
        return self.num_params(config) - biases

    def num_trained_params(self, config: AutoPEFTConfig, num_head_params: int = 0) -> int:
        """Returns how many numbers training changes: the adapter's and the task head's."""
        return self.num_params(config) + num_head_params

    def count_params(self, X: ArrayLike) -> NDArray[np.int64]:
        """Returns the parameter counts ``n`` of vectors ``n x d``; 0 where everything is off."""
        return self._grid.count_params(nearest_levels(X, self._num_levels))

    def to_dict(self) -> dict[str, Any]:
        """Returns the space as JSON-compatible values; inverse of `from_dict`."""
        values = asdict(self)
        if self.lora_ranks is None:  # as spaces were described before they could have any
            values = {n: v for n, v in values.items() if not n.startswith(("lora", "low_rank"))}
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
        sizes = self.serial_bottleneck_sizes, self.parallel_bottleneck_sizes, self.prefix_lengths
        return sizes if self.lora_ranks is None else (*sizes, self.lora_ranks)

    @property
    def _lora_modules(self) -> str | list[str]:
        return self.lora_modules if isinstance(self.lora_modules, str) else [*self.lora_modules]

    @cached_property
    def _layer_names(self) -> tuple[str, ...]:
        return tuple(f"layer_{i}" for i in range(self.num_layers))

    @cached_property
    def _grid(self) -> SizeGrid:
        costs = [
            tuple(self._costs.of_part(name, size) for size in sizes)
            for name, sizes in zip(self.size_names, self._sizes, strict=True)
        ]
        num_rates = len(self.learning_rates or ())
        return SizeGrid(tuple(costs), self.num_layers, self.max_params, num_rates)

    @cached_property
    def _num_levels(self) -> NDArray[np.int64]:
        return np.array([len(choices) for choices in self.dimensions.values()])

    @cached_property
    def _costs(self) -> LayerCosts:
        key_value_size = self.key_value_size or self.hidden_size
        return LayerCosts(self.hidden_size, key_value_size, self.low_rank_size or 0)

    def _layer_sizes(self, config: AutoPEFTConfig) -> list[LayerSizes]:
        """Returns the sizes of each layer; low-rank updates must be those of this space."""
        modules = None if self.lora_ranks is None else self._lora_modules
        return layer_sizes(config, self.num_layers, modules)

    def _structure(self, config: AutoPEFTConfig) -> dict[str, Any]:
        """Returns the parameters of a configuration without a learning rate, not yet checked."""
        layers = self._layer_sizes(config)
        # a size that does not vary stands last and is 0
        params: dict[str, Any] = dict(zip(self.size_names, shared_sizes(layers), strict=False))
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
        count = active * sum(
            self._costs.of_part(name, int(params[name])) for name in self.size_names
        )
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
