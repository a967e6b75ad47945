"""Tags of the data in TensorBoard, and their descriptions.

TensorBoard sorts groups, which end at the first slash, by name, and opens the first
ones. So the most important group begins with "a", and diagnostics come later.
"""

ACCURACY = "accuracy_and_loss/accuracy"
BEST_ACCURACY = "validation/best_accuracy"
LOSS = "accuracy_and_loss/loss"
NOT_FINITE = "accuracy_and_loss/steps_not_finite"

# Prefixes of the meta-step's metrics -> prefixes of tags, where they differ.
_RENAMED = {
    "inner_loop/support_loss_step_": "inner_loop_steps/support_loss_after_",
    "gradient_norm/": "optimisation_gradient_norm/",
    "clipped_norm/": "optimisation_gradient_norm_after_clipping/",
    "clipped_share/": "optimisation_clipped_share/",
}

# Descriptions of a tag, or of all tags of a group.
DESCRIPTIONS = {
    ACCURACY: "Share of queries answered correctly. `train`: mean since the last "
    "point, with dropout and draws; `validation`: all validation episodes, without; "
    "`centroid`: nearest centroid on those. A run at 1 / way has collapsed.",
    BEST_ACCURACY: "The best validation accuracy so far; with --train_on_val the "
    "newest.",
    NOT_FINITE: "Steps with a NaN or an infinity since the run began.",
    LOSS: "Query cross-entropy and penalties, the sum of `loss_parts`.",
    "loss_parts": "The terms of the loss; `query` is the cross-entropy. "
    "`validation`: of the first episodes only, and without draws.",
    "inner_loop": "Adaptation to the support. `support_loss_start` is its loss before "
    "any step, `support_loss_latent` after those on the latents, `support_loss_end` "
    "after fine-tuning, `support_loss_drop` the gain of both; MAML and Meta-SGD have "
    "`support_loss_before_last_step` instead. `latent_step`: distance that latents "
    "move. `stddev_floor_share`: share of latent stddevs at their floor; at 1 latents "
    "are drawn without noise. `grew/RATE`: share of steps in which the support loss "
    "rose, in the loop of that rate, by more than the loss of guessing: lower it.",
    "inner_loop_steps": "Support loss after each step: on the latents, then of "
    "fine-tuning.",
    "optimisation": "Means of the learned learning rates.",
    "optimisation_clipped_share": "Share of steps whose gradient was clipped.",
    "optimisation_gradient_norm": "Before clipping, mean over steps.",
    "optimisation_gradient_norm_after_clipping": "Mean over steps.",
    "optimisation_update_to_weight": "Length of the last step's update over that of "
    "the variable. About 1e-3 is usual; near 1 a step overwrites what was learned.",
    "speed": "Speed of training without validation. Waiting for input: share of time "
    "in which a step waited for its episodes.",
    "pictures/confusion": "Answers to the validation queries of each class.",
    "pictures/episode": "A validation episode: the support's first example of each "
    "class, then queries, framed green if answered right, orange if wrong. Bars are "
    "the probabilities of the classes in the order of the rows.",
    "pictures/reliability": "Accuracy against confidence: equal on the diagonal.",
    "tensors_gradients": "Entries of the last step's gradients, after clipping.",
    "tensors_latents": "Latent codes of validation episodes, all entries.",
    "tensors_variables": "Entries of each variable.",
}


def tag_of(metric: str) -> str:
    """Returns TensorBoard's tag of a metric of the meta-step with a group."""
    for beginning, renamed in _RENAMED.items():
        if metric.startswith(beginning):
            return renamed + metric.removeprefix(beginning)
    return metric
