"""What the outputs of a network of ``transformers`` mean, by ``problem_type`` of its ``config.json``.

Invariant: classes are learned by a softmax over all of them, so that a network whose outputs are not meant so teaches no classes.
"""

ONE_LABEL, MULTI_LABEL, NUMBERS = "single_label_classification", "multi_label_classification", "regression"
