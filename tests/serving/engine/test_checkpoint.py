"""Folders as Hugging Face writes them load and give the same logits; damaged ones are named in one line."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from paperlab.serving import LLM
from paperlab.serving.engine.checkpoint import load_decoder, open_checkpoint, random_decoder
from paperlab.transformer import preset
from tests.serving.engine import tiny

CPU = torch.device("cpu")


@pytest.fixture
def folder(tmp_path):
    tiny.model("llama").save_pretrained(tmp_path)
    return tmp_path


def change_config(folder, **values):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def change_tensors(folder, change):
    path = folder / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


@pytest.mark.parametrize("family", tiny.FAMILIES)
@pytest.mark.parametrize("shard", ["50GB", "10KB"])
@torch.no_grad()
def test_logits_equal(tmp_path, family, shard):
    model = tiny.model(family)
    model.save_pretrained(tmp_path / "a folder", max_shard_size=shard)
    checkpoint = open_checkpoint(tmp_path / "a folder")
    assert (len(set(checkpoint.files.values())) > 1) == (shard == "10KB")
    ids = torch.tensor(tiny.prompts()[1:2])
    ours = load_decoder(checkpoint, torch.float64, CPU)(ids)
    torch.testing.assert_close(ours, model(ids).logits, rtol=1e-5, atol=1e-5)


def test_dtype_and_stop_tokens(folder):
    change_config(folder, eos_token_id=[3, 7])
    (folder / "generation_config.json").unlink(missing_ok=True)
    checkpoint = open_checkpoint(folder)
    assert checkpoint.stop_tokens == (3, 7)
    assert load_decoder(checkpoint, torch.bfloat16, CPU).norm.weight.dtype == torch.bfloat16
    (folder / "generation_config.json").write_text('{"eos_token_id": 5}')
    assert open_checkpoint(folder).stop_tokens == (5,)


def test_a_stored_tied_head_and_old_buffers_are_no_fault(tmp_path):
    tiny.model("qwen2").save_pretrained(tmp_path)

    def add(tensors):
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
        tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(3)

    change_tensors(tmp_path, add)
    load_decoder(open_checkpoint(tmp_path), torch.float32, CPU)


DAMAGE = {
    "no such folder": lambda folder: [file.unlink() for file in folder.iterdir()] and folder.rmdir(),
    "config.json is missing": lambda folder: (folder / "config.json").unlink(),
    "config.json: not readable as JSON": lambda folder: (folder / "config.json").write_text("{"),
    "config.json: holds a list": lambda folder: (folder / "config.json").write_text("[]"),
    "model_type is 'mamba'; supported: llama, qwen2, qwen3": lambda folder: change_config(folder, model_type="mamba"),
    "config.json: .*rope": lambda folder: change_config(
        folder, rope_parameters={"rope_type": "yarn", "factor": 2.0, "rope_theta": 1e4}
    ),
    "only safetensors are read": lambda folder: (folder / "model.safetensors").rename(folder / "pytorch_model.bin"),
    "model.safetensors: not a readable safetensors file": lambda folder: (folder / "model.safetensors").write_bytes(
        b"junk" * 9
    ),
    r"tensor model.layers.1.mlp.up_proj.weight is missing \(and 1 more\)": lambda folder: change_tensors(
        folder,
        lambda tensors: [tensors.pop(f"model.{name}") for name in ("layers.1.mlp.up_proj.weight", "norm.weight")],
    ),
    "tensor model.layers.2.extra is not part of the model": lambda folder: change_tensors(
        folder, lambda tensors: tensors.update({"model.layers.2.extra": torch.ones(2)})
    ),
    r"model.norm.weight has shape \[7\]; config.json asks for \[24\]": lambda folder: change_tensors(
        folder, lambda tensors: tensors.update({"model.norm.weight": torch.ones(7)})
    ),
    "model.norm.weight is torch.int32; only floating-point": lambda folder: change_tensors(
        folder, lambda tensors: tensors.update({"model.norm.weight": torch.ones(24, dtype=torch.int32)})
    ),
}


@pytest.mark.parametrize("message", DAMAGE)
def test_damage_is_named(folder, message):
    DAMAGE[message](folder)
    with pytest.raises(ValueError, match=message) as caught:
        LLM(folder, "vllm-like", device="cpu")
    assert "\n" not in str(caught.value)


def test_damaged_shards_are_named(tmp_path):
    tiny.model("llama").save_pretrained(tmp_path, max_shard_size="10KB")
    index = tmp_path / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    first = min(content["weight_map"].values())
    (tmp_path / first).rename(tmp_path / "away")
    with pytest.raises(ValueError, match=f"shard {first} is missing"):
        open_checkpoint(tmp_path)
    name = next(name for name, shard in content["weight_map"].items() if shard == first)
    other = max(content["weight_map"].values())
    index.write_text(json.dumps({"weight_map": content["weight_map"] | {name: "../away"}}))
    with pytest.raises(ValueError, match=r"shard \.\./away is missing"):
        open_checkpoint(tmp_path)
    (tmp_path / "away").rename(tmp_path / first)
    index.write_text(json.dumps({"weight_map": content["weight_map"] | {name: other}}))
    with pytest.raises(ValueError, match=f"the index promises tensor {name}, its shard lacks it"):
        load_decoder(open_checkpoint(tmp_path), torch.float32, CPU)
    index.write_text('{"weight_map": [1]}')
    with pytest.raises(ValueError, match="weight_map is missing or not a map"):
        open_checkpoint(tmp_path)


def test_random_weights_are_seeded_and_not_zero():
    from dataclasses import replace

    shape = replace(preset("qwen2.5-1.5b"), layers=1, hidden=16, heads=2, kv_heads=1, head_dim=8, ffn=8, vocab=50)
    first, again, other = (random_decoder(shape, torch.bfloat16, CPU, seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["embed_tokens.weight"], other["embed_tokens.weight"])
    assert first["layers.0.self_attn.q_proj.weight"].float().std() > 0.01
