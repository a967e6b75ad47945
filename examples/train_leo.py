"""Trains and tests LEO on the embedded characters: a training loop to read.

    python examples/train_leo.py

A minute on two cores. `leo_tf.train` does the same with checkpoints, validation,
TensorBoard and a run directory.
"""

import keras
import numpy as np
import tensorflow as tf

import leo_tf

SHAPE = {"way": 5, "shot": 1, "num_query": 15}
STEPS, META_BATCH_SIZE, TEST_EPISODES, SEED = 1000, 12, 600, 0


def main(steps: int = STEPS) -> float:
    data, config = leo_tf.load_data(), leo_tf.PRESETS["glyphs"].config()
    leo = leo_tf.LEO(config.model)
    leo.build([None, None, None, data["train"].embedding_size])
    meta_step = leo_tf.make_meta_step(
        leo,
        keras.optimizers.Adam(config.optimizer.outer_lr, epsilon=1e-8),
        gradient_threshold=config.optimizer.gradient_threshold,
        gradient_norm_threshold=config.optimizer.gradient_norm_threshold,
        jit=True,
    )
    size, seed = {"batch_size": META_BATCH_SIZE}, tf.constant(SEED, tf.int64)
    batches = leo_tf.episodes(data["train"], **SHAPE, **size, seed=SEED, split="train")
    for step, episode in enumerate(batches.take(steps)):
        # All that is drawn follows from (seed, step).
        metrics = meta_step(episode, seed, tf.constant(step, tf.int64))
        if step % 100 == 0:
            print(f"step {step}  loss {metrics['loss']:.3f}  {metrics['accuracy']:.1%}")
    right = accuracies(leo, data["test"])
    error = 1.96 * right.std(ddof=1) / np.sqrt(len(right))
    print(f"test accuracy {right.mean():.2%} ± {error:.2%} over {len(right)} episodes")
    return float(right.mean())


def accuracies(leo, table) -> np.ndarray:
    """Returns the accuracy in each of the first test episodes: [TEST_EPISODES]."""
    size, right = {"batch_size": 60, "num_episodes": TEST_EPISODES}, []
    for episode in leo_tf.episodes(table, **SHAPE, **size, seed=SEED, split="test"):
        # Both inner loops run in here: on the latents, then on the classifier.
        inputs = episode.support_inputs, episode.support_labels, episode.query_inputs
        answers = np.argmax(leo(*inputs), axis=-1)  # [B, N, Q]
        right.append(np.mean(answers == episode.query_labels, axis=(1, 2)))  # [B]
    return np.concatenate(right)


if __name__ == "__main__":
    main()
