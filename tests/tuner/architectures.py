"""A tiny random model of every architecture, with a batch for each.

The structure of each is that of its family, whatever the sizes: grouped keys and values, heads
wider than ``hidden / heads``, sliding windows, experts, shared layers, two stacks.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import transformers as hf
from torch import Tensor

__all__ = ["ARCHITECTURES", "Architecture", "build"]

VOCAB_SIZE = 99
# the prefix of these is at work only where a token attends to others; so none is shorter
LENGTHS = (9, 6, 4)

Batch = dict[str, Tensor]


def text_batch() -> Batch:
    """Three sentences of unequal length, padded on the right."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(5, VOCAB_SIZE, (len(LENGTHS), max(LENGTHS)), generator=generator)
    mask = torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS)[:, None]
    return {"input_ids": ids.masked_fill(~mask, 1), "attention_mask": mask.long()}


def text_to_text_batch() -> Batch:
    generator = torch.Generator().manual_seed(2)
    ids = torch.randint(5, VOCAB_SIZE, (len(LENGTHS), 5), generator=generator)
    return {**text_batch(), "decoder_input_ids": ids}


def image_batch() -> Batch:
    generator = torch.Generator().manual_seed(3)
    return {"pixel_values": torch.randn(3, 3, 16, 16, generator=generator)}


def speech_batch() -> Batch:
    generator = torch.Generator().manual_seed(4)
    ids = torch.randint(5, VOCAB_SIZE, (3, 5), generator=generator)
    features = torch.randn(3, 8, 20, generator=generator)
    return {"input_features": features, "decoder_input_ids": ids}


def text_image_batch() -> Batch:
    return {**text_batch(), **image_batch()}


BERT = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
}
LLAMA = {**BERT, "num_key_value_heads": 2, "pad_token_id": 1}
GPT2 = {"vocab_size": VOCAB_SIZE, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
# so large that the experts' grouped matrix product accepts their strides on a CPU
EXPERTS = {**LLAMA, "num_experts_per_tok": 2}
T5 = {"vocab_size": VOCAB_SIZE, "d_model": 32, "d_kv": 12, "d_ff": 48, "num_heads": 4}
BART = {
    "vocab_size": VOCAB_SIZE,
    "d_model": 32,
    **{
        f"{side}_{name}": size
        for side in ("encoder", "decoder")
        for name, size in (("layers", 2), ("attention_heads", 4), ("ffn_dim", 48))
    },
    "max_position_embeddings": 64,
}
DEBERTA = {
    **BERT,
    "relative_attention": True,
    "pos_att_type": ["p2c", "c2p"],
    "max_relative_positions": 6,
    "position_biased_input": False,
}
IMAGE = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "image_size": 16,
    "patch_size": 8,
}
CLIP_TEXT = {**BERT, "projection_dim": 16, "eos_token_id": 2}
CLIP_VISION = {**IMAGE, "hidden_size": 40, "projection_dim": 16}


@dataclass(frozen=True)
class Architecture:
    """How to build one tiny model.

    Attributes:
        model: Its class.
        config: The class of its configuration.
        sizes: The fields of the configuration.
        batch: Makes a batch for it.
        num_layers: How many layers `find_layers` finds in it.
        off_interface: Whether its attention does not ask transformers for its function.
    """

    model: type[hf.PreTrainedModel]
    config: type[hf.PreTrainedConfig]
    sizes: Mapping[str, Any]
    batch: Callable[[], Batch] = text_batch
    num_layers: int = 2
    off_interface: bool = False

    def build(self, **changes: Any) -> hf.PreTrainedModel:
        """Returns the model in evaluation mode, the same weights at every call."""
        torch.manual_seed(0)
        model = self.model(self.config(**{**self.sizes, **changes})).eval()
        # at the usual 0.02 a random model all but ignores its attention and feed-forward layers
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1 and "embed" not in name:
                torch.nn.init.normal_(parameter, std=0.15)
        return model


