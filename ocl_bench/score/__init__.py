"""From answers to samples, accuracies and gaps, with intervals."""
