"""How a model is evaluated: prompts in, samples out."""
