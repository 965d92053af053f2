"""What is asked of: a model spec, and the model and tokenizer behind it."""
