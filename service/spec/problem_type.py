"""What the outputs of a network of ``transformers`` mean, by ``problem_type`` of its ``config.json``.

Invariant: classes are learned by a softmax over all of them, so that a network whose outputs are not meant so teaches no classes.
"""

ONE_LABEL, MULTI_LABEL, NUMBERS = "single_label_classification", "multi_label_classification", "regression"
WHY_NOT_MULTI_LABEL = (
    f"problem_type is {MULTI_LABEL!r}: each output is a yes or no by itself, through a sigmoid, and jobs here teach one class of "
    "several, through a softmax. Choose a network of one class a sample; if this one was trained with one class a sample after "
    f'all, by cross-entropy, write "problem_type": "{ONE_LABEL}" into config.json'
)
