"""Published models in miniature: diffusers' own classes with random weights, as folders in its
layout, so that our calls can be compared with its pipelines where no weights can be had."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

WAN = dict(
    patch_size=(1, 2, 2), num_attention_heads=2, attention_head_dim=12, in_channels=16,
    out_channels=16, text_dim=32, freq_dim=256, ffn_dim=32, num_layers=2, cross_attn_norm=True,
    qk_norm="rms_norm_across_heads", rope_max_seq_len=32,
)  # fmt: skip
_IMAGES = dict(in_channels=36, image_dim=4, added_kv_proj_dim=24)
_VAE = dict(
    base_dim=3, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1,
    temperal_downsample=[False, True, True],
)  # fmt: skip
_VAE_5B = _VAE | dict(
    z_dim=48, in_channels=12, out_channels=12, is_residual=True, patch_size=2,
    latents_mean=[0.1 * i - 2 for i in range(48)], latents_std=[1 + 0.05 * i for i in range(48)],
    scale_factor_spatial=16, scale_factor_temporal=4,
)  # fmt: skip
# What a name of gvcc.priors.models stands for: transformer, autoencoder, index.
WANS: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "wan2.1-t2v-1.3b": (WAN, _VAE, {}),
    "wan2.1-i2v-14b-720p": (WAN | _IMAGES, _VAE, {}),
    "wan2.1-flf2v-14b-720p": (WAN | _IMAGES | dict(pos_embed_seq_len=2 * 17), _VAE, {}),
    "wan2.2-t2v-a14b": (WAN, _VAE, dict(boundary_ratio=0.875)),
    "wan2.2-ti2v-5b": (
        WAN | dict(in_channels=48, out_channels=48), _VAE_5B, dict(expand_timesteps=True),
    ),
}  # fmt: skip
COGVIDEOX = dict(
    num_attention_heads=4, attention_head_dim=16, in_channels=4, out_channels=4, time_embed_dim=2,
    text_embed_dim=32, num_layers=1, sample_width=8, sample_height=8, sample_frames=9,
    patch_size=2, temporal_compression_ratio=4, max_text_seq_length=16,
)  # fmt: skip
COGS: dict[str, tuple[dict[str, Any], float]] = {
    "cogvideox-2b": (COGVIDEOX, 3.0),
    "cogvideox-5b": (COGVIDEOX | dict(use_rotary_positional_embeddings=True), 1.0),
}
NAMES = (*WANS, *COGS)


def make(name: str, folder: Path, seed: int = 0) -> Path:
    """The model `name` in miniature, in a folder of its own below `folder`."""
    at = folder / f"{name}-{seed}"
    torch.manual_seed(seed)
    if name in WANS:
        _wan(name, at)
    else:
        _cogvideox(name, at)
    _tokenizer(at / "tokenizer")
    return at


def _wan(name: str, at: Path) -> None:
    from diffusers import AutoencoderKLWan, WanTransformer3DModel

    net, vae, index = WANS[name]
    WanTransformer3DModel(**net).save_pretrained(at / "transformer")
    if "boundary_ratio" in index:
        WanTransformer3DModel(**net).save_pretrained(at / "transformer_2")
    AutoencoderKLWan(**vae).save_pretrained(at / "vae")
    if "image_dim" in net:
        _clip(at)
    _umt5(at / "text_encoder")
    (at / "model_index.json").write_text(json.dumps({"_class_name": "WanPipeline", **index}))


def _clip(at: Path) -> None:
    from transformers import CLIPImageProcessorPil, CLIPVisionConfig, CLIPVisionModel

    CLIPVisionModel(CLIPVisionConfig(
        hidden_size=4, projection_dim=4, num_hidden_layers=2, num_attention_heads=2, image_size=4,
        intermediate_size=16, patch_size=1,
    )).save_pretrained(at / "image_encoder")  # fmt: skip
    CLIPImageProcessorPil(crop_size=4, size=4).save_pretrained(at / "image_processor")


def _umt5(at: Path) -> None:
    from transformers import UMT5Config, UMT5EncoderModel

    UMT5EncoderModel(UMT5Config(
        vocab_size=64, d_model=32, d_kv=8, d_ff=37, num_layers=2, num_heads=4,
    )).save_pretrained(at)  # fmt: skip


def _cogvideox(name: str, at: Path) -> None:
    from diffusers import (
        AutoencoderKLCogVideoX,
        CogVideoXDDIMScheduler,
        CogVideoXTransformer3DModel,
    )
    from transformers import T5Config, T5EncoderModel

    net, shift = COGS[name]
    CogVideoXTransformer3DModel(**net).save_pretrained(at / "transformer")
    AutoencoderKLCogVideoX(
        in_channels=3, out_channels=3, down_block_types=("CogVideoXDownBlock3D",) * 4,
        up_block_types=("CogVideoXUpBlock3D",) * 4, block_out_channels=(8, 8, 8, 8),
        latent_channels=4, layers_per_block=1, norm_num_groups=2, temporal_compression_ratio=4,
    ).save_pretrained(at / "vae")  # fmt: skip
    CogVideoXDDIMScheduler(
        prediction_type="v_prediction", rescale_betas_zero_snr=True, snr_shift_scale=shift,
        timestep_spacing="trailing", clip_sample=False,
    ).save_pretrained(at / "scheduler")  # fmt: skip
    T5EncoderModel(T5Config(
        vocab_size=64, d_model=32, d_kv=8, d_ff=37, num_layers=2, num_heads=4,
    )).save_pretrained(at / "text_encoder")  # fmt: skip
    (at / "model_index.json").write_text(json.dumps({"_class_name": "CogVideoXPipeline"}))


@lru_cache
def _words() -> dict[str, int]:
    words = "a fox runs in the snow & water blurred static é".split()
    return {"<pad>": 0, "</s>": 1, "<unk>": 2} | {w: 3 + i for i, w in enumerate(words)}


def _tokenizer(at: Path) -> None:
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(WordLevel(_words(), unk_token="<unk>"))
    made.pre_tokenizer = WhitespaceSplit()
    made.post_processor = TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(at)
