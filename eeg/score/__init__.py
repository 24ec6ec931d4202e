"""What a model is worth: metrics, label-only baselines, predictions of finished runs."""
