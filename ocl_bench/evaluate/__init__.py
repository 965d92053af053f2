"""How a model is evaluated: prompts in, answers out."""
