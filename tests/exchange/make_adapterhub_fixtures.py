"""Makes the folder `fixtures`: adapters that AdapterHub's library saved, and what they give.

Needs an environment of its own, since that library is pinned to an old transformers:

    python -m venv adapterhub && adapterhub/bin/pip install "adapters==1.3.0" "torch>=2.6"
    adapterhub/bin/python tests/exchange/make_adapterhub_fixtures.py

All weights are drawn at random here; nothing is downloaded. Each case is a folder as
`save_adapter` leaves it, but for one thing: the library cannot save a prefix as safetensors (every
layer names the shared tensors), so what it saves as `pytorch_adapter.bin` is copied over, key by
key. `models.safetensors` holds the two base models, the batch and, for each case, the last hidden
state. `summary.json` says with which versions it was made.
"""

import json
import shutil
from pathlib import Path

import adapters
import torch
import transformers
from adapters import AutoAdapterModel, ConfigUnion, ParBnConfig, PrefixTuningConfig, SeqBnConfig
from safetensors.torch import save_file
from transformers import BertConfig, BertModel, RobertaConfig, RobertaModel

FOLDER = Path(__file__).parent / "fixtures"
SIZES = {
    "vocab_size": 30,
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 16,
    "type_vocab_size": 1,
    # the usual 0.02 is so near to nothing that wrong weights would hardly show
    "initializer_range": 0.3,
}
SMALL_PREFIX = {"prefix_length": 3, "bottleneck_size": 4}
CASES = {
    "serial": SeqBnConfig(reduction_factor=4, non_linearity="gelu", leave_out=[1]),
    # 16 / (16 / 13) is a little less than 13, hence a width of 12
    "serial-widths": SeqBnConfig(reduction_factor={"0": 16 / 13, "2": 100, "default": 8}),
    "serial-scaled": SeqBnConfig(reduction_factor=8, non_linearity="swish", scaling=0.5),
    "parallel": ParBnConfig(reduction_factor=8),
    "parallel-learned": ParBnConfig(reduction_factor=8, scaling="learned", leave_out=[0]),
    "prefix": PrefixTuningConfig(**SMALL_PREFIX, leave_out=[1]),
    "prefix-flat": PrefixTuningConfig(prefix_length=4, flat=True),
    "mam": ConfigUnion(
        PrefixTuningConfig(**SMALL_PREFIX, leave_out=[0]), ParBnConfig(reduction_factor=8)
    ),
}
MODELS = {"bert": (BertConfig, BertModel), "roberta": (RobertaConfig, RobertaModel)}
PICKLES = {
    "pytorch_adapter.bin": "adapter.safetensors",
    "pytorch_model_head.bin": "model_head.safetensors",
}
# the head of a classifier is saved beside the adapter, under names of its own
WITH_HEAD = ("bert", "serial")


def batch() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(5, SIZES["vocab_size"], (2, 7), generator=generator)
    mask = torch.ones_like(ids)
    mask[1, 4:] = 0
    return {"input_ids": ids.masked_fill(mask == 0, 1), "attention_mask": mask}


def replace_pickles(folder: Path) -> None:
    """Writes what the `.bin` files of a folder hold as safetensors, and deletes them."""
    for file, safe_name in PICKLES.items():
        if (folder / file).is_file():
            tensors = torch.load(folder / file, weights_only=True)
            save_file({key: value.clone() for key, value in tensors.items()}, folder / safe_name)
            (folder / file).unlink()


def save_case(name: str, model: torch.nn.Module, config: object) -> torch.Tensor:
    """Saves a random adapter in the folder of a case; returns the last hidden state with it."""
    with_head = hasattr(model, "add_classification_head")
    model.add_adapter("mine", config=config)
    if with_head:
        model.add_classification_head("mine", num_labels=2)
    model.set_active_adapters("mine")
    for key, parameter in model.named_parameters():
        if "mine" in key:
            # around 1 for a learned scale, which is a vector of one number
            offset = 1.0 if key.endswith("scaling") else 0.0
            torch.nn.init.normal_(parameter, mean=offset, std=0.3)
    model.eval()
    model.save_adapter(str(FOLDER / name), "mine")
    replace_pickles(FOLDER / name)
    with torch.no_grad():
        output = model(**batch(), output_hidden_states=True).hidden_states[-1]
    model.delete_adapter("mine")
    return output


def main() -> None:
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir()
    tensors = {f"batch.{key}": value for key, value in batch().items()}
    effects = {}
    for kind, (config_class, model_class) in MODELS.items():
        torch.manual_seed(0)
        model = model_class(config_class(**SIZES)).eval()
        for key, value in model.state_dict().items():
            if not key.startswith(("pooler.", "embeddings.position_ids")):
                tensors[f"{kind}.base.{key}"] = value.clone()
        with torch.no_grad():
            plain = model(**batch()).last_hidden_state
        adapters.init(model)
        for case, config in CASES.items():
            name = f"{kind}-{case}"
            if (kind, case) == WITH_HEAD:
                owner = AutoAdapterModel.from_config(model.config)
                owner.base_model.load_state_dict(model.state_dict())
            else:
                owner = model
            tensors[f"{name}.output"] = save_case(name, owner, config)
            effects[name] = float((tensors[f"{name}.output"] - plain).abs().max())
    save_file(tensors, FOLDER / "models.safetensors")
    facts = {
        "adapters": adapters.__version__,
        "transformers": transformers.__version__,
        "torch": torch.__version__,
        "sizes": SIZES,
        "largest_effect": effects,
    }
    (FOLDER / "summary.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
