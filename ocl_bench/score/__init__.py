"""From samples to accuracies and gaps, with intervals."""
