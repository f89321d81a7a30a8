"""What networks do on data that they were not trained on: outputs, scores, figures."""
