"""Outputs, scores and metrics of networks on data that they were not trained on."""
