"""Tiny random models (and one adapter) under the names that PEFT's tests ask the hub for.

Each is saved in a folder called like its repository, so that `from_pretrained("org/name")` finds
it when the tests run in the folder above: nothing is patched and nothing is downloaded.
"""

import hashlib
from pathlib import Path
from typing import Any

import torch
import transformers
from peft import LoraConfig

__all__ = ["MORE_MODELS", "build_hub"]

# The usual 0.02 makes a tiny random model nearly constant, and every difference too small to see.
INITIALISER = 0.2

PEFT = "peft-internal-testing/tiny-random"
OPT_NAME = f"{PEFT}-OPTForCausalLM"
# test_config.py reads the configuration of this adapter, and nothing else of it.
ADAPTER = "peft-internal-testing/tiny-opt-lora-revision"

TOKENS = {"vocab_size": 100, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
BERT = {
    **TOKENS,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
    "initializer_range": INITIALISER,
}
DEBERTA = {
    **BERT,
    "relative_attention": True,
    "pos_att_type": ["c2p", "p2c"],
    "position_biased_input": False,
}
MODERNBERT = {**BERT, "cls_token_id": 1, "sep_token_id": 2}
DISTILBERT = {
    **TOKENS,
    "dim": 32,
    "n_layers": 2,
    "n_heads": 4,
    "hidden_dim": 64,
    "initializer_range": INITIALISER,
}
LLAMA = {**BERT, "num_key_value_heads": 2}
WIDE_HEADS = {**LLAMA, "head_dim": 16}
MIXTRAL = {**LLAMA, "num_local_experts": 4, "num_experts_per_tok": 2}
OPT = {**BERT, "ffn_dim": 64, "word_embed_proj_dim": 32, "init_std": INITIALISER}
GPT = {
    **TOKENS,
    "n_embd": 32,
    "n_layer": 2,
    "n_head": 4,
    "n_positions": 64,
    "initializer_range": INITIALISER,
}
BLOOM = {
    **TOKENS,
    "hidden_size": 32,
    "n_layer": 2,
    "n_head": 4,
    "initializer_range": INITIALISER,
}
T5 = {
    **TOKENS,
    "d_model": 32,
    "num_layers": 2,
    "num_heads": 4,
    "d_ff": 64,
    "d_kv": 8,
    # with less, an adapter hardly changes what is generated
    "initializer_factor": 3.0,
    "decoder_start_token_id": 0,
}
BART = {
    **TOKENS,
    "d_model": 32,
    "max_position_embeddings": 64,
    "init_std": INITIALISER,
    "decoder_start_token_id": 2,
    "forced_eos_token_id": None,
    **{f"{side}_layers": 2 for side in ("encoder", "decoder")},
    **{f"{side}_attention_heads": 4 for side in ("encoder", "decoder")},
    **{f"{side}_ffn_dim": 64 for side in ("encoder", "decoder")},
}

# Name -> (model class, configuration class, its fields).
ASKED_FOR: dict[str, tuple[str, str, dict[str, Any]]] = {
    OPT_NAME: ("OPTForCausalLM", "OPTConfig", OPT),
    f"{PEFT}-GPT2LMHeadModel": ("GPT2LMHeadModel", "GPT2Config", GPT),
    f"{PEFT}-GPTJForCausalLM": ("GPTJForCausalLM", "GPTJConfig", {**GPT, "rotary_dim": 4}),
    "trl-internal-testing/tiny-random-LlamaForCausalLM": ("LlamaForCausalLM", "LlamaConfig", LLAMA),
    "peft-internal-testing/tiny-dummy-qwen2": ("Qwen2ForCausalLM", "Qwen2Config", LLAMA),
    "hf-internal-testing/tiny-random-Gemma3ForCausalLM": (
        "Gemma3ForCausalLM",
        "Gemma3TextConfig",
        WIDE_HEADS,
    ),
    f"{PEFT}-T5ForConditionalGeneration-calibrated": (
        "T5ForConditionalGeneration",
        "T5Config",
        T5,
    ),
    f"{PEFT}-BartForConditionalGeneration": ("BartForConditionalGeneration", "BartConfig", BART),
    f"{PEFT}-BertModel": ("BertModel", "BertConfig", BERT),
    f"{PEFT}-RobertaModel": ("RobertaModel", "RobertaConfig", BERT),
    f"{PEFT}-DebertaModel": ("DebertaModel", "DebertaConfig", DEBERTA),
    f"{PEFT}-DebertaV2Model": ("DebertaV2Model", "DebertaV2Config", DEBERTA),
    f"{PEFT}-BertForSequenceClassification": (
        "BertForSequenceClassification",
        "BertConfig",
        BERT,
    ),
    f"{PEFT}-RobertaForSequenceClassification": (
        "RobertaForSequenceClassification",
        "RobertaConfig",
        BERT,
    ),
    "trl-internal-testing/tiny-LlamaForSequenceClassification-3.2": (
        "LlamaForSequenceClassification",
        "LlamaConfig",
        {**LLAMA, "num_labels": 1},
    ),
}
ADDED: dict[str, tuple[str, str, dict[str, Any]]] = {
    f"more/{model}": (model, config, fields)
    for model, config, fields in (
        ("MistralForCausalLM", "MistralConfig", {**LLAMA, "sliding_window": 4}),
        ("Qwen3ForCausalLM", "Qwen3Config", WIDE_HEADS),
        ("Gemma2ForCausalLM", "Gemma2Config", WIDE_HEADS),
        ("Phi3ForCausalLM", "Phi3Config", LLAMA),
        ("MixtralForCausalLM", "MixtralConfig", MIXTRAL),
        ("GPTNeoXForCausalLM", "GPTNeoXConfig", BERT),
        ("BloomForCausalLM", "BloomConfig", BLOOM),
        ("FalconForCausalLM", "FalconConfig", BERT),
        ("DistilBertModel", "DistilBertConfig", DISTILBERT),
        ("ElectraModel", "ElectraConfig", {**BERT, "embedding_size": 16}),
        ("AlbertModel", "AlbertConfig", {**BERT, "embedding_size": 16}),
        ("ModernBertModel", "ModernBertConfig", MODERNBERT),
    )
}
# Further rows for PEFT's tables of models, since our methods find their places by structure.
MORE_MODELS = {
    "PEFT_DECODER_MODELS_TO_TEST": [name for name in ADDED if name.endswith("ForCausalLM")],
    "PEFT_FEATURE_EXTRACTION_MODELS_TO_TEST": [name for name in ADDED if name.endswith("Model")],
}


def build_hub(cache: Path) -> Path:
    """Saves all, if it is not there yet, each as `<organisation>/<name>` in the returned folder."""
    recipe = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:8]
    folder = cache / f"models-{transformers.__version__}-{recipe}"
    transformers.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    for name, (model, config, fields) in {**ASKED_FOR, **ADDED}.items():
        if not (folder / name / "config.json").is_file():
            torch.manual_seed(0)
            built = getattr(transformers, model)(getattr(transformers, config)(**fields))
            built.save_pretrained(folder / name)
    LoraConfig(base_model_name_or_path=OPT_NAME).save_pretrained(str(folder / ADAPTER))
    return folder