ARCHITECTURES: dict[str, Architecture] = {
    "BERT": Architecture(hf.BertModel, hf.BertConfig, BERT),
    "RoBERTa": Architecture(hf.RobertaModel, hf.RobertaConfig, {**BERT, "pad_token_id": 1}),
    "ELECTRA": Architecture(hf.ElectraModel, hf.ElectraConfig, {**BERT, "embedding_size": 16}),
    "DistilBERT": Architecture(
        hf.DistilBertModel,
        hf.DistilBertConfig,
        {"vocab_size": VOCAB_SIZE, "dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48},
    ),
    "ALBERT": Architecture(
        hf.AlbertModel,
        hf.AlbertConfig,
        {**BERT, "embedding_size": 16, "num_hidden_layers": 3},
        num_layers=1,
    ),
    "DeBERTa": Architecture(hf.DebertaModel, hf.DebertaConfig, DEBERTA, off_interface=True),
    "DeBERTa-v2/v3": Architecture(
        hf.DebertaV2Model,
        hf.DebertaV2Config,
        {**DEBERTA, "position_buckets": 4, "share_att_key": True, "norm_rel_ebd": "layer_norm"},
        off_interface=True,
    ),
    "ModernBERT": Architecture(
        hf.ModernBertModel,
        hf.ModernBertConfig,
        {**BERT, "pad_token_id": 1, "local_attention": 4, "global_attn_every_n_layers": 2},
    ),
    "GPT-2": Architecture(hf.GPT2LMHeadModel, hf.GPT2Config, GPT2),
    "GPT-NeoX": Architecture(hf.GPTNeoXForCausalLM, hf.GPTNeoXConfig, BERT),
    "OPT": Architecture(
        hf.OPTForCausalLM,
        hf.OPTConfig,
        {
            "vocab_size": VOCAB_SIZE,
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "ffn_dim": 48,
            "max_position_embeddings": 64,
            "word_embed_proj_dim": 32,
        },
    ),
    "GPT-J": Architecture(hf.GPTJForCausalLM, hf.GPTJConfig, {**GPT2, "rotary_dim": 4}),
    "Bloom": Architecture(
        hf.BloomForCausalLM,
        hf.BloomConfig,
        {"vocab_size": VOCAB_SIZE, "hidden_size": 32, "n_layer": 2, "n_head": 4},
        off_interface=True,
    ),
    "Falcon": Architecture(
        hf.FalconForCausalLM,
        hf.FalconConfig,
        {
            "vocab_size": VOCAB_SIZE,
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "new_decoder_architecture": True,
            "num_kv_heads": 2,
        },
        off_interface=True,
    ),
    "Llama": Architecture(hf.LlamaForCausalLM, hf.LlamaConfig, LLAMA),
    "Mistral": Architecture(
        hf.MistralForCausalLM, hf.MistralConfig, {**LLAMA, "sliding_window": 4, "head_dim": 12}
    ),
    "Qwen3": Architecture(hf.Qwen3ForCausalLM, hf.Qwen3Config, {**LLAMA, "head_dim": 16}),
    "Gemma 2": Architecture(
        hf.Gemma2ForCausalLM,
        hf.Gemma2Config,
        {**LLAMA, "head_dim": 12, "sliding_window": 4, "attn_implementation": "eager"},
    ),
    "Gemma 3": Architecture(
        hf.Gemma3ForCausalLM,
        hf.Gemma3TextConfig,
        {**LLAMA, "head_dim": 12, "sliding_window": 4},
    ),
    "Phi-3": Architecture(hf.Phi3ForCausalLM, hf.Phi3Config, LLAMA),
    "Mixtral": Architecture(
        hf.MixtralForCausalLM, hf.MixtralConfig, {**EXPERTS, "num_local_experts": 4}
    ),
    "Qwen3-MoE": Architecture(
        hf.Qwen3MoeForCausalLM,
        hf.Qwen3MoeConfig,
        {**EXPERTS, "num_experts": 4, "moe_intermediate_size": 16, "head_dim": 16},
    ),
    "T5": Architecture(
        hf.T5ForConditionalGeneration,
        hf.T5Config,
        {**T5, "num_layers": 2, "decoder_start_token_id": 0},
        batch=text_to_text_batch,
        num_layers=4,
    ),
    "BART": Architecture(
        hf.BartForConditionalGeneration,
        hf.BartConfig,
        BART,
        batch=text_to_text_batch,
        num_layers=4,
    ),
    "ViT": Architecture(hf.ViTModel, hf.ViTConfig, IMAGE, batch=image_batch),
    "Whisper": Architecture(
        hf.WhisperForConditionalGeneration,
        hf.WhisperConfig,
        {
            **{k: v for k, v in BART.items() if k != "max_position_embeddings"},
            "num_mel_bins": 8,
            "max_source_positions": 10,
            "max_target_positions": 64,
            "pad_token_id": 1,
            "bos_token_id": 2,
            "eos_token_id": 2,
            "decoder_start_token_id": 3,
        },
        batch=speech_batch,
        num_layers=4,
    ),
    "CLIP text": Architecture(hf.CLIPTextModel, hf.CLIPTextConfig, CLIP_TEXT),
    "CLIP vision": Architecture(
        hf.CLIPVisionModel, hf.CLIPVisionConfig, CLIP_VISION, batch=image_batch
    ),
    "SigLIP vision": Architecture(
        hf.SiglipVisionModel, hf.SiglipVisionConfig, IMAGE, batch=image_batch
    ),
    "CLIP": Architecture(
        hf.CLIPModel,
        hf.CLIPConfig,
        {"text_config": CLIP_TEXT, "vision_config": CLIP_VISION, "projection_dim": 16},
        batch=text_image_batch,
        num_layers=4,
    ),
}


def build(name: str, **changes: Any) -> hf.PreTrainedModel:
    """Returns a tiny random model of the architecture in evaluation mode."""
    return ARCHITECTURES[name].build(**changes)
