"""Shootouts made up for tests: configurations, and records of trainings that never ran."""

from typing import Any

from psannlm.shootout_config import ShootoutConfig


def shootout_config(**changes: Any) -> ShootoutConfig:
    """A shootout of two layers on the sample text, in the shape of the test networks."""
    values: dict[str, Any] = {
        "vocab_size": 64, "context_length": 16, "d_model": 16, "n_layers": 2, "n_heads": 2,
        "d_mlp": 32, "preset": "cpu", "corpus": "datasets/lm/sample.txt", "train_megabytes": 0.05,
        "validation_megabytes": 0.02, "tokenizer": "bpe", "tokenizer_file": "", "epochs": 1.0,
        "batch_tokens": 1024, "pass_tokens": 1024, "loss_chunk_tokens": 512, "optimizer": "adamw",
        "schedule": "cosine", "warmup_fraction": 0.1, "decay_fraction": 0.2,
        "final_fraction": 0.1, "weight_decay": 0.1, "beta1": 0.9, "beta2": 0.95, "clip_norm": 1.0,
        "precision": "fp32", "compile": False, "device": "cpu", "evaluations": 2,
        "checkpoint_steps": 1000, "base": (), "baseline": "gelu", "match": "parameters",
        "learning_rates": (0.001, 0.003), "scaled_learning_rates": (0.003,),
        "scaled_frequencies": (1.0, 2.25), "tuning_seed": 100, "seeds": (0, 1, 2),
        "side_seeds": 2, "ablation": ("respsann",), "scales": (1.0, 2.25, 5.0),
        "scale_arms": ("respsann", "gelu", "gelu_scaled"), "cells_at_once": 0, "scheduler": "",
        "timeout_seconds": 100.0, "with_lm_eval": False,
        "lm_eval_tasks": ("lambada_openai", "hellaswag"), "lm_eval_limit": 256,
        "lm_eval_folder": "",
    }  # fmt: skip
    return ShootoutConfig(**values | changes)
