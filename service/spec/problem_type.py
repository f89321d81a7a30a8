"""What the outputs of a network of ``transformers`` mean, by ``problem_type`` of its ``config.json``.

Invariant: outputs teach what they mean alone: one class of several by a softmax, each class by itself by a sigmoid, or numbers.
"""

ONE_LABEL, MULTI_LABEL, NUMBERS = "single_label_classification", "multi_label_classification", "regression"
