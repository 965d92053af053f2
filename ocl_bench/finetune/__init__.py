"""How a model is finetuned: recipes as data, and one call per stage with transformers' Trainer underneath."""
