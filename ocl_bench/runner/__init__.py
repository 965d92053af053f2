"""From a request to a run folder: plan, check, finetune and evaluate every seed, score."""
